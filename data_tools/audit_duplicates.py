"""Which clips of a set show or sound the same, wholly or in part, and which leak from one split into another.

Clips that share hashes are found by sorting, so that the work grows with the set and not with its square; every such
pair is then compared hash by hash: of the same recording most agree at one offset in time.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from data_tools.audit_content import Fingerprint

NEIGHBOURS = 8  # clips in a row with the same key that are compared with each other: chains join longer rows
MIN_SHARED = 2  # keys that two clips share before they are compared
MAX_KEYS = 20_000_000  # of a whole set; of larger sets every n-th value is taken, the same in all clips
HAMMING = 10  # of 64 bits by which hashes of the same frame differ at most
BIN_SECONDS = {"picture": 0.25, "sound": 0.1}
MIN_SECONDS = 3.0  # that two clips have in common
MIN_SHARE = {"picture": 0.6, "sound": 0.12}  # of the hashes in the common stretch that agree
MIN_AGREEING = {"picture": 6, "sound": 20}
SHARPNESS = 1.5  # at one offset so many times more must agree than at the usual one: a still picture agrees at all
DUPLICATE_SHARE = 0.5  # of the shorter clip: more in common makes a duplicate


@dataclass(frozen=True)
class Content:
    """What is compared of a clip: how long it lasts, its file's hash, and the fingerprints of picture and sound."""

    key: str
    split: str
    source: str
    seconds: float
    sha256: str
    picture: Fingerprint
    sound: Fingerprint


@dataclass(frozen=True)
class Pair:
    """Two clips with the same content: what is seen at time t of `first` is seen at t + offset of `second`.

    how: "file", "picture and sound", "picture" or "sound". overlap_seconds: what they have in common; share: of the
    hashes in there that agree.
    """

    first: int
    second: int
    how: str
    offset_seconds: float
    overlap_seconds: float
    share: float
    is_duplicate: bool


@dataclass(frozen=True)
class _Match:
    offset: float
    overlap: float
    share: float
    is_sharp: bool


def find_pairs(contents: Sequence[Content]) -> list[Pair]:
    """Return every pair of clips that have at least three seconds in common, in the set's order."""
    same_file = set(_same_files(contents))
    pairs = {(a, b): Pair(a, b, "file", 0.0, contents[a].seconds, 1.0, True) for a, b in same_file}
    seen = _candidates([_picture_keys(content.picture) for content in contents])
    heard = _candidates([_sound_keys(content.sound) for content in contents])
    for a, b in sorted({*seen, *heard}):
        if (a, b) not in same_file:
            pair = _compare(contents[a], contents[b], a, b)
            if pair is not None:
                pairs[a, b] = pair
    return [pairs[ab] for ab in sorted(pairs)]


def group_duplicates(count: int, pairs: Sequence[Pair]) -> dict[int, tuple[int, Pair]]:
    """Return for every clip that repeats an earlier one: the first clip of its group, and the pair that says so."""
    parent = list(range(count))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    told: dict[int, Pair] = {}
    for pair in sorted(pairs, key=lambda p: (p.how != "file", -p.share)):
        if pair.is_duplicate:
            told.setdefault(pair.second, pair)
            told.setdefault(pair.first, pair)
            a, b = sorted((root(pair.first), root(pair.second)))
            parent[b] = a
    return {index: (root(index), told[index]) for index in range(count) if root(index) != index}


def find_leaks(contents: Sequence[Content], pairs: Sequence[Pair]) -> dict[int, dict[str, list[int]]]:
    """Return for every clip that leaks the clips in other splits with the same "source", and the same "content"."""
    leaks: dict[int, dict[str, list[int]]] = defaultdict(lambda: {"source": [], "content": []})
    by_source = defaultdict(list)
    for index, content in enumerate(contents):
        if content.split:
            by_source[content.source].append(index)
    for indices in by_source.values():
        if len({contents[i].split for i in indices}) > 1:
            for i in indices:
                leaks[i]["source"] += [j for j in indices if contents[j].split != contents[i].split]
    for pair in pairs:
        splits = {contents[pair.first].split, contents[pair.second].split}
        if len(splits - {""}) > 1:
            leaks[pair.first]["content"].append(pair.second)
            leaks[pair.second]["content"].append(pair.first)
    return dict(leaks)


def _same_files(contents: Sequence[Content]) -> Iterator[tuple[int, int]]:
    """Yield every file and the next one that has the same bytes."""
    last: dict[str, int] = {}
    for index, content in enumerate(contents):
        if content.sha256 in last:
            yield last[content.sha256], index
        if content.sha256:
            last[content.sha256] = index


