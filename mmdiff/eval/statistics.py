"""Numbers with intervals: the bootstrap over clips, and the offset that a whole set of clips has."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist

import numpy as np

from mmdiff.eval.sync import Agreement

NUM_RESAMPLES = 2000
CONFIDENCE = 0.95
PEAK_RANGE_SECONDS = 0.5
PEAK_STEP_SECONDS = 0.002


@dataclass(frozen=True)
class Interval:
    """A value and the ends of its confidence interval; None where there is nothing to measure."""

    value: float | None
    low: float | None
    high: float | None

    def as_dict(self) -> dict[str, float | None]:
        """Return value, low and high by name."""
        return asdict(self)


@dataclass(frozen=True)
class Summary:
    """What a row of the table says: F1, and median and 90th percentile of |offset| in ms."""

    f1: Interval
    median_offset_ms: Interval
    p90_offset_ms: Interval


def resample_counts(num_clips: int, num_resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Return how often each clip is drawn in each resample, `resamples clips`; each row sums to the number of clips."""
    return rng.multinomial(num_clips, np.full(num_clips, 1 / num_clips), size=num_resamples)


def derangement(num_items: int, rng: np.random.Generator) -> np.ndarray:
    """Return a random order in which no item keeps its place.

    Errors: `ValueError` for fewer than two items.
    """
    if num_items < 2:
        raise ValueError(f"{num_items} clip(s) cannot be shuffled; give at least 2")
    while True:
        order = rng.permutation(num_items)
        if (order != np.arange(num_items)).all():
            return order


def summarize(
    agreements: Sequence[Agreement],
    drawn_from: Sequence[tuple[int, ...]],
    num_clips: int,
    *,
    seed: int,
    num_resamples: int = NUM_RESAMPLES,
) -> Summary:
    """Pool agreements and bound each number by a percentile bootstrap that draws clips with replacement.

    `drawn_from` names the clips of each agreement: one, or for a shuffled pair the clip of its sound and that of its
    picture; a pair is then drawn as often as both together. Clips without any event add nothing.
    """
    if not agreements:
        return Summary(*[Interval(None, None, None)] * 3)
    counts = resample_counts(num_clips, num_resamples, np.random.default_rng(seed))
    weights = np.ones((num_resamples + 1, len(agreements)))  # row 0: the clips as they are
    weights[1:] = counts[:, np.array(drawn_from)].prod(-1)
    matched = weights @ np.array([a.num_matched for a in agreements], np.float64)
    events = weights @ np.array([a.num_audio + a.num_video for a in agreements], np.float64)
    f1 = np.divide(2 * matched, events, out=np.full(len(weights), np.nan), where=events > 0)
    sizes = [len(a.offsets) for a in agreements]
    offsets = 1000 * np.abs(np.concatenate([a.offsets for a in agreements]))
    of_offset = np.repeat(weights, sizes, axis=1)
    return Summary(
        interval(f1),
        interval(weighted_quantile(offsets, of_offset, 0.5)),
        interval(weighted_quantile(offsets, of_offset, 0.9)),
    )


def interval(values: np.ndarray) -> Interval:
    """Make an interval from a value (first) and its resamples (the others); NaN means that there was nothing."""
    if not len(values) or np.isnan(values[0]):
        return Interval(None, None, None)
    resamples = values[1:][~np.isnan(values[1:])]
    if not len(resamples):
        return Interval(float(values[0]), None, None)
    low, high = np.quantile(resamples, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(float(values[0]), float(low), float(high))


def share_interval(hits: int, total: int) -> Interval:
    """Return a share and its Wilson interval, which is honest at 0 and 1 too; nothing where the total is 0."""
    if not total:
        return Interval(None, None, None)
    share, z = hits / total, NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    middle = (share + z**2 / (2 * total)) / (1 + z**2 / total)
    half = z / (1 + z**2 / total) * (share * (1 - share) / total + z**2 / (4 * total**2)) ** 0.5
    return Interval(share, max(middle - half, 0.0), min(middle + half, 1.0))


def weighted_quantile(values: np.ndarray, weights: np.ndarray, share: float) -> np.ndarray:
    """Return for each row of weights `r n` the smallest of the values `n` that at least this share lies at or below."""
    if not len(values):
        return np.full(len(weights), np.nan)
    order = np.argsort(values)
    below = np.cumsum(weights[:, order], axis=1)
    total = below[:, -1]
    first = (below >= share * total[:, None] - 1e-9).argmax(1)
    return np.where(total > 0, values[order][first], np.nan)


def common_offset(
    differences: Sequence[np.ndarray], *, width_seconds: float, seed: int, num_resamples: int = 200
) -> Interval:
    """Return the one offset in ms at which the sounds of all clips follow their pictures, with its interval."""
    return interval(common_offsets(differences, width_seconds=width_seconds, seed=seed, num_resamples=num_resamples))


def common_offsets(
    differences: Sequence[np.ndarray], *, width_seconds: float, seed: int, num_resamples: int = 200
) -> np.ndarray:
    """Return the one offset in ms of all clips (first), and what it is when clips are drawn again; NaN without events.

    `differences` holds for each clip every sound's time minus every picture's, in seconds. True pairs pile up at one
    place while chance pairs spread; the pile is found with a triangular kernel of half-width `width_seconds` within
    0.5 s of nought, and its centre of mass is returned. No matching is involved, so no tolerance bounds the answer.
    """
    reach = round(PEAK_RANGE_SECONDS / PEAK_STEP_SECONDS)
    edges = (np.arange(-reach, reach + 2) - 0.5) * PEAK_STEP_SECONDS
    if not sum(((d >= edges[0]) & (d < edges[-1])).sum() for d in differences):
        return np.full(1, np.nan)
    piles = np.stack([np.histogram(d, edges)[0] for d in differences]).astype(np.float64)
    counts = resample_counts(len(differences), num_resamples, np.random.default_rng(seed))
    weights = np.concatenate([np.ones((1, len(differences))), counts])
    return 1000 * np.array([_pile_centre(pile, width_seconds) for pile in weights @ piles])


def _pile_centre(pile: np.ndarray, width_seconds: float) -> float:
    if not pile.sum():
        return float("nan")
    half = min(max(round(width_seconds / PEAK_STEP_SECONDS), 1), len(pile) // 4)
    kernel = 1 - np.abs(np.arange(-half, half + 1)) / (half + 1)
    places = (np.arange(len(pile)) - len(pile) // 2) * PEAK_STEP_SECONDS
    centre = places[np.argmax(np.convolve(pile, kernel, mode="same"))]
    for _ in range(3):
        is_near = np.abs(places - centre) <= half * PEAK_STEP_SECONDS + 1e-9
        centre = float(np.average(places[is_near], weights=pile[is_near])) if pile[is_near].sum() else centre
    return float(centre)
