"""Which clips are compared with which: equal numbers, halves of the real clips, and the controls."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from mmdiff.eval import statistics
from mmdiff.eval.quality.collect import Item, Reading
from mmdiff.eval.windows import Window, evenly

SHIFTS_MS = (-200, 200)


@dataclass(frozen=True)
class Column:
    """Clips that are judged together. `kind` is real, floor, generated, shuffled, shifted or training.

    `given` names the sides (picture, sound) that were given to the model: they are not its work, and are not judged.
    """

    name: str
    kind: str
    readings: tuple[Reading, ...] = field(repr=False)
    given: frozenset[str] = frozenset()


def halves_by_file(readings: Sequence[Reading], seed: int) -> tuple[list[Reading], list[Reading]]:
    """Divide readings into two sets that share no file, of nearly equal size; the parts of a single file in time."""
    files: dict[str, list[Reading]] = {}
    for reading in readings:
        files.setdefault(reading.item.picture.shown, []).append(reading)
    groups = list(files.values())
    if len(groups) == 1:
        middle = len(groups[0]) // 2
        return groups[0][:middle], groups[0][middle:]
    sides: tuple[list[Reading], list[Reading]] = ([], [])
    for place in np.random.default_rng(seed).permutation(len(groups)):
        min(sides, key=len).extend(groups[place])
    return sides


def floor_sets(readings: Sequence[Reading], most: int, seed: int) -> tuple[list[Reading], list[Reading]]:
    """Return two sets of real clips, equally many and from different files: how far real clips are from real clips."""
    sides = halves_by_file(readings, seed)
    count = min(most, *(len(side) for side in sides))
    return tuple(evenly(side, count) for side in sides)


def shuffled_items(windows: Sequence[Window], seed: int) -> list[Item]:
    """Give every picture another clip's sound."""
    order = statistics.derangement(len(windows), np.random.default_rng(seed))
    return [Item(window, windows[other]) for window, other in zip(windows, order)]


def shifted_items(windows: Sequence[Window], shift_ms: int) -> list[Item]:
    """Move every clip's sound by a time."""
    return [Item(window, None, shift_ms) for window in windows]
