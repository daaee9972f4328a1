"""PEAQ Basic: every recorded pair beside Kabal's program, and what a listener would expect of a grade."""

import functools

import numpy as np
import pytest
from scipy.io import wavfile

from mmdiff.eval.metrics.peaq import ear, peaq_basic, variables
from mmdiff.eval.metrics.peaq.network import RANGES
from tests.eval.metrics.rhythm_vectors import METRICS, as_float, checked, each, synthesis

RATE = 48000


@each("peaq/expected.json", lambda facts: facts["cases"], lambda case: f"{case['ref']}-{case['degradation']}")
def test_recorded_pairs(case):
    reference, degraded = recorded_pair(case)
    expected = case["kabal_PQevalAudio_basic"]
    if isinstance(expected, str):  # "nan" or an error: there was no frame to grade
        with pytest.raises(ValueError, match="PEAQ"):
            peaq_basic(reference, degraded, case["sr"])
        return
    result = peaq_basic(reference, degraded, case["sr"])
    assert result.odg == pytest.approx(expected, abs=1e-3)  # the vectors ask for 0.03


def recorded_pair(case: dict) -> tuple[np.ndarray, np.ndarray]:
    """Return a case's waveforms `n` or `c n`: read where the case names files, else rebuilt."""
    if "ref_file" in case:
        pair = []
        for key in ("ref_file", "test_file"):
            rate, samples = wavfile.read(METRICS / "peaq" / case[key])
            assert rate == case["sr"] and samples.dtype == np.int16
            pair.append(samples)
    else:
        pair = synthesis().peaq_pair(case)
    return tuple(as_float(checked(x, case[key]).T) for x, key in zip(pair, ("ref_sha", "test_sha")))


