"""Codecs around networks that hear and make waveforms: Oobleck (Stable Audio), EnCodec, DAC."""

from dataclasses import dataclass

import torch
from torch import Tensor

from mmdiff.models.codecs.audio_network import NetworkAudioCodec, NetworkAudioCodecConfig, with_tail
from mmdiff.models.layers import configured_by

VARIANTS = ("continuous", "quantised")


@dataclass(frozen=True, kw_only=True)
class QuantisedCodecConfig(NetworkAudioCodecConfig):
    """Settings of a codec whose network has codebooks: which of two things is a latent.

    `variant`: "continuous", what the encoder says, or "quantised", the sum of the code vectors nearest to it. Latents
    are decoded as they are given: what a diffusion model makes is no exact sum of code vectors, nor made one.
    """

    variant: str = "continuous"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.variant not in VARIANTS:
            raise ValueError(f"codec: variant is {self.variant!r}; use {' or '.join(VARIANTS)}")


class OobleckCodec(NetworkAudioCodec):
    """Stable Audio's autoencoder (Evans et al. 2024; diffusers' AutoencoderOobleck): the mean of its posterior."""

    @configured_by(NetworkAudioCodecConfig)
    def __init__(self, config: NetworkAudioCodecConfig):
        super().__init__()
        from diffusers import AutoencoderOobleck

        self.network = AutoencoderOobleck.from_config(config.network_config)
        inner = self.network.config
        self._set_rates(
            config, rate=inner.sampling_rate, channels=inner.audio_channels, hop_length=self.network.hop_length
        )
        width = inner.decoder_input_channels
        self._set_statistics(torch.zeros(width), torch.ones(width))

    def analyse(self, x: Tensor) -> Tensor:
        return self.network.encode(x).latent_dist.mode()

    def sound(self, latent: Tensor) -> Tensor:
        return self.network.decode(with_tail(latent, self.network.downsampling_ratios)).sample


class DacCodec(NetworkAudioCodec):
    """Descript's audio codec (Kumar et al. 2023; transformers' DacModel), one channel, all of its codebooks."""

    @configured_by(QuantisedCodecConfig)
    def __init__(self, config: QuantisedCodecConfig):
        super().__init__()
        from transformers import DacConfig, DacModel

        inner = DacConfig(**config.network_config)
        self.network = DacModel(inner).eval()
        self.is_quantised = config.variant == "quantised"
        self._set_rates(config, rate=inner.sampling_rate, channels=1, hop_length=inner.hop_length)
        self._set_statistics(torch.zeros(inner.hidden_size), torch.ones(inner.hidden_size))

    def analyse(self, x: Tensor) -> Tensor:
        latent = self.network.encoder(x)
        return self.network.quantizer(latent)[0] if self.is_quantised else latent

    def sound(self, latent: Tensor) -> Tensor:
        return self.network.decoder(with_tail(latent, self.network.config.downsampling_ratios))


class EncodecCodec(NetworkAudioCodec):
    """EnCodec (Défossez et al. 2022; transformers' EncodecModel), at its highest bandwidth where it is quantised.

    A network that normalises loudness (that of 48 kHz) has one latent channel more: the logarithm of what it divided
    by. One that hears windows of a second still has latents on one grid: windows begin at whole steps, overlap by two
    (as published, by a hundredth), and fade into each other.
    """

    @configured_by(QuantisedCodecConfig)
    def __init__(self, config: QuantisedCodecConfig):
        super().__init__()
        from transformers import EncodecConfig, EncodecModel

        inner = EncodecConfig(**config.network_config)
        self.network = EncodecModel(inner).eval()
        self.is_quantised = config.variant == "quantised"
        self._set_rates(config, rate=inner.sampling_rate, channels=inner.audio_channels, hop_length=inner.hop_length)
        width = inner.hidden_size + inner.normalize
        self._set_statistics(torch.zeros(width), torch.ones(width))
        self.window = inner.chunk_length and max(4, inner.chunk_length // inner.hop_length)
        self.overlap = 2

    def analyse(self, x: Tensor) -> Tensor:
        steps, half, pieces = x.shape[-1] // self.hop_length, self.overlap // 2, []
        for first, last in self._windows(steps):
            latent = self._analyse_window(x[..., first * self.hop_length : last * self.hop_length])
            pieces.append(latent[..., half * (first > 0) : latent.shape[-1] - half * (last < steps)])
        return torch.cat(pieces, dim=-1)

    def sound(self, latent: Tensor) -> Tensor:
        steps, faded, half = latent.shape[-1], self.overlap * self.hop_length, self.overlap // 2
        rising = (torch.arange(faded, device=latent.device) + 0.5) / faded
        whole = latent.new_zeros(latent.shape[0], self.network_channels, steps * self.hop_length)
        for first, last in self._windows(steps):
            own = slice(half * (first > 0), last - first - half * (last < steps))
            piece = self._window_sound(latent[..., first:last], own)[..., : (last - first) * self.hop_length]
            weight = torch.ones_like(piece[0, 0])
            if first > 0:
                weight[:faded] *= rising
            if last < steps:
                weight[-faded:] *= rising.flip(0)
            whole[..., first * self.hop_length : last * self.hop_length] += weight * piece
        return whole

    def _windows(self, steps: int) -> list[tuple[int, int]]:
        """Return where windows of latent steps begin and end."""
        if not self.window or steps <= self.window:
            return [(0, steps)]
        starts = range(0, steps - self.overlap, self.window - self.overlap)
        return [(first, min(first + self.window, steps)) for first in starts]

    def _analyse_window(self, x: Tensor) -> Tensor:
        loudness = None
        if self.network.config.normalize:
            loudness = x.mean(1, keepdim=True).square().mean(-1, keepdim=True).sqrt() + 1e-8
            x = x / loudness
        latent = self.network.encoder(x)
        if self.is_quantised:
            quantizer = self.network.quantizer
            latent = quantizer.decode(quantizer.encode(latent))
        if loudness is None:
            return latent
        return torch.cat([latent, loudness.log().expand(-1, -1, latent.shape[-1])], dim=1)

    def _window_sound(self, latent: Tensor, own: slice) -> Tensor:
        """Return a window's sound; the steps `own` say how loud it is, for the others are shared with a neighbour."""
        if not self.network.config.normalize:
            return self.network.decoder(latent)
        loudness = latent[:, -1:, own].mean(-1, keepdim=True).clamp(max=4).exp()
        return self.network.decoder(latent[:, :-1]) * loudness
