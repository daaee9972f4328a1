"""Codecs around networks that hear log-mel spectrograms and a vocoder that makes them sound: AudioLDM, LTX-2."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from mmdiff.models.codecs.audio_network import NetworkAudioCodec, NetworkAudioCodecConfig
from mmdiff.models.codecs.audio_signal import log_mel, slaney_filters
from mmdiff.models.layers import configured_by

# What the published checkpoints' mel was made with, by the vocoder's sample rate: n_fft, and the lowest hertz.
PUBLISHED_MEL = {16_000: (1024, 0.0), 48_000: (2048, 20.0)}


@dataclass(frozen=True, kw_only=True)
class AudioLDMCodecConfig(NetworkAudioCodecConfig):
    """Settings of `AudioLDMCodec`: the vocoder's own, and the mel's where it is not the published one."""

    vocoder_config: dict[str, Any]
    n_fft: int | None = None
    f_min: float | None = None


class AudioLDMCodec(NetworkAudioCodec):
    """AudioLDM's autoencoder of log-mel pictures and its HiFi-GAN (Liu et al. 2023): one channel.

    diffusers' AutoencoderKL and transformers' SpeechT5HifiGan, which says what the mel's rate, bands and hop are. Mel
    column i is centred on sample (i + 1/2) hop, as HiFi-GAN and this autoencoder were trained. A latent's channels are
    the picture's channels times its rows. Latents have the published scale until they are fitted. The networks were
    trained on sound whose peak is 0.5; very quiet sound is outside of that.
    """

    @configured_by(AudioLDMCodecConfig)
    def __init__(self, config: AudioLDMCodecConfig):
        super().__init__()
        from diffusers import AutoencoderKL
        from transformers import SpeechT5HifiGan, SpeechT5HifiGanConfig

        self.network = AutoencoderKL.from_config(config.network_config)
        voice = SpeechT5HifiGanConfig(**config.vocoder_config)
        self.vocoder = SpeechT5HifiGan(voice)
        n_fft, f_min = PUBLISHED_MEL.get(voice.sampling_rate, (None, 0.0))
        self.n_fft, self.mel_hop = config.n_fft or n_fft, math.prod(voice.upsample_rates)
        if self.n_fft is None:
            raise ValueError(f"codec: no AudioLDM at {voice.sampling_rate} Hz is known; give the mel's n_fft and f_min")
        self.reduction = 2 ** (len(self.network.config.block_out_channels) - 1)
        if voice.model_in_dim % self.reduction or self.network.config.in_channels != 1:
            raise ValueError(f"codec: a vocoder of {voice.model_in_dim} mel bands and an autoencoder of "
                             f"{self.network.config.in_channels} channels that divides them by {self.reduction} "
                             "do not belong together; give those of one AudioLDM folder")  # fmt: skip
        self._set_rates(config, rate=voice.sampling_rate, channels=1, hop_length=self.mel_hop * self.reduction)
        f_min = f_min if config.f_min is None else config.f_min
        filters = slaney_filters(voice.sampling_rate, self.n_fft, voice.model_in_dim, f_min, voice.sampling_rate / 2)
        self.register_buffer("filters", filters, persistent=False)
        self.rows = voice.model_in_dim // self.reduction
        width = self.network.config.latent_channels * self.rows
        self._set_statistics(torch.zeros(width), torch.full((width,), 1 / self.network.config.scaling_factor))

    def mel(self, x: Tensor) -> Tensor:
        """Return the log-mel picture `b 1 l m` of sound of whole hops at the network's rate."""
        return log_mel(x, self.filters, self.n_fft, self.mel_hop, (self.n_fft - self.mel_hop) // 2)[
            :, :, : x.shape[-1] // self.mel_hop
        ]

    def analyse(self, x: Tensor) -> Tensor:
        latent = self.network.encode(self.mel(x).to(x.dtype)).latent_dist.mode()
        return rearrange(latent, "b c l m -> b (c m) l")

    def sound(self, latent: Tensor) -> Tensor:
        picture = self.network.decode(rearrange(latent, "b (c m) l -> b c l m", m=self.rows)).sample
        return self.vocoder(rearrange(picture, "b 1 l m -> b l m"))[:, None]


@dataclass(frozen=True, kw_only=True)
class LTX2AudioCodecConfig(NetworkAudioCodecConfig):
    """Settings of `LTX2AudioCodec`: the vocoder's own, and the mel's.

    `vocoder_config` names its class, LTX2Vocoder or LTX2VocoderWithBWE (which makes 48 kHz), under `_class_name`.
    """

    vocoder_config: dict[str, Any]
    n_fft: int = 1024


