"""Intervals: what is drawn again, and whether the truth lies inside as often as they say."""

import numpy as np
import pytest

from mmdiff.eval.metrics.frechet import frechet_distance
from mmdiff.eval.metrics.kernels import cubic_kernel
from mmdiff.eval.quality.estimate import median, of_sets, ratio
from mmdiff.eval.quality.sets import frechet_estimate, kernel_estimate


def clips(rng: np.random.Generator, count: int, shift: float = 0.0, dims: int = 4) -> list[np.ndarray]:
    return [rng.standard_normal((3, dims)) * 0.3 + rng.standard_normal((1, dims)) + shift for _ in range(count)]


def test_a_ratio_pools_its_parts_and_leaves_out_what_is_no_number():
    parts = [(1.0, 2.0), (3.0, 4.0), (float("nan"), 1.0)]
    estimate = ratio(parts, [(0,), (1,), (2,)], 3, seed=0)
    assert estimate.value == pytest.approx(4 / 6)
    assert estimate.num_clips == 2
    assert ratio([(float("nan"), 1.0)], [(0,)], 1, 0).interval().value is None


def test_the_interval_of_a_mean_holds_the_truth_about_as_often_as_it_says():
    rng, held = np.random.default_rng(0), 0
    for trial in range(200):
        values = rng.standard_normal(60)
        found = ratio([(value, 1.0) for value in values], [(i,) for i in range(60)], 60, seed=trial).interval()
        held += found.low <= 0 <= found.high
    assert 180 <= held <= 199


def test_half_samples_have_the_spread_of_new_samples():
    rng = np.random.default_rng(1)
    found = [frechet_estimate(clips(rng, 80), clips(rng, 80, 1.0), 1.0, seed=trial) for trial in range(60)]
    true_spread = np.std([estimate.value for estimate in found])
    widths = [estimate.interval().high - estimate.interval().low for estimate in found]
    assert np.median(widths) == pytest.approx(2 * 1.96 * true_spread, rel=0.3)


def test_extrapolation_takes_away_most_of_the_bias_of_few_clips():
    rng = np.random.default_rng(2)
    found = frechet_estimate(clips(rng, 60, dims=16), clips(rng, 60, dims=16), 1.0, seed=0)
    assert found.value > 1
    assert abs(found.to_infinity().value) < 0.4 * found.value
    assert found.to_infinity().interval().high - found.to_infinity().interval().low == pytest.approx(
        found.interval().high - found.interval().low
    )


def test_the_same_clips_are_drawn_for_two_systems_so_a_small_difference_is_seen():
    rng = np.random.default_rng(3)
    hard = rng.standard_normal(50)  # how hard each clip is, for both systems
    first, second = ([(value + gain, 1.0) for value in hard] for gain in (0.0, 0.1))
    own = [(i,) for i in range(50)]
    one, other = ratio(first, own, 50, seed=0), ratio(second, own, 50, seed=0)
    difference = other.less(one)
    assert difference.value == pytest.approx(0.1) and difference.low == pytest.approx(0.1)
    assert one.interval().high > other.interval().low  # their own intervals overlap


def test_values_are_those_of_the_pure_functions_and_few_clips_have_no_interval():
    rng = np.random.default_rng(4)
    x, y = clips(rng, 3), clips(rng, 3)
    found = frechet_estimate(x, y, 1e4, seed=0)
    assert found.value == pytest.approx(1e4 * frechet_distance(np.concatenate(x), np.concatenate(y)))
    assert found.interval().low is None and found.mean_half is None
    again = kernel_estimate(x, y, cubic_kernel, 1.0, seed=0)
    assert again.num_clips == 3 and again.num_reference == 3


def test_halves_never_hold_a_clip_twice():
    seen = []

    def look(choices):
        seen.extend(choices)
        return np.zeros(len(choices))

    of_sets(0.0, look, ([np.zeros((k + 1, 2)) for k in range(6)],), seed=0)
    assert all(len(set(rows.tolist())) == len(rows) for rows in seen)
    starts = np.cumsum([0, 1, 2, 3, 4, 5])
    assert all(sum(start in rows for start in starts) == 3 for rows in seen)


def test_the_median_is_of_all_values_together():
    assert median([np.array([1.0, 2.0]), np.array([3.0]), np.zeros(0)], seed=0).value == 2.0
