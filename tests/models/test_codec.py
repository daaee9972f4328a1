"""Codecs: what goes in comes out, at the same moment."""

from fractions import Fraction

import pytest
import torch

from mmdiff.models import MelCodec, PatchCodec, PixelCodec, WaveformCodec
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


def a_moving_disc(frames: int = 6, size: int = 32) -> torch.Tensor:
    """A bright disc that crosses a dark picture, `1 3 f h w`."""
    axis = torch.arange(size)
    pictures = []
    for number in range(frames):
        distance = ((axis - 4 - 4 * number) ** 2 + (axis[:, None] - 16) ** 2).sqrt()
        pictures.append((6 - distance).clamp(-1, 1).expand(3, -1, -1))
    return torch.stack(pictures, dim=1)[None]


def test_patches_are_kept_exactly_by_all_components_and_well_by_few():
    video = a_moving_disc()
    exact = PatchCodec(patch_size=4, latent_channels=48)
    assert exact.fit([video]).variance_kept([video]) > 0.999
    assert torch.allclose(exact.decode(exact.encode(video)), video, atol=1e-3)
    few = PatchCodec(patch_size=4, latent_channels=8)
    kept = few.fit([video]).variance_kept([video])
    error = (few.decode(few.encode(video)) - video).square().mean()
    assert 0.9 < kept < 1
    assert error < 0.05
    latent = few.encode(video)
    assert tuple(latent.shape[1:]) == few.latent_shape(6, 32, 32) == (8, 6, 8, 8)
    assert abs(latent.mean()) < 0.1
    assert 0.9 < latent.square().mean().sqrt() < 1.1


def test_patches_keep_frames_apart():
    video = a_moving_disc()
    codec = PatchCodec(patch_size=4, latent_channels=8)
    codec.fit([video])
    assert torch.allclose(codec.encode(video[:, :, 1:2]), codec.encode(video)[:, :, 1:2], atol=1e-5)


def test_what_goes_in_comes_out_to_the_frame_the_pixel_and_the_sample():
    """Any length and size: as long out as in; what is stated of latents is what they are."""
    video, audio = torch.rand(1, 3, 5, 30, 43) * 2 - 1, clicks([0.1], num_samples=4001)
    for codec in (PixelCodec(), PatchCodec(patch_size=8)):
        latent = codec.encode(video)
        assert tuple(latent.shape[1:]) == codec.latent_shape(5, 30, 43)
        assert latent.shape[2] == codec.num_steps(5) == 5 and codec.latent_rate(Fraction(25)) == 25
        assert codec.decode(latent, 5, (30, 43)).shape == codec.reconstruct(video).shape == video.shape
        assert codec.decode(latent, 3).shape[2] == 3
    for codec in (WaveformCodec(), MelCodec()):
        latent = codec.encode(audio)
        assert tuple(latent.shape[1:]) == codec.latent_shape(4001) == (codec.latent_channels, codec.num_steps(4001))
        assert codec.latent_rate(16_000) * codec.temporal_factor == 16_000
        assert codec.decode(latent, 4001).shape == codec.reconstruct(audio).shape == audio.shape
        assert codec.decode(latent).shape[-1] == codec.num_held(latent.shape[-1]) >= 4001


def test_more_than_the_latents_hold_is_refused():
    with pytest.raises(ValueError, match="hold 320 frames or samples; 321"):
        MelCodec().decode(torch.zeros(1, 64, 2), 321)
    with pytest.raises(ValueError, match="hold 8 frames or samples; 9"):
        PatchCodec().decode(torch.zeros(1, 32, 1, 1, 1), 1, (9, 8))


def test_steps_of_a_codec_whose_first_frame_stands_alone():
    codec = PixelCodec()
    codec.temporal_factor, codec.starts_with_one = 4, True
    assert [codec.num_steps(frames) for frames in (1, 2, 5, 6, 9)] == [1, 2, 2, 3, 3]
    assert [codec.num_held(steps) for steps in (1, 2, 3)] == [1, 5, 9]
    kept = torch.ones(8, dtype=torch.bool)
    kept[4] = False
    assert codec.wholly_given(kept).tolist() == [True, False, True]
    codec.temporal_factor, codec.starts_with_one = Fraction(5, 2), False
    assert codec.num_steps(11) == 5 and codec.latent_rate(25) == 10
    assert codec.wholly_given(kept).tolist() == [True, False, True, True]


def test_mel_is_fitted_to_unit_scale():
    audio = clicks([0.2, 0.9])
    latent = MelCodec(hop_length=200).fit([audio]).encode(audio)
    assert abs(latent.mean()) < 1e-3
    assert abs(latent.std() - 1) < 1e-3


def test_codecs_survive_saving(tmp_path):
    codec = MelCodec(mean=-3.0)
    codec.save_pretrained(tmp_path)
    again = MelCodec.from_pretrained(tmp_path)
    assert again.settings == codec.settings


def test_a_mel_column_is_given_where_all_that_it_hears_is():
    """A column that counts as given does not change with what is missing, and the next one does."""
    codec = MelCodec()
    sound = torch.linspace(0, 60, 6400).sin()[None, None]
    for first, last in ((2000, 3000), (0, 700), (5000, 6400)):
        kept = torch.ones(6400, dtype=torch.bool)
        kept[first:last] = False
        given = codec.wholly_given(kept)
        changed = (codec.encode(torch.where(kept, sound, 0.5)) != codec.encode(sound)).any(dim=1)[0]
        assert given.shape == (40,) and not (given & changed).any()
        assert (~given & ~changed).sum() <= 2, "at the edge of a window almost nothing is heard"
    assert torch.equal(PatchCodec().wholly_given(torch.tensor([True, False])), torch.tensor([True, False]))
