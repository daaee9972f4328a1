"""Our own autoencoders: what goes in comes out, as long, at the same moment, and at unit scale in between."""

from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mmdiff.checkpoint import load_part, save_parts
from mmdiff.eval.sync import audio_onsets
from mmdiff.models.codecs.frame_autoencoder import FrameAutoencoder
from mmdiff.models.codecs.wave_autoencoder import LappedTransform, WaveAutoencoder

SMALL = {"latent_channels": 16, "outer_channels": 8, "inner_channels": 16, "outer_blocks": 1, "encoder_blocks": 1,
         "decoder_blocks": 2}  # fmt: skip
QUIET = {"channels": 16, "encoder_blocks": 1, "decoder_blocks": 2}


def footage(frames: int = 6, height: int = 32, width: int = 32) -> Tensor:
    """Bright discs that cross a dark picture, each at its own pace, with a little grain, `3 3 f h w`."""
    generator = torch.Generator().manual_seed(0)
    down, across = torch.arange(height)[:, None], torch.arange(width)
    clips = []
    for number in range(3):
        centres = [(4 + (2 + number) * f, 8 + 6 * number) for f in range(frames)]
        discs = [(6 - ((across - x) ** 2 + (down - y) ** 2).sqrt()).clamp(-1, 1) for x, y in centres]
        clips.append(0.8 * torch.stack(discs).expand(3, -1, -1, -1))
    return torch.stack(clips) + 0.05 * torch.randn(3, 3, frames, height, width, generator=generator)


def knocks(times: list[float], num_samples: int = 16_000, sample_rate: int = 16_000) -> Tensor:
    """Knocks that begin at the given seconds: a low tone and a burst of noise, over a faint hiss, `1 1 n`."""
    generator = torch.Generator().manual_seed(0)
    axis = torch.arange(num_samples) / sample_rate
    wave = 1e-3 * torch.randn(num_samples, generator=generator)
    for time in times:
        later = (axis - time).clamp(min=0)
        burst = 0.1 * torch.randn(num_samples, generator=generator) * torch.exp(-later * 150)
        tone = 0.5 * torch.exp(-later * 25) * torch.sin(2 * torch.pi * 300 * later)
        wave += (axis >= time) * (tone + burst)
    return wave[None, None]


@pytest.fixture(scope="module")
def video_codec() -> FrameAutoencoder:
    torch.manual_seed(0)
    return FrameAutoencoder(**SMALL).begin_linear([footage()]).eval()


@pytest.fixture(scope="module")
def audio_codec() -> WaveAutoencoder:
    torch.manual_seed(0)
    sounds = [knocks([0.1 + 0.0013 * i, 0.4 + 0.0021 * i, 0.7 + 0.0017 * i]) for i in range(20)]
    return WaveAutoencoder(**QUIET).begin_linear(sounds).eval()


