"""From clips in files to arrays: every clip is read once for all extractors that have not seen it, a few at a time."""

import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

from mmdiff.eval.features.base import Extractor
from mmdiff.eval.quality.store import FeatureStore, content_of, describe_spec
from mmdiff.eval.windows import Window, shift_sound
from mmdiff.media import Clip, ClipSpec, read_clip

BATCH_SIZE = 8


@dataclass(frozen=True)
class Item:
    """A clip to measure: a window's picture, with its own sound or another window's, which may be moved by a time."""

    picture: Window
    sound: Window | None = None
    shift_ms: int = 0


@dataclass
class Reading:
    """What extractors made of an item, by their names; why they could not, where they could not."""

    item: Item
    arrays: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    fault: str = ""  # why the file itself cannot be read


@dataclass
class _Work:
    """A reading and what it lacks: extractors, and where their arrays go."""

    reading: Reading
    lacking: list[tuple[Extractor, Path]]


def collect(
    items: Sequence[Item], extractors: Sequence[Extractor], store: FeatureStore, spec: ClipSpec, label: str
) -> list[Reading]:
    """Return a reading of every item, in order, from the store where it has one, else computed and stored.

    No more than two batches of clips are in memory: one that is looked at, and one that a thread reads meanwhile.
    """
    work = [_look_up(item, extractors, store, spec) for item in items]
    todo = [one for one in work if one.lacking]
    batches = [todo[i : i + BATCH_SIZE] for i in range(0, len(todo), BATCH_SIZE)]
    bar = tqdm(total=len(items), initial=len(items) - len(todo), desc=label, unit="clip", file=sys.stderr, disable=None)
    with bar:
        for batch, clips in _read_ahead(batches, spec):
            for extractor in extractors:
                _extract(extractor, batch, clips, store)
            bar.update(len(batch))
    return [one.reading for one in work]


def _look_up(item: Item, extractors: Sequence[Extractor], store: FeatureStore, spec: ClipSpec) -> _Work:
    reading, lacking = Reading(item), []
    try:
        facts = {
            "picture": [content_of(item.picture.path), str(item.picture.start)],
            "sound": [content_of(item.sound.path), str(item.sound.start)] if item.sound else None,
            "shift_ms": item.shift_ms,
            "spec": describe_spec(spec),
        }
    except OSError as error:
        reading.fault = str(error)
        return _Work(reading, [])
    for extractor in extractors:
        path = store.path(extractor, facts)
        arrays = store.read(path, extractor)
        if arrays is None:
            lacking.append((extractor, path))
        else:
            reading.arrays[extractor.name] = arrays
    return _Work(reading, lacking)


def _read_ahead(batches: Sequence[list[_Work]], spec: ClipSpec) -> Iterator[tuple[list[_Work], list[Clip | None]]]:
    """Yield batches with their clips; the next one is read by a thread meanwhile (decoding frees the interpreter)."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        ahead = pool.submit(_read_batch, batches[0], spec) if batches else None
        for number, batch in enumerate(batches):
            clips = ahead.result()
            if number + 1 < len(batches):
                ahead = pool.submit(_read_batch, batches[number + 1], spec)
            yield batch, clips


def _read_batch(batch: list[_Work], spec: ClipSpec) -> list[Clip | None]:
    return [_read(work.reading, spec) for work in batch]


def _read(reading: Reading, spec: ClipSpec) -> Clip | None:
    item = reading.item
    try:
        clip = read_clip(item.picture.path, spec, start=item.picture.start)
        if item.sound is not None:
            other = read_clip(item.sound.path, spec, start=item.sound.start)
            clip = Clip(clip.frames, other.waveform, clip.fps, clip.sample_rate)
        return shift_sound(clip, item.shift_ms) if item.shift_ms else clip
    except (ValueError, OSError) as error:
        reading.fault = str(error)
        return None


def _extract(extractor: Extractor, batch: list[_Work], clips: list[Clip | None], store: FeatureStore) -> None:
    """Run an extractor on what lacks it; where a batch is refused, one clip after another, so that one is left out."""
    wanted = [
        (work.reading, clip, path)
        for work, clip in zip(batch, clips)
        for lacked, path in work.lacking
        if lacked is extractor and clip is not None
    ]
    if not wanted:
        return
    try:
        found = extractor.extract([clip for _, clip, _ in wanted])
    except ValueError as error:
        if len(wanted) == 1:
            wanted[0][0].reasons[extractor.name] = str(error)
            return
        for work, clip in zip(batch, clips):
            _extract(extractor, [work], [clip], store)
        return
    for (reading, _, path), arrays in zip(wanted, found, strict=True):
        reading.arrays[extractor.name] = arrays
        store.write(path, arrays)