class LTX2AudioCodec(NetworkAudioCodec):
    """LTX-2's autoencoder of log-mel pictures and its vocoder (HaCohen et al. 2026), both of diffusers.

    It hears 16 kHz and makes 24 or 48 kHz. It is causal: the first latent is one mel column, centred on the first
    sample, and every further one four (so `starts_with_one`). Latents have the published mean and deviation until they
    are fitted; their channels are the picture's channels times its rows, as LTX-2's transformer takes them.
    """

    starts_with_one = True

    @configured_by(LTX2AudioCodecConfig)
    def __init__(self, config: LTX2AudioCodecConfig):
        super().__init__()
        from diffusers import AutoencoderKLLTX2Audio

        self.network = AutoencoderKLLTX2Audio.from_config(config.network_config)
        self.vocoder = _ltx2_vocoder(config.vocoder_config)
        inner, columns = self.network.config, self.network.temporal_compression_ratio
        self.n_fft, self.mel_hop = config.n_fft, inner.mel_hop_length
        self._set_rates(
            config, rate=inner.sample_rate, channels=inner.in_channels, hop_length=self.mel_hop * columns,
            made_rate=self.vocoder.config.output_sampling_rate,
        )  # fmt: skip
        self._check_parts()
        filters = slaney_filters(inner.sample_rate, config.n_fft, inner.mel_bins, 0.0, inner.sample_rate / 2)
        self.register_buffer("filters", filters, persistent=False)
        self.rows = inner.mel_bins // self.network.mel_compression_ratio
        width = inner.latent_channels * self.rows
        self._set_statistics(torch.zeros(width), torch.ones(width))

    def _check_parts(self) -> None:
        axis, voice = self.network.config.causality_axis, getattr(self.vocoder, "vocoder", self.vocoder).config
        if axis != "height":
            raise ValueError(f"codec: LTX-2's audio autoencoder is causal over time (causality_axis 'height'); "
                             f"this one says {axis!r}")  # fmt: skip
        made, heard = math.prod(voice.upsample_factors) * self.network_rate, self.mel_hop * voice.output_sampling_rate
        if made != heard:
            raise ValueError(f"codec: the vocoder makes {math.prod(voice.upsample_factors)} samples a mel column at "
                             f"{voice.output_sampling_rate} Hz; the autoencoder's columns are {self.mel_hop} apart at "
                             f"{self.network_rate} Hz; give those of one LTX-2 folder")  # fmt: skip

    def take_published_statistics(self) -> None:
        stated = len(self.network.latents_mean)
        if stated != len(self.shift):
            raise ValueError(f"codec: the file states the mean of {stated} latent channels, and there are "
                             f"{len(self.shift)}; give LTX-2's own audio_vae")  # fmt: skip
        self.shift.copy_(self.network.latents_mean)
        self.scale.copy_(self.network.latents_std)

    def mel(self, x: Tensor) -> Tensor:
        """Return the log-mel picture `b c l m` of sound at the network's rate; column i is centred on sample i hop."""
        return log_mel(x, self.filters, self.n_fft, self.mel_hop, self.n_fft // 2)[
            :, :, : 1 + (x.shape[-1] - 1) // self.mel_hop
        ]

    def analyse(self, x: Tensor) -> Tensor:
        latent = self.network.encode(self.mel(x).to(x.dtype)).latent_dist.mode()
        return rearrange(latent, "b c l m -> b (c m) l")

    def sound(self, latent: Tensor) -> Tensor:
        return self.vocoder(self.network.decode(rearrange(latent, "b (c m) l -> b c l m", m=self.rows)).sample)


def _ltx2_vocoder(settings: dict[str, Any]) -> torch.nn.Module:
    from diffusers.pipelines.ltx2.vocoder import LTX2Vocoder, LTX2VocoderWithBWE

    kinds = {kind.__name__: kind for kind in (LTX2Vocoder, LTX2VocoderWithBWE)}
    name = settings.get("_class_name", "LTX2Vocoder")
    if name not in kinds:
        raise ValueError(f"codec: the vocoder is {name!r}; LTX-2's are {' and '.join(kinds)}")
    return kinds[name].from_config({key: value for key, value in settings.items() if key != "_class_name"})