def stirred(codec):
    """Give the layers that begin as nothing something to say."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in codec.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return codec


def test_pictures_begin_as_principal_components(video_codec):
    video = footage()
    latent = video_codec.encode(video)
    assert tuple(latent.shape[1:]) == video_codec.latent_shape(6, 32, 32) == (16, 6, 4, 4)
    assert (video_codec.decode(latent) - video).square().mean() < 0.02
    channels = latent.transpose(0, 1).flatten(1)
    assert channels.mean(1).abs().max() < 1e-3
    assert (channels.std(1) - 1).abs().max() < 1e-2


@pytest.mark.parametrize("factor", [1, 2])
@pytest.mark.parametrize(("frames", "height", "width"), [(5, 32, 32), (1, 20, 28), (4, 33, 9)])
def test_pictures_of_any_size_come_back_in_their_size(factor, frames, height, width):
    codec = FrameAutoencoder(**SMALL, temporal_factor=factor)
    video = footage(frames, height, width)
    latent = codec.encode(video)
    assert tuple(latent.shape[1:]) == codec.latent_shape(frames, height, width)
    assert latent.shape[2] == -(-frames // factor)
    assert codec.decode(latent, frames, (height, width)).shape == video.shape
    assert codec.latent_rate(10) * factor == 10


def test_latents_are_of_their_frame_and_pictures_of_their_neighbours_too():
    codec, video = stirred(FrameAutoencoder(**SMALL)), footage()
    other = video.clone()
    other[:, :, 3] = -1
    before, after = codec.encode(video), codec.encode(other)
    changed = (before - after).abs().amax((0, 1, 3, 4)) > 1e-4
    assert changed.tolist() == [False, False, False, True, False, False]
    latent = before.clone()
    latent[:, :, 3] += 1
    decoded = (codec.synthesise(latent) - codec.synthesise(before)).abs().amax((0, 1, 3, 4))
    assert (decoded[[1, 2, 3, 4, 5]] > 1e-4).all(), "the decoder does not see the neighbours"


def test_the_lapped_transform_is_exact_to_both_ends():
    wave = torch.randn(2, 1200, generator=torch.Generator().manual_seed(0))
    transform = LappedTransform(40)
    lines = transform(wave)
    assert lines.shape == (2, 40, 30)
    assert torch.allclose(transform.inverse(lines), wave, atol=1e-5)
    one = torch.zeros(1, 40, 30)
    one[0, 7, 12] = 1
    assert torch.allclose(transform(transform.inverse(one)), one, atol=1e-5)


@pytest.mark.parametrize("length", [200, 1, 1599, 16_001])
def test_sound_of_any_length_comes_back_as_long(audio_codec, length):
    latent = audio_codec.encode(knocks([0.05], length))
    assert tuple(latent.shape[1:]) == audio_codec.latent_shape(length) == (48, -(-length // 200))
    assert audio_codec.decode(latent, length).shape == (1, 1, length)
    assert audio_codec.decode(latent).shape[-1] % 200 == 0
    assert audio_codec.latent_rate(16_000) == 80


def test_sound_begins_as_wave_and_noise_of_the_right_level(audio_codec):
    sound = knocks([0.13, 0.51, 0.77])
    latent = audio_codec.encode(sound)
    with torch.no_grad():
        wave, noise = audio_codec.parts(audio_codec._denormalised(latent))
    assert (wave - sound).square().sum() < 0.2 * sound.square().sum()
    hiss = slice(400, 1600)  # before the first knock
    assert 0.2 < noise[..., hiss].square().mean() / sound[..., hiss].square().mean() < 2
    assert torch.equal(audio_codec.decode(latent), audio_codec.decode(latent))


def test_a_click_stays_at_its_sample_and_a_knock_within_five_milliseconds(audio_codec):
    """Not at the nearest step, which may be 100 samples away: wherever in a step the sound falls."""
    sizes = {"hop_length": 40, "wave_channels": 39, "latent_channels": 43}
    whole = WaveAutoencoder(**QUIET, **sizes).begin_linear([knocks([0.1, 0.35, 0.6])])
    for sample in (4000, 4037, 4099, 4160, 4199):
        click = torch.zeros(1, 1, 8000)
        click[..., sample] = 0.8
        assert whole.decode(whole.encode(click)).argmax() == sample
        sound = knocks([sample / 16_000])
        (before,), (after,) = (audio_onsets(x[0].detach().numpy(), 16_000) for x in
                               (sound, audio_codec.decode(audio_codec.encode(sound))))  # fmt: skip
        assert abs(after - before) < 0.005


def test_sound_that_is_given_has_exact_latents():
    codec, sound = stirred(WaveAutoencoder(**QUIET)), knocks([0.1, 0.3], 6400)
    for first, last in ((2000, 3000), (0, 700), (5000, 6400), (3215, 3216)):
        kept = torch.ones(6400, dtype=torch.bool)
        kept[first:last] = False
        given = codec.wholly_given(kept)
        changed = (codec.encode(torch.where(kept, sound, 0.5)) != codec.encode(sound)).any(dim=1)[0]
        assert given.shape == (32,) and torch.equal(given, ~changed)


def test_codecs_survive_saving(tmp_path):
    codecs = {
        "video_codec": stirred(FrameAutoencoder(**SMALL).begin_linear([footage()])),
        "audio_codec": stirred(WaveAutoencoder(**QUIET).begin_linear([knocks([0.1, 0.6])])),
    }
    save_parts(tmp_path / "codecs", codecs)
    for name, x in (("video_codec", footage()), ("audio_codec", knocks([0.4]))):
        again = load_part(tmp_path / "codecs", name)
        assert asdict(again.settings) == asdict(codecs[name].settings)
        latent = codecs[name].encode(x)
        assert torch.equal(again.encode(x), latent)
        assert torch.equal(again.decode(latent), codecs[name].decode(latent))


def test_fitting_again_changes_the_scale_and_nothing_else(video_codec):
    codec = stirred(FrameAutoencoder(**SMALL).begin_linear([footage()]))
    video = footage()
    decoded = codec.decode(codec.encode(video))
    codec.fit([video[:1]])
    assert torch.allclose(codec.decode(codec.encode(video)), decoded, atol=1e-4)
    assert abs(codec.encode(video[:1]).std() - 1) < 1e-2


@pytest.mark.parametrize("settings", [{"hop_length": 210}, {"wave_channels": 48}, {"num_levels": 7}])
def test_impossible_settings_are_refused(settings):
    with pytest.raises(ValueError, match="codec:"):
        WaveAutoencoder(**settings)
    with pytest.raises(ValueError, match="mono"):
        WaveAutoencoder(**QUIET).encode(torch.zeros(1, 2, 400))
    with pytest.raises(ValueError, match="choose from 1 to 192"):
        FrameAutoencoder(latent_channels=193)


def test_the_released_codecs_load_and_keep_unseen_footage():
    folder = Path(__file__).resolve().parents[3] / "checkpoints" / "codec-impacts"
    video, audio = footage(4, 64, 64)[:1].clamp(-1, 1), knocks([0.13, 0.51, 0.77], 25_600)
    codec = load_part(folder, "video_codec")
    decoded = codec.reconstruct(video)
    assert decoded.shape == video.shape and (decoded - video).square().mean() < 0.02
    codec = load_part(folder, "audio_codec")
    decoded = codec.reconstruct(audio)
    assert decoded.shape == audio.shape
    before, after = (audio_onsets(x[0].detach().numpy(), 16_000) for x in (audio, decoded))
    assert len(before) == len(after) == 3 and abs(after - before).max() < 0.005
