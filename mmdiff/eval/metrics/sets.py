"""What the distances between two sets of features share: checked inputs, and the extrapolation to infinite N."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

FADTK_POINTS = 25  # fadtk and kadtk, score_inf: how many sizes, and the smallest
FADTK_MIN_SIZE = 500


@dataclass(frozen=True)
class Extrapolation:
    """Distances at growing set sizes, and the line through them over 1 / size: its value at 0 is the score."""

    score: float
    slope: float
    r2: float  # share of the points' variance that the line explains; NaN where all points are equal
    points: tuple[tuple[int, float], ...]


def feature_matrix(features: np.ndarray, name: str, min_rows: int = 2) -> np.ndarray:
    """Return features as float64 `n d`.

    Errors: `ValueError` where they are no matrix, have fewer rows than needed or hold NaN or infinity.
    """
    matrix = np.asarray(features, np.float64)
    if matrix.ndim != 2 or matrix.shape[1] == 0:
        raise ValueError(f"{name}: features of shape {matrix.shape}; give one row for each item, n d")
    if len(matrix) < min_rows:
        raise ValueError(f"{name}: {len(matrix)} row(s) of features; at least {min_rows} are needed, add clips")
    bad = np.flatnonzero(~np.isfinite(matrix).all(1))
    if len(bad):
        raise ValueError(f"{name}: {len(bad)} row(s) hold NaN or infinity (first: row {bad[0]}); leave those clips out")
    return matrix


def two_sets(x: np.ndarray, y: np.ndarray, names: tuple[str, str] = ("x", "y"), min_rows: int = 2) -> list[np.ndarray]:
    """Return two sets of features as float64 `n d` and `m d`.

    Errors: `ValueError` as `feature_matrix`, and where the dimensions differ.
    """
    checked = [feature_matrix(features, name, min_rows) for features, name in zip((x, y), names, strict=True)]
    if checked[0].shape[1] != checked[1].shape[1]:
        raise ValueError(
            f"{names[0]} has {checked[0].shape[1]} dimensions and {names[1]} {checked[1].shape[1]}; "
            "compare features of one extractor"
        )
    return checked


def extrapolate(
    num_rows: int,
    score: Callable[[list[np.ndarray]], Sequence[float] | np.ndarray],
    *,
    num_points: int = FADTK_POINTS,
    min_size: int = FADTK_MIN_SIZE,
    seed: int = 0,
    replace: bool = True,
) -> Extrapolation:
    """Score random rows of growing number and fit a line over 1 / size, as fadtk's `score_inf` (Gui et al., 2024).

    fadtk draws with replacement: its line then ends at the distance of the very rows at hand, and the bias of their
    number stays in it. Without replacement (Chong & Forsyth, CVPR 2020) it ends where their population would be.

    `score` takes the row indices of all draws at once and returns a distance for each. Draws come from the legacy
    `RandomState(seed)`, whose stream numpy keeps frozen.
    Errors: `ValueError` where fewer than two sizes lie between `min_size` and the number of rows.
    """
    if not 2 <= min_size < num_rows or num_points < 2:
        raise ValueError(
            f"extrapolation from {num_points} sizes between {min_size} and {num_rows} rows: give at least 2 sizes, "
            f"and a smallest size of 2 to {num_rows - 1}"
        )
    rng = np.random.RandomState(seed)
    sizes = [int(size) for size in np.linspace(min_size, num_rows, num_points)]
    scores = np.asarray(score([rng.choice(num_rows, size=size, replace=replace) for size in sizes]), np.float64)
    inverse = 1 / np.array(sizes)
    slope, at_infinity = np.polyfit(inverse, scores, 1)
    spread = ((scores - scores.mean()) ** 2).sum()
    left = ((scores - (slope * inverse + at_infinity)) ** 2).sum()
    r2 = float(1 - left / spread) if spread else float("nan")
    return Extrapolation(float(at_infinity), float(slope), r2, tuple(zip(sizes, scores.tolist(), strict=True)))
