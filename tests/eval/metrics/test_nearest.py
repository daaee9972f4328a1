"""Authenticity: planted copies are found, and the numbers match a search over all pairs."""

import numpy as np
import pytest

from mmdiff.eval.metrics.nearest import BLOCK_ROWS, authenticity, nearest_neighbours


def test_planted_copies_are_counted():
    rng = np.random.default_rng(0)
    training, fresh = rng.standard_normal((50, 16)), 3 * rng.standard_normal((15, 16))
    copies = training[[4, 4, 31, 7, 12]] + 1e-3 * rng.standard_normal((5, 16))
    result = authenticity(np.concatenate([fresh, copies]), training)
    assert result.memorisation_rate == pytest.approx(5 / 20)
    assert result.nearest[15:].tolist() == [4, 4, 31, 7, 12]
    assert result.is_memorised.tolist() == [False] * 15 + [True] * 5


def test_numbers_match_a_search_over_all_pairs():
    rng = np.random.default_rng(1)
    training = (rng.standard_normal((30, 5)) + 1000).astype(np.float32)
    generated = (rng.standard_normal((BLOCK_ROWS + 9, 5)) + 1000).astype(np.float32)
    result = authenticity(generated, training)
    wide = training.astype(np.float64)
    apart = np.linalg.norm(generated[:, None].astype(np.float64) - wide, axis=2)
    inside = np.linalg.norm(wide[:, None] - wide, axis=2) + np.diag(np.full(30, np.inf))
    assert (result.nearest == apart.argmin(1)).all()
    assert result.distances == pytest.approx(apart.min(1))
    assert result.training_distances == pytest.approx(inside.min(1)[apart.argmin(1)])
    assert result.authenticity == pytest.approx((apart.min(1) > inside.min(1)[apart.argmin(1)]).mean())


def test_an_exact_copy_of_a_clip_held_twice_is_memorised():
    training = np.array([[1.0, 2.0], [1.0, 2.0], [8.0, 9.0]])
    result = authenticity(training[:1], training)
    assert result.memorisation_rate == 1
    assert result.distances == result.training_distances == [0]


def test_a_clip_between_others_is_authentic():
    training = np.array([[0.0], [1.0], [10.0]])
    assert authenticity([[5.0]], training).authenticity == 1  # 4 from its nearest, which has another at 1
    assert authenticity([[9.0]], training).authenticity == 0  # 1 from its nearest, whose next is 9 away


def test_a_query_can_pass_over_itself():
    points = np.array([[0.0], [3.0], [4.0]])
    nearest, distances = nearest_neighbours(points, points, excluded=np.arange(3))
    assert nearest.tolist() == [1, 2, 1]
    assert distances.tolist() == [3, 1, 1]


def test_one_training_clip_is_too_few():
    with pytest.raises(ValueError, match="at least 2 training clips"):
        authenticity(np.zeros((3, 2)), np.zeros((1, 2)))
