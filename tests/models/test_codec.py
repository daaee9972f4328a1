"""Codecs: what goes in comes out, at the same moment."""

import pytest
import torch

from mmdiff.models import MelCodec, PatchAutoencoder, PixelCodec, WaveformCodec
from mmdiff.models.mel import spectrum, waveform


def clicks(times: list[float], num_samples: int = 25_600, sample_rate: int = 16_000) -> torch.Tensor:
    """Decaying tones that begin at the given seconds, `1 1 n`."""
    generator = torch.Generator().manual_seed(0)
    axis = torch.arange(num_samples) / sample_rate
    wave = 1e-4 * torch.randn(num_samples, generator=generator)
    for time in times:
        later = (axis - time).clamp(min=0)
        wave += 0.5 * (axis >= time) * torch.exp(-later * 30) * torch.sin(2 * torch.pi * 900 * later)
    return wave[None, None]


def test_the_spectrum_can_be_turned_back_exactly():
    wave = torch.randn(2, 3200, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(waveform(spectrum(wave, 512, 160), 512, 160), wave, atol=1e-5)


def test_mel_keeps_length_level_and_onsets():
    codec, times = MelCodec(), [0.2, 0.71, 1.3]
    audio = clicks(times)
    latent = codec.encode(audio)
    assert tuple(latent.shape[1:]) == codec.latent_shape(audio.shape[-1]) == (64, 160)
    again = codec.decode(latent)
    assert again.shape == audio.shape
    energy = again[0, 0].square().unfold(0, 80, 80).mean(1)  # 5 ms steps
    for time in times:
        step = round(time / 0.005)
        assert energy[step + 1 : step + 6].max() > 30 * energy[step - 6 : step - 3].max()
    assert 0.5 < again.square().mean() / audio.square().mean() < 2
    assert torch.equal(again, codec.decode(latent))


def test_mel_pads_the_last_hop():
    codec = MelCodec()
    assert codec.encode(torch.zeros(1, 1, 1000)).shape == (1, *codec.latent_shape(1000))


def test_identity_codecs():
    video, audio = torch.rand(1, 3, 2, 8, 8), torch.rand(1, 1, 100)
    assert torch.equal(PixelCodec().decode(PixelCodec().encode(video)), video)
    assert torch.equal(WaveformCodec().decode(WaveformCodec().encode(audio)), audio)


def test_the_autoencoder_learns_one_batch_and_keeps_frames_apart():
    torch.manual_seed(0)
    codec = PatchAutoencoder(width=16, num_blocks=1)
    video = torch.nn.functional.interpolate(torch.rand(4, 3, 4, 4) * 2 - 1, size=32, mode="bilinear")
    optimizer = torch.optim.Adam(codec.parameters(), lr=3e-3)
    losses = []
    for _ in range(60):
        loss = (codec.decoder(codec.moments(video)[0]) - video).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.4 * losses[0]
    clip = video.transpose(0, 1)[None]  # b c f h w: four frames
    latent = codec.encode(clip)
    assert tuple(latent.shape[1:]) == codec.latent_shape(4, 32, 32)
    assert torch.allclose(codec.encode(clip[:, :, 1:2]), latent[:, :, 1:2], atol=1e-5)


def test_the_autoencoder_refuses_a_size_that_does_not_divide():
    with pytest.raises(ValueError, match="does not divide by 8"):
        PatchAutoencoder().latent_shape(16, 60, 64)


def test_codecs_survive_saving(tmp_path):
    codec = MelCodec(mean=-3.0)
    codec.save_pretrained(tmp_path)
    again = MelCodec.from_pretrained(tmp_path)
    assert again.settings == codec.settings
