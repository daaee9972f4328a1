"""Codecs around foreign sound networks: n samples in, n samples out, at their place."""

from fractions import Fraction

import pytest
import torch
from einops import rearrange

from mmdiff.models.codecs.audio_spectral import AudioLDMCodec, LTX2AudioCodec
from mmdiff.models.codecs.audio_wave import DacCodec, EncodecCodec, OobleckCodec
from tests.models.codecs import tiny_audio as tiny

CODECS = {  # class, networks and settings, latent steps a second at any clip rate
    "oobleck": (OobleckCodec, lambda: {"network": tiny.oobleck()}, Fraction(44_100, 40)),
    "dac": (DacCodec, lambda: {"network": tiny.dac()}, 400),
    "dac-quantised": (DacCodec, lambda: {"network": tiny.dac(), "variant": "quantised"}, 400),
    "encodec": (EncodecCodec, lambda: {"network": tiny.encodec()}, 600),
    "encodec-quantised": (EncodecCodec, lambda: {"network": tiny.encodec(), "variant": "quantised"}, 600),
    "encodec-48khz": (EncodecCodec, lambda: {"network": tiny.encodec_48khz()}, 1200),
    "audioldm": (AudioLDMCodec, lambda: {**tiny.audioldm(), "n_fft": 512}, 25),
    "ltx2": (LTX2AudioCodec, lambda: {**tiny.ltx2(), "n_fft": 512}, 25),
    "ltx2-wide": (LTX2AudioCodec, lambda: {**tiny.ltx2(wide=True), "n_fft": 512}, 25),
}


def make(name: str, sample_rate: int = 16_000, channels: int = 1):
    codec_class, parts, _ = CODECS[name]
    return codec_class.from_networks(sample_rate=sample_rate, channels=channels, **parts())


