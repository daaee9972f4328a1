"""KVD, KID and KAD: every recorded number, and the definitions written out as loops."""

import re
from functools import cache

import numpy as np
import pytest

from mmdiff.eval.metrics.kernels import (
    BLOCK_ENTRIES,
    cubic_kernel,
    kad,
    kad_infinity,
    kid,
    kvd,
    median_distance,
    mmd,
    radial_kernel,
)
from tests.eval.metrics.distance_vectors import FLOAT32_EPSILON, arrays, entries, facts, feature_pair, number

FILE = "features/kernel_expected.json"
KERNEL_CASES = facts(FILE).get("cases", [])
INFINITY = facts("features/inf_expected.json")
ROUNDING = 16 * FLOAT32_EPSILON  # of sums of kernel values, times their size: what a float32 reference may be off


def recorded() -> list:
    """Return (case, key) for every recorded number."""
    if not KERNEL_CASES:
        return [pytest.param(None, "", marks=pytest.mark.skip(reason=f"no {FILE}"))]
    return [pytest.param(c, key, id=f"{c['name']}-{key}") for c in KERNEL_CASES for key in c if key != "name"]


@cache
def pair(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the sets of a case as float64."""
    x, y = feature_pair(name)
    return x.astype(np.float64), y.astype(np.float64)


def whole_numbers(key: str, *names: str) -> list[int]:
    """Return the numbers that a key names, such as subsets=20."""
    return [int(re.search(rf"\b{name}=?[\s(]*(\d+)", key)[1]) for name in names]


def ours(case: dict, key: str) -> tuple[list[float], float]:
    """Return what our functions say to a key, and how large the kernel values are (0: the key is exact)."""
    x, y = pair(case["name"])
    n = case["javisbench_direct"]["n_used"]
    cubic = max(cubic_kernel(x, x).mean(), cubic_kernel(y, y).mean())
    # kadtk takes squared distances from products, so float32 rounds them in proportion to the features' own length.
    longest = max((x**2).sum(1).max(), (y**2).sum(1).max()) / case["kadtk_bandwidth_median_of_y"] ** 2
    radial = 100 * (1 + longest / min(len(x), len(y)))
    if key.startswith("kid_torch_fidelity") or key == "kid_av_benchmark(same)":
        named = next(name for name in case if name.startswith("kid_torch_fidelity"))
        subsets, size, seed = whole_numbers(named, "subsets", "size", "seed")
        result = kid(x, y, subsets=subsets, subset_size=size, seed=seed)
        return [result.mean, result.std], cubic
    if key.startswith("kid_clean_fid"):
        subsets, size, seed = whole_numbers(key, "subsets", "max", "seed")
        return [kid(x, y, subsets=subsets, subset_size=size, seed=seed, variant="clean-fid").mean], cubic
    if key.startswith("poly_mmd_torchmetrics"):
        [rows] = whole_numbers(key, "first")
        return [kvd(x[:rows], y[:rows])], cubic
    if match := re.match(r"kad_kadtk_(\w+)_x=reference,y=eval", key):
        return [kad(x, y, bandwidth_of="generated", kernel=match[1]).score], radial
    if match := re.fullmatch(r"kad_kadtk_(gaussian|iq|imq)_bw([\d.]+)", key):
        return [kad(x, y, bandwidth=float(match[2]), kernel=match[1]).score], radial
    return {
        "kvd_mm_diffusion": lambda: ([kvd(x, y)], cubic),
        "kvd_mm_diffusion_f64": lambda: ([kvd(x, y)], 0),
        "kvd_first_n_uncentred_f64": lambda: ([kvd(x[:n], y[:n])], 0),
        "kad_kadtk_gaussian_f64": lambda: ([kad(x, y, bandwidth_of="generated").score], 0),
        "kad_with_bw_of_reference_x_f64": lambda: ([kad(x, y).score], 0),
        "bandwidth_median_of_x": lambda: ([median_distance(x)], 0),
        "kadtk_bandwidth_median_of_y": lambda: ([median_distance(y)], 0),
    }[key]()


@pytest.mark.parametrize(("case", "key"), recorded())
def test_recorded_number(case, key):
    if key == "javisbench_direct":
        # Its covariance takes the mean from the features in place, so its KVD is one of centred features.
        x, y = (side[: case[key]["n_used"]] for side in pair(case["name"]))
        x, y = x - x.mean(0), y - y.mean(0)
        size = max(cubic_kernel(x, x).mean(), cubic_kernel(y, y).mean(), 1)
        assert kvd(x, y) == pytest.approx(case[key]["kvd_on_centred_features"], rel=1e-3, abs=ROUNDING * size)
        return
    values = case[key] if isinstance(case[key], list) else [case[key]]
    if any(number(value) is None for value in values):
        pytest.skip(f"the reference has no number: {values}")
    found, size = ours(case, key)
    # Float64 columns agree to 1e-6. Those in float32 to 1e-3, or to their own rounding where the kernel values are
    # so much larger than their difference (an offset of 1000 cubed) that nothing else is left.
    assert found == pytest.approx(values, rel=1e-3 if size else 1e-6, abs=ROUNDING * size)


@pytest.mark.parametrize(("key", "expected"), entries(INFINITY, [k for k in INFINITY if "kad" in k], "features"))
def test_recorded_extrapolation(key, expected):
    stored = arrays("features/inf_inputs.npz")
    settings = {"num_points": expected["steps"], "min_size": expected["min_n"], "seed": expected["np.random.seed"]}
    result, bandwidth = kad_infinity(stored["reference"], stored["eval"], bandwidth_of="generated", **settings)
    assert bandwidth is None
    assert [size for size, _ in result.points] == [size for size, _ in expected["points"]]
    # The reference computes 100 MMD^2 in float32, whose rounding is what remains; the line over 1 / n amplifies it.
    rounding = 100 * 8 * FLOAT32_EPSILON
    assert [v for _, v in result.points] == pytest.approx([v for _, v in expected["points"]], rel=1e-5, abs=rounding)
    assert result.score == pytest.approx(expected["score"], rel=1e-5, abs=rounding)
    assert result.slope == pytest.approx(expected["slope"], rel=1e-5, abs=rounding * expected["min_n"])
    assert result.r2 == pytest.approx(expected["r2"], rel=1e-5, abs=rounding)


def two_sets(seed: int = 0, n: int = 11, m: int = 8, d: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Make two small sets that differ."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, d)), 1.3 * rng.standard_normal((m, d)) + 0.4


def mmd_by_loops(k, x: np.ndarray, y: np.ndarray) -> float:
    """Write the unbiased estimate out, pair by pair."""
    within = [sum(k(a, b) for i, a in enumerate(s) for j, b in enumerate(s) if i != j) for s in (x, y)]
    between = sum(k(a, b) for a in x for b in y)
    n, m = len(x), len(y)
    return within[0] / (n * (n - 1)) + within[1] / (m * (m - 1)) - 2 * between / (n * m)


def test_kernels_match_their_definitions():
    x, y = two_sets()
    assert kvd(x, y) == pytest.approx(mmd_by_loops(lambda a, b: (a @ b / 5 + 1) ** 3, x, y), rel=1e-12)
    scaled = {
        "gaussian": lambda s: np.exp(-s),
        "iq": lambda s: 1 / (1 + s),
        "imq": lambda s: (1 + s) ** -0.5,
    }
    for name, of in scaled.items():
        expected = 100 * mmd_by_loops(lambda a, b, of=of: of(((a - b) ** 2).sum() / (2 * 1.7**2)), x, y)
        assert kad(x, y, bandwidth=1.7, kernel=name).score == pytest.approx(expected, rel=1e-11)


def test_choices_of_rows_agree_with_the_rows_themselves():
    x, y = two_sets(1)
    rng = np.random.default_rng(2)
    rows_x, rows_y = [rng.integers(0, 11, 6) for _ in range(4)], [rng.permutation(8)[:5] for _ in range(4)]
    for kernel in (cubic_kernel, radial_kernel(2.0)):
        alone = [mmd(kernel, x[i], y[j])[0] for i, j in zip(rows_x, rows_y, strict=True)]
        assert mmd(kernel, x, y, rows_x, rows_y) == pytest.approx(alone, rel=1e-10)
    assert mmd(cubic_kernel, x, y, [None], [rows_y[0]]) == pytest.approx(mmd(cubic_kernel, x, y[rows_y[0]]))


def test_blocks_of_rows_change_nothing(monkeypatch):
    x, y = two_sets(3, n=150, m=130)
    whole = kvd(x, y)
    monkeypatch.setattr("mmdiff.eval.metrics.kernels.BLOCK_ENTRIES", 7 * 130)
    assert kvd(x, y) == pytest.approx(whole, rel=1e-12)
    assert BLOCK_ENTRIES > 7 * 130


def test_kid_is_the_same_by_one_kernel_matrix_and_by_subsets():
    x, y = two_sets(4, n=40, m=50)
    rng = np.random.RandomState(7)
    for subsets in (2, 60):  # 2 x 10^2 pairs are fewer than 50^2: each subset by itself; 60 x 10^2 are more
        rng.seed(7)
        drawn = [(rng.choice(40, 10, replace=False), rng.choice(50, 10, replace=False)) for _ in range(subsets)]
        scores = [kvd(x[i], y[j]) for i, j in drawn]
        result = kid(x, y, subsets=subsets, subset_size=10, seed=7)
        assert [result.mean, result.std] == pytest.approx([np.mean(scores), np.std(scores)], rel=1e-10)


def test_mmd_is_unbiased():
    rng = np.random.default_rng(5)
    scores = [kvd(*rng.standard_normal((2, 12, 6))) for _ in range(400)]
    assert abs(np.mean(scores)) < 3 * np.std(scores) / np.sqrt(len(scores))


def test_bandwidth_is_the_lower_median_and_independent_of_the_system():
    line = np.array([[0.0], [1.0], [3.0], [7.0]])  # distances 1 2 3 4 6 7
    assert median_distance(line) == 3
    x, y = two_sets(6)
    assert kad(x, y).bandwidth == kad(x, 9 * y).bandwidth == median_distance(x)
    assert kad(x, y, bandwidth_of="generated").bandwidth == median_distance(y)
    assert kad(x, y, bandwidth=kad(x, y).bandwidth) == kad(x, y)


def test_extrapolation_with_a_fixed_bandwidth_is_kad_of_each_draw():
    x, y = two_sets(8, n=30, m=40)
    result, bandwidth = kad_infinity(x, y, num_points=3, min_size=10, seed=3)
    rng = np.random.RandomState(3)
    expected = [kad(x, y[rng.choice(40, size, replace=True)], bandwidth=bandwidth).score for size in (10, 25, 40)]
    assert bandwidth == median_distance(x)
    assert [value for _, value in result.points] == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x, y: kid(x, y, subset_size=9), "subsets of 9 from 11 and 8 rows"),
        (lambda x, y: kid(x, y, variant="other"), "torch-fidelity, clean-fid"),
        (lambda x, y: kvd(x, y[:1]), "at least 2"),
        (lambda x, y: kad(0 * x, y), "are all features the same"),
        (lambda x, y: kad(x, y, kernel="cubic"), "gaussian, iq, imq"),
        (lambda x, y: kad(x, y, bandwidth_of="eval"), "reference, generated"),
        (lambda x, y: kad_infinity(x, y, bandwidth_of="eval"), "reference, generated"),
        (lambda x, y: mmd(cubic_kernel, x, y, [np.array([1])], [None]), "fewer than 2 rows"),
    ],
)
def test_a_persons_mistake_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(*two_sets())
