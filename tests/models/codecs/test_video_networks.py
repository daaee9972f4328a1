"""Codecs around diffusers' autoencoders: any length and size in, the same out, at the rates that they state."""

from fractions import Fraction

import pytest
import torch

from mmdiff.models.codecs import video_causal, video_frames
from mmdiff.models.codecs.video import VIDEO_CODECS
from tests.models.codecs.tiny_video import TINY, a_clip, tiny


@pytest.fixture(params=VIDEO_CODECS)
def codec(request):
    torch.set_grad_enabled(False)
    yield VIDEO_CODECS[request.param].from_network(tiny(request.param))
    torch.set_grad_enabled(True)


@pytest.mark.parametrize(("frames", "height", "width"), [(1, 16, 16), (7, 21, 37), (10, 32, 8)])
def test_what_goes_in_comes_out_to_the_frame_and_the_pixel(codec, frames, height, width):
    x = a_clip(frames, height, width)
    latent = codec.encode(x)
    assert tuple(latent.shape[1:]) == codec.latent_shape(frames, height, width)
    again = codec.decode(latent, frames, (height, width))
    assert again.shape == x.shape and again.abs().max() <= 1
    assert torch.equal(again, codec.reconstruct(x)), "encoding or decoding is not deterministic"
    assert codec.decode(latent).shape[2] == codec.num_held(latent.shape[2]) >= frames


def test_stated_rates_are_those_measured(codec):
    """Frames added for one more latent step, and pixels for one more row: counted on the bare network's own output."""
    first = int(codec.starts_with_one)
    frames = [first + steps * codec.temporal_factor for steps in (2, 4)]
    short, long = (codec.analyse(a_clip(f, 2 * codec.spatial_factor, 3 * codec.spatial_factor)) for f in frames)
    assert (short.shape[2], long.shape[2]) == (first + 2, first + 4)
    assert tuple(short.shape[3:]) == (2, 3) and short.shape[1] == codec.latent_channels == 4
    assert codec.latent_rate(Fraction(25)) == Fraction(frames[1] - frames[0], 1) ** -1 * 2 * 25
    assert codec.synthesise(long).shape[2:] == (frames[1], 2 * codec.spatial_factor, 3 * codec.spatial_factor)


def test_published_statistics_are_those_of_the_configuration(codec):
    expected = {
        "AutoencoderKL": (0.25, 2.0),
        "AutoencoderKLTemporalDecoder": (0.0, 1 / 0.18215),
        "AutoencoderKLCogVideoX": (0.0, 1 / 0.7),
        "AutoencoderKLWan": (TINY["AutoencoderKLWan"]["latents_mean"], TINY["AutoencoderKLWan"]["latents_std"]),
    }
    shift, scale = expected.get(codec.network_class, (0.0, 1.0))
    assert torch.allclose(codec.shift, torch.as_tensor(shift)) and torch.allclose(codec.scale, torch.as_tensor(scale))


def test_statistics_that_lie_with_the_weights_are_taken():
    network = tiny("AutoencoderKLLTXVideo", scaling_factor=0.5)
    network.latents_mean.copy_(torch.arange(4.0))
    network.latents_std.fill_(3.0)
    codec = VIDEO_CODECS["AutoencoderKLLTXVideo"].from_network(network)
    assert codec.shift.tolist() == [0, 1, 2, 3] and codec.scale.tolist() == [6] * 4


def test_fitted_latents_have_mean_0_and_deviation_1_in_every_channel(codec):
    clips = [a_clip(5, 17, 32), a_clip(9, 16, 24, seed=1)]
    assert codec.fit(clips) is codec
    latents = torch.cat([codec.encode(x).movedim(1, 0).flatten(1) for x in clips], dim=1)
    assert torch.allclose(latents.mean(1), torch.zeros(4), atol=1e-3)
    assert torch.allclose(latents.std(1, correction=0), torch.ones(4), atol=1e-3)
    raw = codec.analyse(codec.padded(clips[0]))
    assert torch.allclose(codec._denormalised(codec.encode(clips[0])), raw, atol=1e-5)