@pytest.mark.parametrize("name", CODECS)
@torch.no_grad()
def test_as_many_samples_come_out_as_went_in(name):
    """Any rate, channel count and odd length; and latents are as many and as fast as the codec states."""
    stated_rate = CODECS[name][2]
    for rate, channels in ((16_000, 1), (22_050, 2), (44_100, 1), (48_000, 2)):
        codec = make(name, rate, channels)
        assert codec.sample_rate == rate and codec.latent_rate(rate) == stated_rate
        for num_samples in (1, 777, rate // 10, 4801):
            sound = tiny.noise(num_samples, channels)
            latent = codec.encode(sound)
            assert tuple(latent.shape[1:]) == codec.latent_shape(num_samples)
            assert latent.shape[1] == codec.latent_channels
            again = codec.decode(latent, num_samples)
            assert again.shape == sound.shape and again.isfinite().all()
            held = codec.num_held(latent.shape[-1])
            assert codec.decode(latent).shape[-1] == held >= num_samples
        measured = (codec.encode(tiny.noise(rate, channels)).shape[-1] - codec.starts_with_one) / 1
        assert 0 <= measured - stated_rate < 1, "steps in a second of sound"


@pytest.mark.parametrize("name", CODECS)
@torch.no_grad()
def test_what_is_heard_comes_back_and_saving_keeps_it(name, tmp_path):
    codec = make(name, 22_050)
    sounds = [tiny.noise(4001, 1, seed) for seed in range(3)]
    assert (codec.encode(sounds[0]) - codec.encode(sounds[1])).abs().max() > 1e-3, "the network is dead"
    codec.fit(sounds)
    latent = torch.cat([codec.encode(sound) for sound in sounds], dim=-1)
    assert latent.mean((0, 2)).abs().max() < 1e-2
    assert (latent.std((0, 2)) - 1).abs().max() < 0.1
    codec.save_pretrained(tmp_path)
    again = type(codec).from_pretrained(tmp_path)
    assert again.sample_rate == 22_050 and again.temporal_factor == codec.temporal_factor
    assert torch.allclose(again.encode(sounds[0]), codec.encode(sounds[0]), atol=1e-5)
    assert torch.allclose(again.reconstruct(sounds[0]), codec.reconstruct(sounds[0]), atol=1e-5)


@pytest.mark.parametrize("name", ["oobleck", "dac", "encodec"])
@torch.no_grad()
def test_a_codec_moves_with_its_sound(name):
    """Sound that begins whole steps later comes back so many samples later: nothing drifts."""
    codec = make(name, 44_100)
    shift = codec.temporal_factor.numerator  # whole steps that are whole samples
    sound = torch.zeros(1, 1, 30_000)
    sound[..., 12_000:14_000] = 5 * tiny.noise(2000, 1)
    quiet = codec.reconstruct(torch.zeros_like(sound))
    heard, later = (codec.reconstruct(x) - quiet for x in (sound, sound.roll(shift, -1)))
    middle, loudest = slice(10_000, 18_000), heard.abs().max()
    assert (later - heard)[..., middle].abs().max() > 0.3 * loudest
    error = (later.roll(-shift, -1) - heard)[..., middle].abs().max()
    assert error < 1e-2 * loudest


@torch.no_grad()
def evened(network: torch.nn.Module) -> torch.nn.Module:
    """Let every convolution average what it sees, so that a click comes out as a smooth hill at the click's place."""
    for module in network.modules():
        if isinstance(module, (torch.nn.Conv1d, torch.nn.ConvTranspose1d)):
            taps = module.kernel_size[0] * module.in_channels
            if hasattr(module, "weight_g"):
                module.weight_v.fill_(1.0)
                module.weight_g.fill_(module.weight_v[0].numel() ** 0.5 / taps)
            else:
                module.weight.fill_(1 / taps)
            if module.bias is not None:
                module.bias.zero_()
    return network


@pytest.mark.parametrize(("name", "rate"), [("oobleck", 44_100), ("oobleck", 16_000), ("dac", 16_000), ("dac", 44_100)])
@torch.no_grad()
def test_the_measured_delay_is_zero(name, rate):
    """Over clicks at every place within a step, the hills that come back lie on average where the clicks were."""
    codec_class, parts, _ = CODECS[name]
    codec = codec_class.from_networks(network=evened(parts()["network"]), sample_rate=rate, channels=1)
    length, span = round(6000 * rate / codec.network_rate), float(3 * codec.temporal_factor)
    places = torch.tensor([length // 2 + round(span * k / 60) for k in range(60)])
    clicks = 1e-3 * torch.nn.functional.one_hot(places, length)[:, None].float()
    hills = (codec.reconstruct(clicks) - codec.reconstruct(torch.zeros(1, 1, length)))[:, 0].double()
    delays = (hills * torch.arange(length)).sum(1) / hills.sum(1) - places
    assert abs(delays.mean()) < 0.5, f"late by {delays.mean():.2f} samples"


@torch.no_grad()
def test_mel_columns_hear_what_they_stand_for():
    """A click is loudest in the column that AudioLDM's and LTX-2's vocoder make it from again."""
    for codec, column in ((make("audioldm"), 20), (make("ltx2"), 20)):
        centre = column * 160 + (80 if isinstance(codec, AudioLDMCodec) else 0)
        click = torch.zeros(1, codec.network_channels, 6401)
        click[..., centre] = 1
        loudness = codec.mel(click).exp().sum(dim=(0, 1, 3))
        assert int(loudness.argmax()) == column
        assert torch.allclose(loudness[column - 1], loudness[column + 1], rtol=1e-3)


def test_sound_of_another_rate_or_channel_count_is_refused():
    codec = make("oobleck", 16_000)
    assert (codec.sample_rate, codec.network_rate) == (16_000, 44_100)
    with pytest.raises(ValueError, match="at 16000 Hz, not 44100 Hz"):
        codec.latent_rate(44_100)
    with pytest.raises(ValueError, match="has 2 channels"):
        codec.encode(torch.zeros(1, 2, 100))
    with pytest.raises(ValueError, match="give channels 1 or 2"):
        make("dac", 16_000, 6)
    with pytest.raises(ValueError, match="variant is 'fine'"):
        DacCodec.from_networks(network=tiny.dac(), sample_rate=16_000, channels=1, variant="fine")


@torch.no_grad()
def test_a_clip_at_another_rate_is_heard_at_its_pitch_by_the_network():
    """What was published wrong: a codec of 44.1 kHz was given 16 kHz sound as it was."""
    codec = make("oobleck", 16_000)
    tone = torch.sin(2 * torch.pi * 1000 * torch.arange(16_000) / 16_000)[None, None]
    heard = codec.padded(tone)
    assert heard.shape[1] == 2 and heard.shape[-1] % 40 == 0
    spectrum = torch.fft.rfft(heard[0, 0, :44_100]).abs()
    assert int(spectrum.argmax()) == 1000, "hertz, of one second"


@torch.no_grad()
def test_quantised_latents_are_sums_of_code_vectors():
    network = tiny.encodec()
    codec = EncodecCodec.from_networks(network=network, sample_rate=24_000, channels=1, variant="quantised")
    sound = tiny.noise(2400, 1)
    codes = network.encode(sound, bandwidth=4.8).audio_codes[0].transpose(0, 1)
    assert len(codes.unique()) > 3, "the codebooks are dead"
    assert torch.allclose(codec.encode(sound), network.quantizer.decode(codes), atol=1e-5)
    expected = network(sound, bandwidth=4.8).audio_values
    assert torch.allclose(codec.reconstruct(sound), expected.clamp(-1, 1), atol=1e-5)


@torch.no_grad()
def test_dac_reconstructs_as_transformers_does():
    network = tiny.dac()
    codec = DacCodec.from_networks(network=network, sample_rate=16_000, channels=1, variant="quantised")
    sound = tiny.noise(2400, 1)
    expected = network(sound).audio_values
    assert torch.allclose(codec.reconstruct(sound)[:, 0, :1200], expected[:, :1200], atol=1e-5)
    assert codec.train().training is False


@torch.no_grad()
def test_encodec_windows_fade_into_each_other():
    """A clip within one window is as published; a longer one keeps the loudness of its parts and has no seams."""
    network = tiny.encodec_48khz()
    codec = EncodecCodec.from_networks(network=network, sample_rate=48_000, channels=2)
    short = tiny.noise(960, 2)
    scale = short.mean(1, keepdim=True).square().mean(-1, keepdim=True).sqrt() + 1e-8
    expected = network.decoder(network.encoder(short / scale)) * scale
    assert torch.allclose(codec.reconstruct(short), expected.clamp(-1, 1), atol=1e-5)
    long = torch.cat([short, short * 0.01, short * 0.01, short], dim=-1)
    latent = codec.encode(long)
    assert latent.shape[-1] == 96 and latent[0, -1, 55] < latent[0, -1, 5] - 3
    again = codec.reconstruct(long)
    assert again[..., 2000:2500].abs().max() < 0.1 * again[..., :800].abs().max()


def test_networks_that_do_not_belong_together_are_refused():
    parts = tiny.ltx2()
    parts["vocoder"].register_to_config(output_sampling_rate=16_000)
    with pytest.raises(ValueError, match="240 samples a mel column at 16000 Hz"):
        LTX2AudioCodec.from_networks(sample_rate=16_000, channels=1, **parts)
    parts = tiny.ltx2()
    parts["network"].latents_mean = torch.zeros(5)
    with pytest.raises((ValueError, RuntimeError), match="5"):
        LTX2AudioCodec.from_networks(sample_rate=16_000, channels=1, **parts)


@torch.no_grad()
def test_audioldm_decodes_as_its_pipeline_does():
    """diffusers' AudioLDMPipeline: latents `b c l m` divided by scaling_factor, decoded, made sound, cut at the end."""
    parts = tiny.audioldm()
    codec = AudioLDMCodec.from_networks(**parts, sample_rate=16_000, channels=1, n_fft=512)
    latent = torch.randn(1, 2, 3, 4, generator=torch.Generator().manual_seed(0))
    expected = parts["vocoder"](parts["network"].decode(latent / 0.9).sample[:, 0])
    assert expected.shape[-1] == 3 * 640 + 32, "HiFi-GAN makes a little more than the mel lasts"
    found = codec.decode(rearrange(latent, "b c l m -> b (c m) l"))
    assert torch.allclose(found[:, 0], expected[:, : 3 * 640].clamp(-1, 1), atol=1e-5)
    with pytest.raises(ValueError, match="no AudioLDM at 22050 Hz is known"):
        codec.from_config({**codec.config, "vocoder_config": {**codec.config.vocoder_config, "sampling_rate": 22_050},
                           "n_fft": None})  # fmt: skip


@torch.no_grad()
def test_ltx2_decodes_as_its_pipeline_does():
    """Our latents are those of LTX-2's transformer, `b s d` turned; the sound is stereo at 24 kHz."""
    from diffusers import LTX2Pipeline

    parts = tiny.ltx2()
    codec = LTX2AudioCodec.from_networks(**parts, sample_rate=24_000, channels=2, n_fft=512)
    packed = torch.randn(1, 5, 8, generator=torch.Generator().manual_seed(0))
    network = parts["network"]
    latent = LTX2Pipeline._denormalize_audio_latents(packed, network.latents_mean, network.latents_std)
    latent = LTX2Pipeline._unpack_audio_latents(latent, 5, num_mel_bins=4)
    expected = parts["vocoder"](network.decode(latent).sample)
    assert expected.shape == (1, 2, 17 * 240)
    found = codec.decode(packed.mT)
    assert found.shape[-1] == 4 * 960 + 1
    assert torch.allclose(found, expected[..., : found.shape[-1]].clamp(-1, 1), atol=1e-5)
