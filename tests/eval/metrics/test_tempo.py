"""Tempo: every recorded click track and drum pattern, and the rule of what keeps a tempo."""

import numpy as np
import pytest

from mmdiff.eval.metrics import tempo
from tests.eval.metrics.rhythm_vectors import as_float, checked, each, synthesis

SAMPLE_RATE = 44100  # what `bpm_signal` is recorded at


@each("beats/bpm_expected.json", list, lambda case: f"{case['kind']}-{case['bpm']}")
def test_recorded_tempi(case):
    wave = as_float(checked(synthesis().bpm_signal(case), case["audio_sha"]))
    assert tempo.estimate_bpm(wave, SAMPLE_RATE) == pytest.approx(case["truth"], abs=tempo.TOLERANCE)
    assert tempo.librosa_bpm(wave, SAMPLE_RATE) == pytest.approx(case["estimates"]["librosa.feature.tempo"], abs=1e-3)
    for name, estimate in case["estimates"].items():
        agreement = tempo.within_tempo([case["truth"]], [estimate])
        assert bool(agreement.is_within[0]) == case["within5"][name], name
        assert bool(agreement.percent_octave_tolerant) == case["within5_octave_tolerant"][name], name


@each("misc/expected.json", lambda facts: facts["bpm_rule"]["cases"])
def test_recorded_tolerances(case):
    agreement = tempo.within_tempo(case["train_bpm"], case["gen_bpm"])
    assert agreement.mean_bpm == pytest.approx(case["ref_mean"], abs=1e-9)
    assert agreement.is_within.tolist() == case["within5"]
    assert agreement.percent == pytest.approx(case["pct_within5"], abs=1e-9)
    assert agreement.percent_octave_tolerant == pytest.approx(case["pct_within5_octave_tolerant"], abs=1e-9)


@each("beats/bpm_expected.json", lambda _: [52.5, 83.0, 97.3, 111.1, 133.7, 171.0, 204.0])
@pytest.mark.parametrize("how", ["clicks", "drums", "no hats", "swing", "noise"])
def test_other_tempi(case, how):
    make, rate, random = synthesis(), 22050, np.random.RandomState(int(case * 10))
    if how == "clicks":
        wave = make.clicks(np.arange(0.3, 10, 60 / case), 10, rate)
    else:
        swing = 0.16 if how == "swing" else 0.0
        wave = make.drums(case, 10, rate, seed=int(case), swing=swing, hats=how != "no hats")[0]
    if how == "noise":
        noise = make.pink(len(wave), random)
        wave = wave + 0.3 * wave.std() / noise.std() * noise
    assert tempo.estimate_bpm(wave, rate) == pytest.approx(case, abs=0.5)


def test_the_bound_is_inclusive_and_what_has_no_tempo_is_outside():
    agreement = tempo.within_tempo([100.1, 100.2, float("nan")], [105.15, 105.16, 50.2, float("nan")])
    assert agreement.is_within.tolist() == [True, False, False, False]
    assert (agreement.percent, agreement.percent_octave_tolerant) == (25.0, 50.0)
    with pytest.raises(ValueError, match="no training clip has a tempo"):
        tempo.within_tempo([float("nan")], [100.0])


def test_silence_and_a_steady_tone_have_no_tempo_and_a_moment_is_too_short():
    time = np.arange(44100 * 4) / 44100
    assert np.isnan(tempo.estimate_bpm(np.zeros(44100 * 4), 44100))
    assert np.isnan(tempo.estimate_bpm(0.3 * np.sin(2 * np.pi * 440 * time), 44100))
    with pytest.raises(ValueError, match="give a second or more"):
        tempo.estimate_bpm(np.zeros(20000), 44100)