def test_a_channel_that_does_not_vary_is_refused(codec):
    with pytest.raises(ValueError, match="does not vary over 0 examples"):
        codec.fit([])


def test_a_long_clip_is_computed_frame_by_frame_as_if_at_once(monkeypatch):
    """Slices of an image autoencoder change nothing."""
    codec, x = VIDEO_CODECS["AutoencoderKL"].from_network(tiny("AutoencoderKL")), a_clip(11, 16, 16)
    latent = codec.encode(x)
    again = codec.decode(latent)
    monkeypatch.setattr(video_frames, "FRAMES_AT_ONCE", 3)
    assert torch.allclose(codec.encode(x), latent, atol=1e-5)
    assert torch.allclose(codec.decode(latent), again, atol=1e-5)


@pytest.mark.parametrize("name", ["AutoencoderKLLTXVideo", "AutoencoderKLLTX2Video"])
def test_slices_that_see_far_enough_put_every_frame_in_its_place(name, monkeypatch):
    quiet = {"timestep_conditioning": False, "decoder_inject_noise": (False,) * 4} if name.endswith("TXVideo") else {}
    codec, x = VIDEO_CODECS[name].from_network(tiny(name, **quiet)), a_clip(4 * 36 + 1, 16, 16)
    monkeypatch.setattr(video_causal, "STEPS_AT_ONCE", 37)
    latent = codec.encode(x)
    again = codec.decode(latent)
    monkeypatch.setattr(video_causal, "STEPS_AT_ONCE", 5)
    monkeypatch.setattr(video_causal, "CONTEXT_STEPS", 15)
    assert torch.allclose(codec.encode(x), latent, atol=1e-5)
    assert torch.allclose(codec.decode(latent), again, atol=1e-4)


def test_slices_hold_a_bounded_number_of_frames(monkeypatch):
    """However long the clip, the networks are given no more at once than slice and context."""
    for name in ("AutoencoderKL", "AutoencoderKLTemporalDecoder", "AutoencoderKLLTXVideo", "AutoencoderKLLTX2Video"):
        codec, seen = VIDEO_CODECS[name].from_network(tiny(name)), []
        for part in (codec.autoencoder.encoder, codec.autoencoder.decoder):
            part.register_forward_pre_hook(lambda _, args, seen=seen: seen.append(args[0].numel()))
        monkeypatch.setattr(video_causal, "STEPS_AT_ONCE", 2)
        monkeypatch.setattr(video_causal, "CONTEXT_STEPS", 1)
        most = []
        for frames in (49, 97):
            seen.clear()
            x = a_clip(frames, 16, 16)
            assert codec.reconstruct(x).shape == x.shape
            most.append(max(seen))
        assert most[0] == most[1], name


def test_an_event_stays_at_its_frame_through_a_causal_codec():
    """Latent steps before the step of a changed frame do not change: steps are counted as the network counts them."""
    for name in ("AutoencoderKLWan", "AutoencoderKLLTX2Video"):
        codec, x = VIDEO_CODECS[name].from_network(tiny(name)), a_clip(13, 16, 16)
        kept = torch.ones(13, dtype=torch.bool)
        kept[6:] = False
        changed = torch.where(kept[None, None, :, None, None], x, -x)
        differs = (codec.encode(changed) - codec.encode(x)).abs().amax((0, 1, 3, 4)) > 1e-6
        assert torch.equal(differs, ~codec.wholly_given(kept)), name


def test_another_classes_configuration_is_refused():
    config = {**TINY["AutoencoderKLWan"], "_class_name": "AutoencoderKLWan"}
    with pytest.raises(ValueError, match=r"CogVideoXCodec is for AutoencoderKLCogVideoX, .* that of AutoencoderKLWan"):
        VIDEO_CODECS["AutoencoderKLCogVideoX"](network=config)
    with pytest.raises(ValueError, match="makes 2 frames a step"):
        VIDEO_CODECS["AutoencoderKLWan"](network=config | {"temperal_downsample": [False, False, True]})
