"""Kernel distances between two sets of features: KVD and KID (cubic kernel), KAD (Gaussian kernel). All unbiased."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial.distance import pdist

from mmdiff.eval.metrics.sets import (
    FADTK_MIN_SIZE,
    FADTK_POINTS,
    Extrapolation,
    extrapolate,
    feature_matrix,
    two_sets,
)

BLOCK_ENTRIES = 2**24  # kernel values held at once
KAD_SCALE = 100  # kadtk prints 100 MMD^2
KID_VARIANTS = ("torch-fidelity", "clean-fid")
KAD_KERNELS: dict[str, Callable[[np.ndarray], np.ndarray]] = {  # of squared distance over 2 bandwidth^2
    "gaussian": lambda scaled: np.exp(-scaled),
    "iq": lambda scaled: 1 / (1 + scaled),
    "imq": lambda scaled: 1 / np.sqrt(1 + scaled),
}
KAD_BANDWIDTHS = ("reference", "generated")

Kernel = Callable[[np.ndarray, np.ndarray], np.ndarray]
Rows = Sequence[np.ndarray | None]


@dataclass(frozen=True)
class SubsetDistance:
    """Mean and population standard deviation over random subsets."""

    mean: float
    std: float
    subsets: int
    subset_size: int


@dataclass(frozen=True)
class KernelDistance:
    """A kernel distance and the bandwidth that it depends on: numbers of different bandwidth do not compare."""

    score: float
    bandwidth: float


def cubic_kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return (x . y / d + 1)^3 of rows `n d` and `m d`, `n m` (Binkowski et al., 2018)."""
    return (x @ y.T / x.shape[1] + 1) ** 3


