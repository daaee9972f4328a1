"""Loudness: every recorded signal beside ffmpeg and pyloudnorm, and the rule of what keeps a loudness."""

import numpy as np
import pytest

from mmdiff.eval.metrics import loudness
from tests.eval.metrics.rhythm_vectors import each, raises, synthesis

FFMPEG_FLOOR = -70.0  # what ffmpeg prints where nothing passes the gate


@each("loudness/expected.json", lambda facts: facts["cases"], lambda case: case["name"])
def test_recorded_signals(case):
    wave = synthesis().loud_signal(case)
    assert len(wave) == case["n_samples"]
    if raises(case["pyloudnorm_DeMan"]):
        with pytest.raises(ValueError, match="shorter than a block"):
            loudness.integrated_loudness(wave.T, case["sr"])
        return
    got = loudness.integrated_loudness(wave.T, case["sr"])
    assert got == pytest.approx(float(case["pyloudnorm_DeMan"]), abs=0.05)
    printed = case["ffmpeg_ebur128"]["I"]
    assert max(got, FFMPEG_FLOOR) == pytest.approx(printed, abs=0.1)
    if "spec" in case:
        assert got == pytest.approx(case["spec"], abs=0.1)  # EBU Tech 3341's own tolerance


@each("loudness/expected.json", lambda facts: facts["consistency_rule"])
def test_recorded_tolerances(case):
    agreement = loudness.within_loudness(case["train_lufs"], case["gen_lufs"])
    assert agreement.mean_lufs == pytest.approx(case["mean_train"], abs=1e-9)
    assert agreement.is_within.tolist() == case["within_2.5_of_mean"]
    assert agreement.percent == pytest.approx(case["pct"], abs=1e-9)


def test_channels_count_as_they_are():
    tone = 0.1 * np.sin(2 * np.pi * 997 * np.arange(48000) / 48000).astype(np.float32)
    mono = loudness.integrated_loudness(tone, 48000)
    assert mono == pytest.approx(-23.0, abs=0.05)
    assert loudness.integrated_loudness(tone[None], 48000) == mono
    assert loudness.integrated_loudness(np.stack([tone, tone]), 48000) == pytest.approx(mono + 3.01, abs=0.01)


def test_silence_is_below_every_gate_and_outside_every_tolerance():
    assert loudness.integrated_loudness(np.zeros((2, 16000), np.float32), 16000) == float("-inf")
    agreement = loudness.within_loudness([-20.0, float("-inf")], [-17.5, -22.5, -22.6, float("-inf")])
    assert agreement.mean_lufs == -20.0
    assert agreement.is_within.tolist() == [True, True, False, False]


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="every training clip is silent"):
        loudness.within_loudness([float("-inf")], [-20.0])
    with pytest.raises(ValueError, match="1 to 5 channels"):
        loudness.integrated_loudness(np.zeros((16000, 2)), 16000)
    with pytest.raises(ValueError, match="NaN or infinite"):
        loudness.integrated_loudness(np.full(16000, np.nan), 16000)
