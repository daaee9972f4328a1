"""The Frechet distance between two sets of features (FID, FVD, FAD), in float64 and without a matrix square root."""

from functools import cached_property

import numpy as np

from mmdiff.eval.metrics.sets import FADTK_MIN_SIZE, FADTK_POINTS, Extrapolation, extrapolate, two_sets


def frechet_distance(x: np.ndarray, y: np.ndarray, *, ddof: int = 1) -> float:
    """Return |mu_x - mu_y|^2 + Tr(S_x + S_y - 2 (S_x S_y)^1/2) of features `n d` and `m d` (Dowson & Landau, 1982).

    With A and B the centred features over sqrt(n - ddof), Tr (S_x S_y)^1/2 is the sum of the singular values of A B^T;
    where there are more rows than dimensions, their R factors stand for them. Nothing is clamped: identical sets give
    0 to rounding, of either sign. `ddof=0` is the biased covariance of StyleGAN-V and cd-fvd.
    Errors: `ValueError` for fewer than 2 rows, different dimensions, NaN or infinity.
    """
    x, y = two_sets(x, y)
    (a, mean_a), (b, mean_b) = _centred(x, ddof), _centred(y, ddof)
    trace = (a**2).sum() + (b**2).sum()
    overlap = np.linalg.svd(_reduced(a) @ _reduced(b).T, compute_uv=False).sum()
    return float(((mean_a - mean_b) ** 2).sum() + trace - 2 * overlap)


def frechet_infinity(
    reference: np.ndarray,
    generated: np.ndarray,
    *,
    num_points: int = FADTK_POINTS,
    min_size: int = FADTK_MIN_SIZE,
    seed: int = 0,
    replace: bool = True,
) -> Extrapolation:
    """Extrapolate the distance of growing random parts of the generated features to infinitely many (FAD_inf).

    As fadtk's `score_inf` (Gui et al., ICASSP 2024): the reference stays whole. See `sets.extrapolate` for
    what `replace` decides, and for the errors.
    """
    distances = FrechetResampler(reference, generated)
    return extrapolate(
        len(distances.y),
        lambda draws: [distances.distance(None, rows) for rows in draws],
        num_points=num_points,
        min_size=min_size,
        seed=seed,
        replace=replace,
    )


class FrechetResampler:
    """The Frechet distance between many choices of rows of the same two sets, for resampling and extrapolation.

    The same quantity as `frechet_distance`, by eigenvalues of a symmetric product instead of singular values, in about
    half the time. Its rounding is that of the square root of a small eigenvalue: within 1e-7 (Tr S_x + Tr S_y) of the
    exact one. Where few rows meet many dimensions (at most 2 d rows) all products of rows are computed once and kept,
    n m float64; otherwise d x d covariances are formed for each choice.
    """

    def __init__(self, x: np.ndarray, y: np.ndarray, *, ddof: int = 1) -> None:
        x, y = two_sets(x, y)
        middle = x.mean(0)  # one shift for both: distances stay, and a common offset costs no digits
        self.x, self.y, self.ddof = x - middle, y - middle, ddof
        self.products = self.x @ self.y.T if max(len(x), len(y)) <= 2 * x.shape[1] else None

    def distance(self, rows_x: np.ndarray | None = None, rows_y: np.ndarray | None = None) -> float:
        """Return the distance between rows of `x` and rows of `y`, as indices that may repeat (None: all rows)."""
        sides = []
        for name, features, rows in (("x", self.x, rows_x), ("y", self.y, rows_y)):
            chosen = features if rows is None else features[rows]
            if len(chosen) < 2:
                raise ValueError(f"{name}: {len(chosen)} row(s) chosen; at least 2 are needed")
            sides.append(_centred(chosen, self.ddof))
        (a, mean_a), (b, mean_b) = sides
        trace = (a**2).sum() + (b**2).sum()
        if self.products is None:
            overlap = self._overlap_of_covariances(None if rows_x is None else a, b)
        else:
            overlap = self._overlap_of_products(rows_x, rows_y)
        return float(((mean_a - mean_b) ** 2).sum() + trace - 2 * overlap)

    def _overlap_of_products(self, rows_x: np.ndarray | None, rows_y: np.ndarray | None) -> float:
        """Return the sum of the singular values of A B^T, whose entries are the kept products with means removed."""
        products = self.products if rows_x is None else self.products[rows_x]
        products = products if rows_y is None else products[:, rows_y]
        inner = products - products.mean(0) - products.mean(1, keepdims=True) + products.mean()
        inner /= np.sqrt((inner.shape[0] - self.ddof) * (inner.shape[1] - self.ddof))
        inner = inner if inner.shape[0] <= inner.shape[1] else inner.T
        return _sum_of_roots(inner @ inner.T)

    def _overlap_of_covariances(self, a: np.ndarray | None, b: np.ndarray) -> float:
        """Return Tr (S_x^1/2 S_y S_x^1/2)^1/2, where `a` is None of the whole of x."""
        root = self._root_of_all if a is None else _root(a.T @ a)
        return _sum_of_roots(root.T @ (b.T @ b) @ root)

    @cached_property
    def _root_of_all(self) -> np.ndarray:
        a, _ = _centred(self.x, self.ddof)
        return _root(a.T @ a)


def _centred(features: np.ndarray, ddof: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the centred features over sqrt(n - ddof), whose own product is the covariance; and the mean."""
    mean = features.mean(0)
    return (features - mean) / np.sqrt(len(features) - ddof), mean


def _reduced(a: np.ndarray) -> np.ndarray:
    """Return the R factor where it has fewer rows than the features themselves: it has the same covariance."""
    return np.linalg.qr(a, mode="r") if a.shape[0] > a.shape[1] else a


def _root(covariance: np.ndarray) -> np.ndarray:
    """Return a matrix `d d` whose product with its own transpose is a covariance of any rank."""
    values, vectors = np.linalg.eigh(covariance)
    return vectors * np.sqrt(np.maximum(values, 0))


def _sum_of_roots(matrix: np.ndarray) -> float:
    """Return the sum of the roots of a symmetric matrix's eigenvalues; those below 0 by rounding count as 0."""
    return float(np.sqrt(np.maximum(np.linalg.eigvalsh(matrix), 0)).sum())
