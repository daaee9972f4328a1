"""What of a concept is kept by ear: tempo, loudness, key and scale, each as a share of the generations."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmdiff.eval.concept.measure import Piece, System
from mmdiff.eval.concept.rows import make_row
from mmdiff.eval.metrics import key, loudness, tempo
from mmdiff.eval.quality.measures import Loudness
from mmdiff.eval.quality.music import NO_KEY, Music
from mmdiff.eval.statistics import Interval, share_interval

CHANCE = "any key"
EVERY_KEY = [key.Key(tonic, scale) for tonic in range(12) for scale in key.PROFILES]


@dataclass(frozen=True)
class Rule:
    """A share of the table: by which extractor, what is read from its arrays, and the percentage of two lists."""

    metric: str
    extractor: str
    read: Callable[[dict[str, np.ndarray]], Any]
    percent: Callable[[Sequence[Any], Sequence[Any]], float]
    how: str


def _bpm(arrays: dict[str, np.ndarray]) -> float:
    return float(arrays["bpm"][0])


def _key(arrays: dict[str, np.ndarray]) -> key.Key | None:
    tonic, is_major = arrays["key"]
    return None if tonic == NO_KEY else key.Key(int(tonic), "major" if is_major else "minor")


def _lufs(arrays: dict[str, np.ndarray]) -> float:
    return float(arrays["lufs"][0])


RULES = (
    Rule(f"BPM within {tempo.TOLERANCE:g}", Music.name, _bpm, lambda a, b: tempo.within_tempo(a, b).percent,
         "share whose tempo is within the tolerance of the concept's mean tempo, the bound included"),
    Rule(f"BPM within {tempo.TOLERANCE:g}, octaves", Music.name, _bpm,
         lambda a, b: tempo.within_tempo(a, b).percent_octave_tolerant, "the same, half or double the tempo will do"),
    Rule(f"loudness within {loudness.TOLERANCE:g} LU", Loudness.name, _lufs,
         lambda a, b: loudness.within_loudness(a, b).percent,
         "share whose loudness (EBU R128, in mono) is within the tolerance of the concept's mean, the bound included"),
    Rule("key", Music.name, _key, lambda a, b: key.within_keys(a, b).percent_key,
         "share whose tonic is that of any clip of the concept"),
    Rule("scale", Music.name, _key, lambda a, b: key.within_keys(a, b).percent_scale,
         "share whose scale, major or minor, is that of any clip of the concept"),
    Rule("key and scale", Music.name, _key, lambda a, b: key.within_keys(a, b).percent_both,
         "share whose tonic and scale together are those of any clip of the concept"),
)  # fmt: skip


def share_rows(concept: System, made: Sequence[System]) -> Iterator[dict[str, Any]]:
    """Yield how many generations keep what the concept has, with Wilson intervals.

    The concept's own row: each clip against the others. For keys, what a key drawn by lot would reach. Nothing where no
    clip of the concept has a tempo, a loudness or a key.
    """
    for rule in RULES:
        known = _heard(concept, rule)
        for system in made:
            found = _heard(system, rule)
            if found and (share := _share(rule, known, found)) is not None:
                numbers = share_interval(round(share * len(found)), len(found))
                yield make_row(system.name, system.kind, rule.metric, rule.extractor, numbers, "higher", rule.how,
                               len(found))  # fmt: skip
        shares = [_share(rule, known[:i] + known[i + 1 :], [one]) for i, one in enumerate(known)]
        shares = [share for share in shares if share is not None]
        if shares:
            yield make_row(concept.name, concept.kind, rule.metric, rule.extractor,
                           share_interval(round(sum(shares)), len(shares)), "higher",
                           f"{rule.how}; each clip against the others", len(shares))  # fmt: skip
        if rule.read is _key and (share := _share(rule, known, EVERY_KEY)) is not None:
            yield make_row(CHANCE, "chance", rule.metric, rule.extractor, Interval(share, None, None), "higher",
                           "share of the 24 keys that would count", len(EVERY_KEY))  # fmt: skip


def _heard(system: System, rule: Rule) -> list[Any]:
    return [rule.read(piece.reading.arrays[rule.extractor]) for piece in system.measured(rule.extractor)]


def _share(rule: Rule, known: Sequence[Any], found: Sequence[Any]) -> float | None:
    """Return the share of what was found that is as in the concept; None where nothing is known of the concept."""
    try:
        return rule.percent(known, found) / 100
    except ValueError:
        return None


def hear(piece: Piece) -> dict[str, Any]:
    """Return a piece's tempo in BPM, loudness in LUFS, and key by name; None for what cannot be told."""
    arrays = piece.reading.arrays
    bpm, lufs, found = (rule.read(arrays[rule.extractor]) if rule.extractor in arrays else None for rule in
                        (RULES[0], RULES[2], RULES[3]))  # fmt: skip
    return {
        "bpm": bpm if bpm is not None and np.isfinite(bpm) else None,
        "lufs": lufs if lufs is not None and np.isfinite(lufs) else None,
        "key": f"{found.name} {found.scale}" if found else None,
    }


def describe_concept(concept: System) -> dict[str, Any]:
    """Return the concept's mean tempo and loudness, its slowest and fastest tempo, and its keys with their counts."""
    heard = [hear(piece) for piece in concept.pieces]
    known = {name: [one[name] for one in heard if one[name] is not None] for name in ("bpm", "lufs", "key")}
    means = {f"mean_{name}": float(np.mean(known[name])) if known[name] else None for name in ("bpm", "lufs")}
    ends = [min(known["bpm"]), max(known["bpm"])] if known["bpm"] else None
    return {**means, "bpm_range": ends, "keys": dict(Counter(known["key"]).most_common())}
