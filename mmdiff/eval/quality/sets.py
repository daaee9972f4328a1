"""Distances between sets of clips, in the features of each extractor that is loaded."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from mmdiff.eval.metrics import classes, frechet, kernels
from mmdiff.eval.metrics.sets import two_sets
from mmdiff.eval.quality.collect import Reading
from mmdiff.eval.quality.columns import Column
from mmdiff.eval.quality.estimate import Estimate, of_sets
from mmdiff.eval.windows import evenly


@dataclass(frozen=True)
class Row:
    """One number of the table: which metric, made with which extractor, of which clips, and how."""

    metric: str
    extractor: str
    side: str  # picture, sound, agreement, text, pairs, cost
    better: str  # lower, higher, or nothing
    of: str
    kind: str
    estimate: Estimate = field(repr=False)
    how: str


@dataclass(frozen=True)
class Use:
    """How an extractor's features are compared, and the metrics' names.

    `pool` is `mean` (one vector a clip), `all`, or `few` (of all frames, four spread over the clip).
    """

    side: str
    output: str
    pool: str
    frechet: str = "FD"
    kernel: str = "KID"
    scale: float = 1.0  # published factor of the Fréchet distance
    scored: str = ""  # output whose Inception Score is taken


UNITS = {"mean": "clip means", "all": "all features of a clip", "few": "four frames a clip"}
FEW = 4
BANDWIDTH_ROWS = 4096  # whose distances give KAD its bandwidth: memory grows with their square
USES = {
    "efficientnet-lite0": Use("picture", "embedding", "mean"),
    "i3d": Use("picture", "logits", "all", "FVD", "KVD"),
    "i3d-direct": Use("picture", "logits", "all", "FVD", "KVD"),
    "inception": Use("picture", "embedding", "few", "FID", "KID", scored="logits_unbiased"),
    "clip": Use("picture", "embedding", "mean"),
    "musicnn-mtt": Use("sound", "embedding", "all", kernel="KAD"),
    "musicnn-msd": Use("sound", "embedding", "all", kernel="KAD"),
    "vggish": Use("sound", "embedding", "all", "FAD", "KAD"),
    "vggish-hop0.5s": Use("sound", "embedding", "all", "FAD", "KAD"),
    "pann": Use("sound", "embedding", "all", "FAD", "KAD", scored="logits"),
    "clap": Use("sound", "embedding", "all", "FAD", "KAD"),
    "audioclip": Use("sound", "audio_raw", "all", "FAD", "KAD", scale=1e4),
}


def features(readings: Sequence[Reading], extractor: str, output: str, pool: str = "all") -> list[np.ndarray]:
    """Return the arrays `k d` of the clips that an extractor could measure."""
    found = [reading.arrays[extractor][output] for reading in readings if extractor in reading.arrays]
    if pool == "mean":
        return [array.mean(0, keepdims=True) for array in found]
    return [np.stack(evenly(array, FEW)) for array in found] if pool == "few" else found


def distance_rows(
    key: str, extractor: str, reference: Column, judged: Sequence[Column],
    floor: tuple[Sequence[Reading], Sequence[Reading]], seed: int,
) -> Iterator[Row]:  # fmt: skip
    """Yield the Fréchet distance, its extrapolation, the kernel distance and the Inception Score of every column."""
    use = USES[key]
    take = partial(features, extractor=extractor, output=use.output, pool=use.pool)
    real = take(reference.readings)
    pairs = [(column.name, column.kind, real, take(column.readings)) for column in judged]
    pairs.append(("real against real", "floor", take(floor[0]), take(floor[1])))
    pairs = [pair for pair in pairs if min(len(pair[2]), len(pair[3])) > 1]
    how = f"Fréchet distance of {UNITS[use.pool]}, float64, by singular values"
    how += f", x {use.scale:g}" if use.scale != 1 else ""
    limit = "2 FD(n) - mean FD(n/2), both sets halved: a line in 1/n (Chong and Forsyth 2020)"
    near = [(name, kind, frechet_estimate(x, y, use.scale, seed)) for name, kind, x, y in pairs]
    for name, kind, estimate in near:
        yield Row(use.frechet, extractor, use.side, "lower", name, kind, estimate, how)
    for name, kind, estimate in near:
        if estimate.mean_half is not None:
            yield Row(f"{use.frechet}∞", extractor, use.side, "lower", name, kind, estimate.to_infinity(), limit)
    yield from _kernel_rows(use, extractor, real, pairs, seed)
    for column in judged if use.scored else ():
        yield from _score_rows(extractor, use, column, seed)


def _kernel_rows(
    use: Use, extractor: str, real: Sequence[np.ndarray], pairs: Sequence[tuple], seed: int
) -> Iterator[Row]:
    kernel, scale, how = kernels.cubic_kernel, 1.0, "unbiased squared MMD, kernel (x.y/d + 1)^3, all features at once"
    if use.kernel == "KAD" and pairs:
        bandwidth = kernels.median_distance(np.stack(evenly(np.concatenate(real), BANDWIDTH_ROWS)))
        kernel, scale = kernels.radial_kernel(bandwidth), kernels.KAD_SCALE
        how = f"100 x unbiased squared MMD, Gaussian kernel, bandwidth {bandwidth:.6g} from the real clips"
    for name, kind, x, y in pairs:
        yield Row(use.kernel, extractor, use.side, "lower", name, kind, kernel_estimate(x, y, kernel, scale, seed), how)


def frechet_estimate(
    reference: Sequence[np.ndarray], generated: Sequence[np.ndarray], scale: float, seed: int
) -> Estimate:
    """Estimate the Fréchet distance between two sets of clips' arrays `k d`."""
    x, y = np.concatenate(reference), np.concatenate(generated)
    again = frechet.FrechetResampler(x, y)

    def resample(rows_x: Sequence[np.ndarray], rows_y: Sequence[np.ndarray]) -> np.ndarray:
        return np.array([scale * again.distance(*rows) for rows in zip(rows_x, rows_y)])

    return of_sets(scale * frechet.frechet_distance(x, y), resample, (reference, generated), seed)


def kernel_estimate(
    reference: Sequence[np.ndarray], generated: Sequence[np.ndarray], kernel: kernels.Kernel, scale: float, seed: int
) -> Estimate:
    """Estimate the unbiased squared MMD between two sets of clips' arrays `k d`, times a factor."""
    x, y = two_sets(np.concatenate(reference), np.concatenate(generated))

    def measure(*rows: Sequence[np.ndarray]) -> np.ndarray:
        return scale * kernels.mmd(kernel, x, y, *rows)

    return of_sets(float(measure()[0]), measure, (reference, generated), seed)


def _score_rows(extractor: str, use: Use, column: Column, seed: int) -> Iterator[Row]:
    logits = features(column.readings, extractor, use.scored, use.pool)
    if len(logits) > 1:
        rows = np.concatenate(logits)

        def measure(choices: Sequence[np.ndarray]) -> np.ndarray:
            return np.array([classes.inception_score(rows[i], splits=1, seed=None).mean for i in choices])

        score = of_sets(float(measure([slice(None)])[0]), measure, (logits,), seed)
        how = "exp of the mean KL divergence to the mean, one split over all clips"
        yield Row("IS", extractor, use.side, "higher", column.name, column.kind, score, how)