def _candidates(keys: Sequence[np.ndarray]) -> list[tuple[int, int]]:
    """Return pairs of clips that share some keys; of many clips with a key those next to each other in the set."""
    owners = np.repeat(np.arange(len(keys), dtype=np.uint32), [len(own) for own in keys])
    joined = np.concatenate([np.zeros(0, np.uint64), *keys])
    chosen = joined % np.uint64(max(-(-len(joined) // MAX_KEYS), 1)) == 0
    order = np.lexsort((owners[chosen], joined[chosen]))
    key, owner = joined[chosen][order], owners[chosen][order].astype(np.uint64)
    is_new = np.append(True, (key[1:] != key[:-1]) | (owner[1:] != owner[:-1])) if len(key) else np.zeros(0, bool)
    key, owner, count = key[is_new], owner[is_new], np.uint64(len(keys))
    found = [np.zeros(0, np.uint64)]
    for step in range(1, NEIGHBOURS + 1):
        is_same = key[step:] == key[:-step]
        found.append(owner[:-step][is_same] * count + owner[step:][is_same])
    pairs, counts = np.unique(np.concatenate(found), return_counts=True)
    return [(int(pair) // len(keys), int(pair) % len(keys)) for pair in pairs[counts >= MIN_SHARED]]


def _picture_keys(picture: Fingerprint) -> np.ndarray:
    """Return keys of 32 bits, two of the four quarters of each frame's hash: near hashes agree in some."""
    quarters = [(picture.hashes >> np.uint64(16 * number)) & np.uint64(0xFFFF) for number in range(4)]
    pairs = list(combinations(range(4), 2))
    keys = [
        (np.uint64(number) << np.uint64(32)) | (quarters[a] << np.uint64(16)) | quarters[b]
        for number, (a, b) in enumerate(pairs)
    ]
    return np.unique(np.concatenate(keys))


def _sound_keys(sound: Fingerprint) -> np.ndarray:
    """Return keys of three peaks: of landmarks that begin at the same peak, each with the next."""
    order = np.lexsort((sound.hashes, sound.times))
    times, hashes = sound.times[order], sound.hashes[order].astype(np.uint64)
    is_same = (times[1:] == times[:-1]) & (hashes[1:] != hashes[:-1])
    return np.unique((hashes[:-1][is_same] << np.uint64(32)) | hashes[1:][is_same])


def _compare(first: Content, second: Content, a: int, b: int) -> Pair | None:
    seen = _match(_near_frames(first.picture, second.picture), first, second, "picture")
    heard = _match(_same_landmarks(first.sound, second.sound), first, second, "sound")
    is_seen, is_heard = _holds(seen, "picture"), _holds(heard, "sound")
    agree = is_seen and is_heard and abs(seen.offset - heard.offset) < 0.5
    if not agree and not (is_heard or (is_seen and seen.is_sharp)):
        return None
    best = heard if is_heard else seen
    how = "picture and sound" if agree else "sound" if is_heard else "picture"
    is_duplicate = best.overlap > DUPLICATE_SHARE * min(first.seconds, second.seconds)
    return Pair(a, b, how, round(best.offset, 3), round(best.overlap, 3), round(best.share, 3), is_duplicate)


def _holds(match: _Match | None, kind: str) -> bool:
    return match is not None and match.share >= MIN_SHARE[kind]


def _near_frames(first: Fingerprint, second: Fingerprint) -> tuple[np.ndarray, np.ndarray]:
    """Return which frames of the first look like which of the second."""
    near = np.bitwise_count(first.hashes[:, None] ^ second.hashes[None]) <= HAMMING
    return np.nonzero(near)


def _same_landmarks(first: Fingerprint, second: Fingerprint) -> tuple[np.ndarray, np.ndarray]:
    """Return which landmarks of the first are which of the second."""
    order = np.argsort(second.hashes, kind="stable")
    ordered = second.hashes[order]
    low, high = np.searchsorted(ordered, first.hashes), np.searchsorted(ordered, first.hashes, side="right")
    counts = high - low
    own = np.repeat(np.arange(len(first.hashes)), counts)
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return own, order[np.repeat(low, counts) + within]


def _match(found: tuple[np.ndarray, np.ndarray], first: Content, second: Content, kind: str) -> _Match | None:
    """Return at which offset in time most hashes of two clips agree; None where they have too little in common."""
    one, two = getattr(first, kind), getattr(second, kind)
    own, other = found
    width = BIN_SECONDS[kind]
    bins = np.floor((two.times[other] - one.times[own]) / width).astype(int)
    distinct = np.unique(np.stack([bins, own], 1), axis=0) if len(bins) else np.zeros((0, 2), int)
    values, counts = np.unique(distinct[:, 0], return_counts=True)
    if not len(values):
        return None
    best = None
    shares = []
    for value in values[np.argsort(-counts, kind="stable")][:50]:
        near = (bins == value) | (bins == value + 1)
        offset = float(np.median(two.times[other[near]] - one.times[own[near]]))
        low, high = max(0.0, -offset), min(first.seconds, second.seconds - offset)
        inside = (one.times >= low) & (one.times < high)
        matched = len(np.unique(own[near]))
        share = min(matched / max(int(inside.sum()), 1), 1.0)
        shares.append(share)
        if high - low >= min(MIN_SECONDS, first.seconds, second.seconds) and (best is None or matched > best[0]):
            best = matched, offset, high - low, share
    if best is None or best[0] < MIN_AGREEING[kind]:
        return None
    matched, offset, overlap, share = best
    return _Match(offset, overlap, share, share >= SHARPNESS * float(np.median(shares)) or len(shares) < 8)
