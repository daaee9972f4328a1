"""Distances between the generations of a system and the concept, as sets: FID and FAD, or FD; KID and KAD."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmdiff.eval.concept.measure import Piece, System
from mmdiff.eval.concept.rows import make_row
from mmdiff.eval.metrics import frechet, kernels
from mmdiff.eval.metrics.sets import two_sets
from mmdiff.eval.quality.estimate import of_sets
from mmdiff.eval.quality.sets import BANDWIDTH_ROWS, UNITS, USES, Use, features
from mmdiff.eval.statistics import Interval
from mmdiff.eval.windows import evenly

NUM_SPLITS = 100
LEAST_TO_SPLIT = 4  # files, so that each half has two
CALLED = {"inception": "", "musicnn-mtt": " (musicnn)"}  # behind the name of the distance; else the extractor's key


@dataclass(frozen=True)
class Distance:
    """A distance of two sets `n d` and `m d`, and what it is for choices of the second set's rows."""

    metric: str
    between: Callable[[np.ndarray, np.ndarray], float]
    resample: Callable[[np.ndarray, np.ndarray, Sequence[np.ndarray]], np.ndarray]


def distance_rows(
    key: str, extractor: str, reference: System, made: Sequence[System], seed: int
) -> Iterator[dict[str, Any]]:  # fmt: skip
    """Yield the Fréchet and the kernel distance between the reference and as many generations of every system.

    The reference stays whole; halves of the generations give the interval. The reference's own row: halves of it
    against each other. Nothing where a side has fewer than two vectors.
    """
    use = USES[key]

    def vectors(pieces: Sequence[Piece]) -> list[np.ndarray]:
        return features([piece.reading for piece in pieces], extractor, use.output, use.pool)

    known = vectors(reference.pieces)
    found = [(system, system.measured(extractor)) for system in made]
    count = min((len(pieces) for _, pieces in found if pieces), default=0)
    sets = [(system, vectors(evenly(pieces, count))) for system, pieces in found]
    sets = [(system, clips) for system, clips in sets if sum(map(len, clips)) > 1]
    if sum(map(len, known)) < 2 or not sets:
        return
    for distance in _distances(use, np.concatenate(known)):
        metric = f"{distance.metric}{CALLED.get(key, f' ({key})')}"
        how = f"{UNITS[use.pool]}, {count} generations against all {len(known)} of the {reference.kind}"
        for system, clips in sets:
            numbers = _estimate(distance, known, clips, seed)
            yield make_row(system.name, system.kind, metric, extractor, numbers, "lower", how, count)
        if len(known) >= LEAST_TO_SPLIT:
            numbers, half = _of_halves(distance, known, seed), len(known) // 2
            how = f"{half} of the {reference.kind} against the other {len(known) - half}, mean of {NUM_SPLITS} ways"
            yield make_row(reference.name, reference.kind, metric, extractor, numbers, "lower", how, half)


def _distances(use: Use, known: np.ndarray) -> list[Distance]:
    kernel, scale, bandwidth = kernels.cubic_kernel, 1.0, None
    if use.kernel == "KAD":
        bandwidth = kernels.median_distance(np.stack(evenly(known, BANDWIDTH_ROWS)))
    if bandwidth:
        kernel, scale = kernels.radial_kernel(bandwidth), kernels.KAD_SCALE

    def frechet_of(x: np.ndarray, y: np.ndarray, choices: Sequence[np.ndarray]) -> np.ndarray:
        again = frechet.FrechetResampler(x, y)
        return np.array([use.scale * again.distance(None, rows) for rows in choices])

    def mmd_of(x: np.ndarray, y: np.ndarray, choices: Sequence[np.ndarray | None]) -> np.ndarray:
        return scale * kernels.mmd(kernel, *two_sets(x, y), [None] * len(choices), choices)

    found = [Distance(use.frechet, lambda x, y: use.scale * frechet.frechet_distance(x, y), frechet_of)]
    if bandwidth != 0:  # as it is of a set whose pieces are all the same
        found.append(Distance(use.kernel, lambda x, y: float(mmd_of(x, y, [None])[0]), mmd_of))
    return found


def _estimate(distance: Distance, known: Sequence[np.ndarray], made: Sequence[np.ndarray], seed: int) -> Interval:
    x, y = np.concatenate(known), np.concatenate(made)
    return of_sets(distance.between(x, y), lambda rows: distance.resample(x, y, rows), (made,), seed).interval()


def _of_halves(distance: Distance, known: Sequence[np.ndarray], seed: int) -> Interval:
    """Return the mean distance of two halves of a set, which has no interval: the halves are of the same few pieces."""
    rng, half = np.random.default_rng(seed), len(known) // 2
    values = []
    for _ in range(NUM_SPLITS):
        order = rng.permutation(len(known))
        sides = (np.concatenate([known[i] for i in side]) for side in (order[:half], order[half:]))
        values.append(distance.between(*sides))
    return Interval(float(np.mean(values)), None, None)
