"""The Frechet distance: recorded cases, closed forms, and how resampling and extrapolation keep to it."""

import numpy as np
import pytest

from mmdiff.eval.metrics.frechet import FrechetResampler, frechet_distance, frechet_infinity
from tests.eval.metrics.distance_vectors import arrays, cases, entries, facts, feature_pair, number

FILE = "features/frechet_expected.json"
INFINITY = facts("features/inf_expected.json")


@pytest.mark.parametrize("case", cases(FILE))
def test_recorded_distance(case):
    x, y = feature_pair(case["name"])
    for ddof in (1, 0):
        assert frechet_distance(x, y, ddof=ddof) == pytest.approx(case[f"exact_ddof{ddof}_f64"], rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("case", cases(FILE))
def test_published_implementations_print_nearly_the_same(case):
    x, y = feature_pair(case["name"])
    for name, value in case["reference"].items():
        ours = frechet_distance(x, y, ddof=0 if "biased" in name else 1)
        if number(value) is not None and value != -1:  # -1: it failed, and said so by this number
            # Their square roots lose up to 1e-2 of the distance where it is small (METRICS.md, section 2).
            slack = 1e-2 + 1e-4 * (case["parts"]["tr_x"] + case["parts"]["tr_y"])
            assert ours == pytest.approx(value, rel=1e-3, abs=slack), name


@pytest.mark.parametrize("case", cases(FILE))
def test_resampler_agrees_on_all_rows_and_on_halves(case):
    x, y = feature_pair(case["name"])
    products, covariances = FrechetResampler(x, y), FrechetResampler(x, y)
    products.products = products.x @ products.y.T
    covariances.products = None
    rng = np.random.default_rng(0)
    halves = [np.sort(rng.permutation(len(side))[: max(len(side) // 2, 2)]) for side in (x, y)]
    scale = x.var(0, ddof=1, dtype=np.float64).sum() + y.var(0, ddof=1, dtype=np.float64).sum()
    for rows in ((None, None), (None, halves[1]), (halves[0], None), halves):
        exact = frechet_distance(*(side if i is None else side[i] for side, i in zip((x, y), rows, strict=True)))
        for sampler in (products, covariances):
            assert sampler.distance(*rows) == pytest.approx(exact, rel=1e-9, abs=1e-7 * scale)


@pytest.mark.parametrize(("key", "expected"), entries(INFINITY, [k for k in INFINITY if "fad" in k], "features"))
def test_recorded_extrapolation(key, expected):
    stored = arrays("features/inf_inputs.npz")
    if not isinstance(expected, dict):
        assert frechet_distance(stored["reference"], stored["eval"]) == pytest.approx(expected, rel=1e-5)
        return
    ours = frechet_infinity(
        stored["reference"],
        stored["eval"],
        num_points=expected["steps"],
        min_size=expected["min_n"],
        seed=expected["np.random.seed"],
    )
    assert [ours.score, ours.slope, ours.r2] == pytest.approx([expected[k] for k in ("score", "slope", "r2")], rel=1e-5)
    assert [size for size, _ in ours.points] == [size for size, _ in expected["points"]]
    assert [value for _, value in ours.points] == pytest.approx([value for _, value in expected["points"]], rel=1e-5)


def with_moments(rng: np.random.Generator, num_rows: int, mean: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """Make rows whose own mean and covariance are exactly the given ones."""
    white = rng.standard_normal((num_rows, len(mean)))
    white, _ = np.linalg.qr(white - white.mean(0))
    return white * np.sqrt(num_rows - 1) @ np.linalg.cholesky(covariance).T + mean


@pytest.mark.parametrize("num_rows", [9, 200])
def test_closed_form_of_gaussians_with_common_axes(num_rows):
    rng = np.random.default_rng(1)
    axes, _ = np.linalg.qr(rng.standard_normal((8, 8)))
    variances = rng.uniform(0.1, 3, (2, 8))
    means = rng.standard_normal((2, 8))
    x, y = (with_moments(rng, num_rows, m, axes * v @ axes.T) for m, v in zip(means, variances, strict=True))
    expected = ((means[0] - means[1]) ** 2).sum() + ((variances[0] ** 0.5 - variances[1] ** 0.5) ** 2).sum()
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-10)


def test_closed_form_of_two_by_two_covariances():
    # For 2 x 2 matrices Tr M^1/2 = sqrt(Tr M + 2 sqrt(det M)), whatever the axes.
    first, second = np.array([[2.0, 0.7], [0.7, 1.0]]), np.array([[0.5, -0.3], [-0.3, 1.5]])
    rng = np.random.default_rng(2)
    x, y = (with_moments(rng, 40, np.zeros(2), covariance) for covariance in (first, second))
    root = np.sqrt(np.trace(first @ second) + 2 * np.sqrt(np.linalg.det(first @ second)))
    assert frechet_distance(x, y) == pytest.approx(np.trace(first + second) - 2 * root, rel=1e-10)


def test_distance_is_symmetric_and_blind_to_rotation_shift_and_order():
    rng = np.random.default_rng(3)
    x, y = rng.standard_normal((30, 12)), 1.5 * rng.standard_normal((20, 12)) + 0.2
    rotation, _ = np.linalg.qr(rng.standard_normal((12, 12)))
    value = frechet_distance(x, y)
    assert frechet_distance(y, x) == pytest.approx(value, rel=1e-12)
    assert frechet_distance(x[::-1] @ rotation + 50, y @ rotation + 50) == pytest.approx(value, rel=1e-9)
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-12)


def test_float32_features_have_a_float64_mean():
    rng = np.random.default_rng(4)
    x, y = ((rng.standard_normal((5000, 4)) + 1000 + shift).astype(np.float32) for shift in (0, 0.01))
    assert frechet_distance(x, y) == pytest.approx(frechet_distance(x.astype(np.float64), y.astype(np.float64)))


def test_extrapolation_removes_the_bias_only_without_replacement():
    rng = np.random.default_rng(5)
    x, y = rng.standard_normal((4000, 24)), rng.standard_normal((600, 24))  # one distribution: the truth is 0
    plain = frechet_distance(x, y)
    assert frechet_infinity(x, y, min_size=150).score == pytest.approx(plain, rel=0.2)
    assert abs(frechet_infinity(x, y, min_size=150, replace=False).score) < 0.35 * plain


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.zeros((1, 3)), np.zeros((5, 3)), "at least 2"),
        (np.zeros((5, 3)), np.zeros((5, 4)), "3 dimensions and y 4"),
        (np.zeros(5), np.zeros((5, 4)), "one row for each item"),
        (np.zeros((5, 2)), np.array([[0, 1], [np.nan, 0], [np.inf, 0]]), "2 row.s. hold NaN or infinity .first: row 1"),
    ],
)
def test_a_persons_mistake_is_named(x, y, message):
    with pytest.raises(ValueError, match=message):
        frechet_distance(x, y)


def test_extrapolation_needs_more_rows_than_its_smallest_size():
    x = np.random.default_rng(6).standard_normal((60, 3))
    with pytest.raises(ValueError, match="between 500 and 60 rows"):
        frechet_infinity(x, x)


def test_resampler_refuses_a_single_row():
    x = np.random.default_rng(7).standard_normal((6, 3))
    with pytest.raises(ValueError, match="y: 1 row"):
        FrechetResampler(x, x).distance(None, np.array([2]))
