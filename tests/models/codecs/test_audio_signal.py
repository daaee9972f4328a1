"""Resampling without delay, mixing, and the spectrograms that foreign networks were trained on."""

import librosa
import numpy as np
import pytest
import torch

from mmdiff.models.codecs.audio_signal import log_mel, mix, resample, slaney_filters

RATES = (16_000, 22_050, 44_100, 48_000)
PAIRS = [(a, b) for a in RATES for b in RATES if a != b]


def band_limited(num_samples: int, sample_rate: int, delay_seconds: float = 0.0) -> torch.Tensor:
    """Tones below 6 kHz under a bell, `1 1 n`: known at any time, so at any rate."""
    time = torch.arange(num_samples, dtype=torch.float64) / sample_rate - delay_seconds
    tones = sum(torch.sin(2 * torch.pi * hertz * time + hertz) for hertz in (211.0, 1730.0, 3333.0, 5900.0))
    return (tones * torch.exp(-(((time - 0.1) / 0.025) ** 2)) / 4).float()[None, None]


@pytest.mark.parametrize(("old", "new"), PAIRS)
def test_a_resampled_sound_is_that_sound_at_the_new_times(old, new):
    """Every sample is right, which a delay of a hundredth of a sample would spoil."""
    length = round(0.2 * new)
    found = resample(band_limited(round(0.2 * old), old), old, new, length)
    assert found.shape == (1, 1, length)
    assert (found - band_limited(length, new)).abs().max() < 1e-3


@pytest.mark.parametrize(("old", "new"), PAIRS)
def test_a_click_comes_back_at_its_place(old, new):
    """There and back, the cross-correlation with the click is greatest at lag 0, and the click stays symmetric."""
    for place in (1000, 1001, 1503):
        click = torch.zeros(1, 1, 3001)
        click[..., place] = 1
        back = resample(resample(click, old, new, -(-3001 * new // old)), new, old, 3001)[0, 0]
        assert int(back.abs().argmax()) == place
        around = back[place - 400 : place + 401]
        assert (around - around.flip(0)).abs().max() < 1e-3


def test_what_a_lower_rate_cannot_hold_is_taken_off_and_the_rest_kept():
    time = torch.arange(44_100, dtype=torch.float64) / 44_100
    for hertz, kept in ((0.0, 1.0), (7000.0, 1.0), (8400.0, 0.0), (15_000.0, 0.0)):
        tone = torch.cos(2 * torch.pi * hertz * time).float()[None, None]
        level = resample(tone, 44_100, 16_000, 16_000)[..., 2000:-2000].square().mean().sqrt()
        whole = tone.square().mean().sqrt()
        assert abs(float(level / whole) - kept) < 1e-4, f"{hertz} Hz"


def test_resampling_passes_gradients_and_lengthens_with_silence():
    sound = torch.randn(2, 2, 50, requires_grad=True)
    resample(sound, 16_000, 22_050, 80).square().sum().backward()
    assert sound.grad.abs().sum() > 0
    assert resample(sound.detach(), 8000, 8000, 60)[..., 50:].abs().sum() == 0


def test_mixing_there_and_back():
    mono, stereo = torch.randn(1, 1, 9), torch.randn(1, 2, 9)
    assert torch.equal(mix(mix(mono, 2), 1), mono)
    assert torch.allclose(mix(stereo, 1)[:, 0], stereo.mean(1))
    assert mix(stereo, 2) is stereo


@pytest.mark.parametrize(("rate", "n_fft", "n_mels", "f_min"), [(16_000, 1024, 64, 0.0), (48_000, 2048, 256, 20.0)])
def test_filters_are_those_of_librosa(rate, n_fft, n_mels, f_min):
    expected = librosa.filters.mel(sr=rate, n_fft=n_fft, n_mels=n_mels, fmin=f_min, fmax=rate / 2)
    assert np.abs(slaney_filters(rate, n_fft, n_mels, f_min, rate / 2).numpy() - expected).max() < 1e-6


def test_log_mel_is_the_published_one():
    """Centred windows as LTX-2 takes them, those of HiFi-GAN half a hop later; librosa computes both."""
    sound = 0.1 * np.random.default_rng(0).standard_normal(4000).astype(np.float32)
    filters = slaney_filters(16_000, 1024, 64, 0.0, 8000.0)
    for margin in (512, 432):
        padded = np.pad(sound, margin, mode="reflect")
        spectrum = np.abs(librosa.stft(padded, n_fft=1024, hop_length=160, center=False))
        mel = librosa.filters.mel(sr=16_000, n_fft=1024, n_mels=64) @ spectrum
        found = log_mel(torch.from_numpy(sound)[None, None], filters, 1024, 160, margin)
        assert found.shape == (1, 1, mel.shape[1], 64)
        assert np.abs(found[0, 0].T.numpy() - np.log(mel.clip(1e-5))).max() < 1e-3
    assert log_mel(torch.zeros(1, 1, 3), filters, 1024, 160, 512).isfinite().all(), "shorter than a window"
