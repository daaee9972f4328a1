"""Inception Score and KL: recorded numbers, and what they are at their ends."""

import re

import numpy as np
import pytest

from mmdiff.eval.metrics.classes import inception_score, kl_divergence, kl_divergences
from tests.eval.metrics.distance_vectors import arrays, entries, facts

FILE = "features/isc_kl_expected.json"
RECORDED = facts(FILE)


@pytest.mark.parametrize(("key", "expected"), entries(RECORDED, [k for k in RECORDED if k.startswith("isc")], FILE))
def test_recorded_inception_score(key, expected):
    splits, seed = re.search(r"splits(\d+)", key), re.search(r"seed(\d+)", key)
    settings = {"splits": int(splits[1])} if splits else {}
    if seed or "noshuffle" in key:
        settings["seed"] = int(seed[1]) if seed else None
    result = inception_score(arrays("features/logits.npz")["pred"], **settings)
    wanted = [expected["inception_score_mean"], expected["inception_score_std"]]
    assert [result.mean, result.std] == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize(("key", "expected"), entries(RECORDED, [k for k in RECORDED if k.startswith("kl")], FILE))
def test_recorded_kl(key, expected):
    logits = arrays("features/logits.npz")
    for name, value in expected.items():
        ours = kl_divergence(logits["gt"], logits["pred"], activation=name.removeprefix("kl_"))
        assert ours == pytest.approx(value, rel=1e-6), (key, name)


def test_inception_score_is_the_number_of_classes_at_most_and_one_at_least():
    certain = 1000 * np.eye(7)[np.arange(70) % 7]
    assert inception_score(certain, splits=1, seed=None).mean == pytest.approx(7)
    assert inception_score(np.ones((20, 7))).mean == pytest.approx(1)


def test_uneven_splits_use_every_row_once():
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((23, 4))
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    parts = [p[0:5], p[5:11], p[11:17], p[17:23]]  # i 23 // 4
    scores = [np.exp((q * np.log(q / q.mean(0))).sum(1).mean()) for q in parts]
    result = inception_score(logits, splits=4, seed=None)
    assert [result.mean, result.std] == pytest.approx([np.mean(scores), np.std(scores)])


def test_kl_of_two_coins():
    reference, generated = np.log([[0.5, 0.5], [0.9, 0.1]]), np.log([[0.25, 0.75], [0.9, 0.1]])
    expected = 0.5 * np.log(0.5 / 0.25) + 0.5 * np.log(0.5 / 0.75)
    assert kl_divergences(reference, generated) == pytest.approx([expected, 0])
    assert kl_divergence(reference, generated) == pytest.approx(expected / 2)


def test_huge_logits_stay_finite():
    assert kl_divergence([[0.0, 2000.0]], [[2000.0, 0.0]]) == pytest.approx(2000)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: inception_score(np.zeros((9, 3))), "9 row.s. of features; at least 10"),
        (lambda: inception_score(np.zeros((9, 3)), splits=0), "at least 1"),
        (lambda: kl_divergence(np.zeros((3, 2)), np.zeros((4, 2))), "3 reference and 4 generated"),
        (lambda: kl_divergence(np.zeros((3, 2)), np.zeros((3, 2)), activation="relu"), "softmax, sigmoid"),
    ],
)
def test_a_persons_mistake_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