@functools.cache
def music(seed: int = 0, seconds: float = 1.5) -> np.ndarray:
    """Return a bright decaying tone every quarter of a second over faint noise `n`."""
    generator = np.random.default_rng(seed)
    time = np.arange(round(seconds * RATE)) / RATE
    hertz = generator.choice([220.0, 262.0, 330.0, 392.0], len(time) // 12000 + 1)[(time // 0.25).astype(int)]
    tone = sum(np.sin(2 * np.pi * hertz * number * time) / number for number in range(1, 48))
    return 0.3 * tone * np.exp(-(time % 0.25) / 0.2) + 0.002 * generator.standard_normal(len(time))


def with_noise(wave: np.ndarray, decibels: float) -> np.ndarray:
    """Return a waveform with white noise so many dB below it."""
    noise = np.random.default_rng(1).standard_normal(wave.shape)
    return wave + wave.std() * 10 ** (-decibels / 20) * noise


def test_nothing_is_heard_between_a_sound_and_itself():
    result = peaq_basic(music(), music())
    assert 0.1 < result.odg < 0.22
    assert tuple(result.movs) == tuple(RANGES)
    silent = ("WinModDiff1B", "ADBB", "EHSB", "AvgModDiff1B", "AvgModDiff2B", "RmsNoiseLoudB", "MFPDB")
    assert [result.movs[name] for name in silent] == [0.0] * len(silent)


def test_more_noise_grades_lower():
    grades = [peaq_basic(music(), with_noise(music(), decibels)).odg for decibels in (60, 40, 25, 10)]
    assert grades == sorted(grades, reverse=True)
    assert grades[0] > 0 and grades[-1] < -2


def test_a_change_of_gain_alone_grades_lower():
    same, quieter, quietest = (peaq_basic(music(), gain * music()).odg for gain in (1.0, 0.5, 0.1))
    assert same - 0.3 > quieter > quietest


def test_unrelated_sounds_grade_low():
    other = 0.3 * np.random.default_rng(2).standard_normal(music().shape)
    assert peaq_basic(music(), other).odg < -3.5


@pytest.mark.parametrize("broken", ["reference", "degraded", "both"])
def test_digital_silence_within_a_sound_is_graded(broken):
    pair = {"reference": music().copy(), "degraded": with_noise(music(), 40)}
    for name, wave in pair.items():
        if broken in (name, "both"):
            wave[20000:40000] = 0
    with np.errstate(divide="raise", invalid="raise", over="raise"):
        result = peaq_basic(**pair)
    assert np.isfinite([result.odg, result.distortion_index, *result.movs.values()]).all()


def test_a_lost_signal_grades_low_and_a_silent_reference_has_no_grade():
    lost = peaq_basic(music(), np.zeros_like(music()))
    assert np.isfinite(list(lost.movs.values())).all() and lost.odg < -1
    for silence in (np.zeros(RATE), np.full(RATE, 39 / 32768)):
        with pytest.raises(ValueError, match="reference is silent"):
            peaq_basic(silence, music()[:RATE])


def test_short_sounds_have_finite_grades():
    for num_samples in (2048, 2049, 5000, 24576, 28672, 30000):
        result = peaq_basic(music()[:num_samples], with_noise(music(), 30)[:num_samples])
        assert np.isfinite([result.odg, *result.movs.values()]).all()


def test_the_same_sound_in_both_ears_grades_as_in_one():
    reference, degraded = music(), with_noise(music(), 30)
    mono, stereo = peaq_basic(reference, degraded), peaq_basic(np.stack([reference] * 2), np.stack([degraded] * 2))
    assert stereo.movs == pytest.approx(mono.movs, rel=1e-12)
    assert peaq_basic(reference[None], degraded[None]) == mono


def test_the_worse_ear_decides_what_is_detected():
    left, right = (music(), with_noise(music(), 50)), (music(3), with_noise(music(3), 10))
    one, other = peaq_basic(*left), peaq_basic(*right)
    both = peaq_basic(*(np.stack(pair) for pair in zip(left, right)))
    assert both.movs["MFPDB"] >= max(one.movs["MFPDB"], other.movs["MFPDB"]) - 1e-12
    for name in ("TotalNMRB", "WinModDiff1B", "EHSB"):
        assert both.movs[name] == pytest.approx((one.movs[name] + other.movs[name]) / 2)


def test_silence_after_a_sound_does_not_count():
    reference, degraded = music(), with_noise(music(), 30)
    padded = [np.pad(wave, (0, 20 * ear.HOP_LENGTH)) for wave in (reference, degraded)]
    assert peaq_basic(*padded).movs == pytest.approx(peaq_basic(reference, degraded).movs, rel=1e-12)


def test_a_long_clip_is_analysed_piece_by_piece(monkeypatch):
    whole = peaq_basic(music(), with_noise(music(), 30))
    monkeypatch.setattr(variables, "FRAMES_AT_ONCE", 7)
    assert peaq_basic(music(), with_noise(music(), 30)).movs == pytest.approx(whole.movs, rel=1e-9)


def test_the_ear_is_calibrated():
    sine = ear.FULL_SCALE * np.sin(2 * np.pi * ear.LEVEL_HZ / RATE * np.arange(ear.N_FFT))
    assert 10 * np.log10(ear.power_spectrum(sine[None]).max()) == pytest.approx(92, abs=0.01)


def test_the_critical_bands_tile_the_spectrum():
    bands = ear.critical_bands()
    assert bands.num_bands == 109 and bands.lower[0] == 80 and bands.upper[-1] == 18000
    assert (bands.lower < bands.centre).all() and (bands.centre < bands.upper).all()
    flat = ear.group(np.ones((1, ear.NUM_BINS)))[0]
    np.testing.assert_allclose(flat, (bands.upper - bands.lower) / (RATE / ear.N_FFT), rtol=1e-9)
    np.testing.assert_allclose(ear.spread(np.ones((1, 109))), 1, rtol=1e-12)


def test_a_loud_tone_spreads_upwards():
    tone = np.full((2, 109), 1e-3)
    tone[:, 50] = 1e2, 1e8
    quiet, loud = 10 * np.log10(ear.spread(tone))
    assert loud[58] - loud[50] > quiet[58] - quiet[50]
    assert loud[54] > loud[46]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda wave: (wave, wave, 44100), "resample both"),
        (lambda wave: (wave, wave[:-1]), "same length"),
        (lambda wave: (wave, np.stack([wave, wave])), "same length and channels"),
        (lambda wave: (wave[:2000], wave[:2000]), "2000 samples are too short"),
        (lambda wave: (np.stack([wave] * 3), np.stack([wave] * 3)), "1 or 2 channels"),
        (lambda wave: ((wave * 32767).astype(np.int16), wave), "divide by 32768"),
        (lambda wave: (wave, np.where(wave > 0.5, np.nan, wave)), "degraded has values that are not finite"),
        (lambda wave: (np.r_[np.zeros(2100), wave[:100], np.zeros(3000)],) * 2, "too short for a frame"),
    ],
)
def test_mistakes_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        peaq_basic(*change(music()))
