"""The sync error of narration: every recorded case."""

import pytest

from mmdiff.eval.metrics.narration import sync_error
from tests.eval.metrics.distance_vectors import facts

RECORDED = facts("misc/expected.json").get("sync_error", {}).get("cases", [])


@pytest.mark.skipif(not RECORDED, reason="no recorded sync errors")
@pytest.mark.parametrize("case", RECORDED)
def test_recorded_case(case):
    times = case["narration_t"], case["transition_t"]
    if isinstance(case["l2_norm"], str):
        with pytest.raises(ValueError, match="narration starts and"):
            sync_error(*times)
        return
    result = sync_error(*times)
    assert result.num_pairs == len(times[0])
    for name in ("l2_norm", "rmse", "mean_abs"):
        expected = case[name]
        assert getattr(result, name) == (None if expected is None else pytest.approx(expected, rel=1e-9, abs=1e-9))


def test_rmse_does_not_grow_with_the_number_of_segments_but_the_norm_does():
    few, many = (sync_error([10.0 * i for i in range(n)], [10.0 * i + 0.3 for i in range(n)]) for n in (4, 16))
    assert few.rmse == pytest.approx(many.rmse) == pytest.approx(0.3)
    assert many.l2_norm == pytest.approx(2 * few.l2_norm)


def test_unequal_counts_and_missing_times_are_refused():
    with pytest.raises(ValueError, match="2 narration starts and 1 transitions"):
        sync_error([0, 1], [0])
    with pytest.raises(ValueError, match="finite"):
        sync_error([0, float("nan")], [0, 1])
