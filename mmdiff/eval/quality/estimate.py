"""Values with replicates: clips are drawn again, alike for every system, so that differences have intervals too.

A mean over clips is bounded by the bootstrap. A distance between sets is not: a clip drawn twice inflates it. There
half of the clips are drawn without replacement, and the spread of those distances about their mean is the interval:
with halves the variance of a mean over the draw equals its sampling variance (delete-half jackknife; Shao and Wu 1989).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from mmdiff.eval import statistics

NUM_HALVES = 100


@dataclass(frozen=True)
class Estimate:
    """A value, what it becomes when clips are drawn again `r`, and the clips on each side."""

    value: float
    replicates: np.ndarray
    num_clips: int
    num_reference: int | None = None
    mean_half: float | None = None  # of a distance between halves of the sets

    def to_infinity(self) -> "Estimate":
        """Extrapolate a distance that falls as 1/n to infinitely many clips, from the whole sets and their halves.

        Source: Chong and Forsyth, "Effectively Unbiased FID" (CVPR 2020), with two points of the line.
        """
        limit = 2 * self.value - self.mean_half
        return Estimate(limit, self.replicates - self.value + limit, self.num_clips, self.num_reference)

    def interval(self) -> statistics.Interval:
        """Return the value with the ends of its percentile interval; none where it is not a number."""
        return statistics.interval(np.concatenate([[self.value], self.replicates]))

    def less(self, other: "Estimate") -> statistics.Interval:
        """Return this value less another's, with the interval of the difference (clips are drawn alike in both)."""
        length = min(len(self.replicates), len(other.replicates))
        moved = self.replicates[:length] - other.replicates[:length]
        return statistics.interval(np.concatenate([[self.value - other.value], moved]))


def ratio(
    parts: Sequence[tuple[float, float]], drawn_from: Sequence[tuple[int, ...]], num_clips: int, seed: int
) -> Estimate:
    """Estimate the sum of numerators over the sum of denominators, one pair for each entry of `drawn_from`.

    `drawn_from` names the clips an entry is made of: one, or two for a sound with another clip's picture; the entry is
    then drawn as often as both together. A pair whose numerator is not a number is left out.
    """
    kept = [i for i, part in enumerate(parts) if np.isfinite(part[0])]
    if not kept:
        return Estimate(float("nan"), np.zeros(0), 0)
    numerator, denominator = np.array([parts[i] for i in kept], np.float64).T
    clips = np.array([drawn_from[i] for i in kept])
    counts = statistics.resample_counts(num_clips, statistics.NUM_RESAMPLES, np.random.default_rng(seed))
    weights = np.concatenate([np.ones((1, len(kept))), counts[:, clips].prod(-1)])
    below = weights @ denominator
    values = np.divide(weights @ numerator, below, out=np.full(len(weights), np.nan), where=below > 0)
    return Estimate(float(values[0]), values[1:], len(np.unique(clips[:, -1])))


def median(values: Sequence[np.ndarray], seed: int) -> Estimate:
    """Estimate the median of all values of all clips."""
    counts = statistics.resample_counts(len(values), statistics.NUM_RESAMPLES, np.random.default_rng(seed))
    weights = np.concatenate([np.ones((1, len(values))), counts])
    sizes = [len(value) for value in values]
    quantiles = statistics.weighted_quantile(np.concatenate(values), np.repeat(weights, sizes, axis=1), 0.5)
    return Estimate(float(quantiles[0]), quantiles[1:], len(values))


def of_sets(
    value: float, resample: Callable[..., np.ndarray], sets: Sequence[Sequence[np.ndarray]], seed: int
) -> Estimate:
    """Give a measure of whole sets the spread that it has between halves of their clips.

    Every set is a sequence of clips' arrays `k d`; the last set is the one that is judged, a first one its reference.
    `resample` takes for each set a list of choices of its rows, and returns the measure for each choice.
    """
    choices = [_half_rows(clips, np.random.default_rng([seed, place])) for place, clips in enumerate(sets)]
    num_reference = len(sets[0]) if len(sets) > 1 else None
    if not all(choices):
        return Estimate(value, np.zeros(0), len(sets[-1]), num_reference)
    drawn = resample(*choices)
    return Estimate(value, value + drawn - drawn.mean(), len(sets[-1]), num_reference, float(drawn.mean()))


def _half_rows(clips: Sequence[np.ndarray], rng: np.random.Generator) -> list[np.ndarray]:
    """Draw half of the clips without replacement, many times, as rows; nothing where a half has fewer than two."""
    if len(clips) < 4:
        return []
    ends = np.cumsum([len(array) for array in clips])
    rows = [np.arange(end - len(array), end) for array, end in zip(clips, ends)]
    halves = (rng.choice(len(clips), len(clips) // 2, replace=False) for _ in range(NUM_HALVES))
    return [np.concatenate([rows[i] for i in np.sort(half)]) for half in halves]