def radial_kernel(bandwidth: float, kernel: str = "gaussian") -> Kernel:
    """Return the kernel of |x - y|^2 / (2 bandwidth^2) named "gaussian", "iq" or "imq" (inverse (multi)quadric)."""
    if kernel not in KAD_KERNELS:
        raise ValueError(f"KAD: kernel {kernel!r}; give one of {', '.join(KAD_KERNELS)}")
    if not (np.isfinite(bandwidth) and bandwidth > 0):
        raise ValueError(f"KAD: bandwidth {bandwidth}; it must be a positive number: are all features the same?")

    def values(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        squared = (x**2).sum(1)[:, None] + (y**2).sum(1) - 2 * x @ y.T
        return KAD_KERNELS[kernel](np.maximum(squared, 0) / (2 * bandwidth**2))

    return values


def mmd(kernel: Kernel, x: np.ndarray, y: np.ndarray, rows_x: Rows = (None,), rows_y: Rows = (None,)) -> np.ndarray:
    """Return the unbiased squared MMD (Gretton et al., 2012, eq. 3) of several choices of rows, `choices`.

    Features are float64 `n d` and `m d`; a choice is an array of row indices, which may repeat, or None for all rows.
    Each kernel value is computed once for all choices, in blocks of rows. It can be negative, also between equal sets.
    """
    weights_x, weights_y = _weights(rows_x, len(x)), _weights(rows_y, len(y))
    if min(weights_x.sum(1).min(), weights_y.sum(1).min()) < 2:
        raise ValueError("MMD: a choice of fewer than 2 rows; the unbiased estimate needs at least 2 on each side")
    within_x = _sums(kernel, x, x, weights_x, weights_x) - weights_x @ _diagonal(kernel, x)
    within_y = _sums(kernel, y, y, weights_y, weights_y) - weights_y @ _diagonal(kernel, y)
    n, m = weights_x.sum(1), weights_y.sum(1)
    return within_x / (n * (n - 1)) + within_y / (m * (m - 1)) - 2 * _sums(kernel, x, y, weights_x, weights_y) / (n * m)


def _weights(choices: Rows, num_rows: int) -> np.ndarray:
    """Return how often each choice holds each row, `choices rows`."""
    return np.stack(
        [np.ones(num_rows) if rows is None else np.bincount(rows, minlength=num_rows) for rows in choices]
    ).astype(np.float64)


def _sums(kernel: Kernel, x: np.ndarray, y: np.ndarray, weights_x: np.ndarray, weights_y: np.ndarray) -> np.ndarray:
    """Return the sum of all kernel values of each choice, weighted on both sides."""
    total = np.zeros(len(weights_x))
    step = max(BLOCK_ENTRIES // len(y), 1)
    for start in range(0, len(x), step):
        block = slice(start, start + step)
        total += ((weights_x[:, block] @ kernel(x[block], y)) * weights_y).sum(1)
    return total


def _diagonal(kernel: Kernel, x: np.ndarray) -> np.ndarray:
    """Return k(x_i, x_i), `n`: by the same products as the full matrix, a few rows at a time."""
    return np.concatenate([np.diagonal(kernel(part, part)) for part in np.array_split(x, -(-len(x) // 64))])


def kvd(x: np.ndarray, y: np.ndarray) -> float:
    """Return the unbiased squared MMD with the cubic kernel of all features `n d` and `m d` (MM-Diffusion's KVD)."""
    return float(mmd(cubic_kernel, *two_sets(x, y))[0])


def kid(
    x: np.ndarray,
    y: np.ndarray,
    *,
    subsets: int = 100,
    subset_size: int = 1000,
    seed: int = 2020,
    variant: str = "torch-fidelity",
) -> SubsetDistance:
    """Return KVD's mean and standard deviation over random subsets, each drawn without replacement from both sets.

    "torch-fidelity" draws rows of x, then of y; "clean-fid" draws those of y first, and where there are fewer rows than
    `subset_size` it takes the smaller set's number. Errors: `ValueError` for fewer rows than `subset_size` otherwise.
    """
    if variant not in KID_VARIANTS or subsets < 1:
        raise ValueError(f"KID: {subsets} subsets by {variant!r}; give at least 1, by one of {', '.join(KID_VARIANTS)}")
    x, y = two_sets(x, y)
    smaller = min(len(x), len(y))
    if variant == "clean-fid":
        subset_size = min(subset_size, smaller)
    if not 2 <= subset_size <= smaller:
        raise ValueError(f"KID: subsets of {subset_size} from {len(x)} and {len(y)} rows; give 2 to {smaller}")
    rng = np.random.RandomState(seed)
    rows: dict[str, list[np.ndarray]] = {"x": [], "y": []}
    order = (("x", len(x)), ("y", len(y)))
    for _ in range(subsets):
        for name, num_rows in order if variant == "torch-fidelity" else order[::-1]:
            rows[name].append(rng.choice(num_rows, subset_size, replace=False))
    if max(len(x), len(y)) ** 2 <= subsets * subset_size**2:
        scores = mmd(cubic_kernel, x, y, rows["x"], rows["y"])
    else:  # few of all pairs are needed
        scores = np.array([mmd(cubic_kernel, x[i], y[j])[0] for i, j in zip(rows["x"], rows["y"], strict=True)])
    return SubsetDistance(float(scores.mean()), float(scores.std()), subsets, subset_size)


def median_distance(features: np.ndarray) -> float:
    """Return the lower median of the Euclidean distances between all rows of `n d`: KAD's bandwidth.

    Holds 8 bytes for each of the n (n - 1) / 2 pairs. Errors: `ValueError` for fewer than 2 rows.
    """
    distances = pdist(feature_matrix(features, "KAD bandwidth"))
    middle = (len(distances) - 1) // 2
    return float(np.partition(distances, middle)[middle])


def kad(
    reference: np.ndarray,
    generated: np.ndarray,
    *,
    bandwidth: float | None = None,
    bandwidth_of: str = "reference",
    kernel: str = "gaussian",
) -> KernelDistance:
    """Return 100 times the unbiased squared MMD with a radial kernel, and its bandwidth (Chung et al., 2025).

    The bandwidth is the one given (that of a published number, or of an earlier run), else the reference's median
    distance. `bandwidth_of="generated"` is what kadtk 1.0 does: it then changes with the system under test.
    Errors: `ValueError` where all features are the same, or for an unknown name.
    """
    reference, generated = two_sets(reference, generated, ("reference", "generated"))
    if bandwidth is None:
        bandwidth = median_distance(_of(bandwidth_of, reference, generated))
    reference, generated = _shifted(reference, generated)
    score = KAD_SCALE * mmd(radial_kernel(bandwidth, kernel), reference, generated)[0]
    return KernelDistance(float(score), float(bandwidth))


def kad_infinity(
    reference: np.ndarray,
    generated: np.ndarray,
    *,
    bandwidth: float | None = None,
    bandwidth_of: str = "reference",
    num_points: int = FADTK_POINTS,
    min_size: int = FADTK_MIN_SIZE,
    seed: int = 0,
) -> tuple[Extrapolation, float | None]:
    """Extrapolate KAD to infinitely many generated features, as kadtk's `score_inf`; with the bandwidth of all points.

    KAD is unbiased, so the line should be flat and r2 small. With `bandwidth_of="generated"` (kadtk 1.0) every
    point takes the median distance of its own draw, and the bandwidth returned is None.
    """
    reference, generated = two_sets(reference, generated, ("reference", "generated"))
    _of(bandwidth_of, reference, generated)
    if bandwidth is None and bandwidth_of == "reference":
        bandwidth = median_distance(reference)

    def scores(draws: list[np.ndarray]) -> Sequence[float] | np.ndarray:
        if bandwidth is None:
            return [kad(reference, generated[rows], bandwidth_of=bandwidth_of).score for rows in draws]
        sets = _shifted(reference, generated)
        return KAD_SCALE * mmd(radial_kernel(bandwidth), *sets, [None] * len(draws), draws)

    return extrapolate(len(generated), scores, num_points=num_points, min_size=min_size, seed=seed), bandwidth


def _of(side: str, reference: np.ndarray, generated: np.ndarray) -> np.ndarray:
    if side not in KAD_BANDWIDTHS:
        raise ValueError(f"KAD: bandwidth of {side!r}; give one of {', '.join(KAD_BANDWIDTHS)}")
    return reference if side == "reference" else generated


def _shifted(reference: np.ndarray, generated: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Take the reference's mean from both: distances stay, and their expansion into products keeps its digits."""
    middle = reference.mean(0)
    return reference - middle, generated - middle
