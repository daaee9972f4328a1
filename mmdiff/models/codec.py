"""Codecs: what the joint model diffuses instead of pixels and waveforms. One interface, `encode` and `decode`."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from einops import rearrange
from torch import Tensor, nn

from mmdiff.models.layers import GroupNorm, configured_by, zeroed
from mmdiff.models.mel import griffin_lim, linear_magnitude, log_mel, mel_filters


class Codec(ModelMixin, ConfigMixin):
    """Turn one modality into latents and back.

    Video `b c f h w` and audio `b c n` are float in [-1, 1]; latents are `b c f h w` and `b c l` of about unit scale.
    """

    config_name = "config.json"
    modality: str

    def encode(self, x: Tensor) -> Tensor:
        """Return the latents of `x`."""
        raise TypeError(f"{type(self).__name__} does not encode")

    def decode(self, latent: Tensor) -> Tensor:
        """Return the picture or sound of the latents."""
        raise TypeError(f"{type(self).__name__} does not decode")


@dataclass(frozen=True)
class PixelCodecConfig:
    """Settings of `PixelCodec`."""

    channels: int = 3


class PixelCodec(Codec):
    """The picture itself: latents are pixels, frame for frame."""

    modality = "video"

    @configured_by(PixelCodecConfig)
    def __init__(self, config: PixelCodecConfig):
        super().__init__()
        self.register_buffer("unused", torch.zeros(1))  # a file of weights may not be empty

    def latent_shape(self, num_frames: int, height: int, width: int) -> tuple[int, ...]:
        """Return the latents' shape `c f h w` for a clip of this size."""
        return (self.config.channels, num_frames, height, width)

    def encode(self, x: Tensor) -> Tensor:
        return x

    def decode(self, latent: Tensor) -> Tensor:
        return latent.clamp(-1, 1)


@dataclass(frozen=True)
class WaveformCodecConfig:
    """Settings of `WaveformCodec`."""

    channels: int = 1


class WaveformCodec(Codec):
    """The sound itself: latents are samples."""

    modality = "audio"

    @configured_by(WaveformCodecConfig)
    def __init__(self, config: WaveformCodecConfig):
        super().__init__()
        self.register_buffer("unused", torch.zeros(1))

    def latent_shape(self, num_samples: int) -> tuple[int, ...]:
        """Return the latents' shape `c l` for a clip of this length."""
        return (self.config.channels, num_samples)

    def encode(self, x: Tensor) -> Tensor:
        return x

    def decode(self, latent: Tensor) -> Tensor:
        return latent.clamp(-1, 1)


@dataclass(frozen=True)
class MelCodecConfig:
    """Settings of `MelCodec`; `mean` and `std` are those of the log-mel values on the training data."""

    sample_rate: int = 16_000
    channels: int = 1
    n_fft: int = 512
    hop_length: int = 160
    n_mels: int = 64
    f_min: float = 20.0
    f_max: float = 8_000.0
    floor: float = 1e-3
    mean: float = -4.0
    std: float = 2.0
    griffin_lim_iterations: int = 48

    def __post_init__(self) -> None:
        if self.f_max > self.sample_rate / 2:
            raise ValueError(f"codec: f_max {self.f_max} Hz is above half the sample rate {self.sample_rate} Hz")


class MelCodec(Codec):
    """Sound as a normalised log-mel spectrogram, one latent column a hop; decoded by Griffin-Lim.

    `encode` pads the end to whole hops, so n samples become ceil(n / hop) columns.
    """

    modality = "audio"

    @configured_by(MelCodecConfig)
    def __init__(self, config: MelCodecConfig):
        super().__init__()
        self.settings = config
        filters = mel_filters(config.sample_rate, config.n_fft, config.n_mels, config.f_min, config.f_max)
        self.register_buffer("filters", filters)

    def latent_shape(self, num_samples: int) -> tuple[int, ...]:
        """Return the latents' shape `c l` for a clip of this length."""
        config = self.settings
        return (config.channels * config.n_mels, -(-num_samples // config.hop_length))

    def encode(self, x: Tensor) -> Tensor:
        config = self.settings
        x = F.pad(x, (0, -x.shape[-1] % config.hop_length))
        mel = log_mel(x, self.filters, config.n_fft, config.hop_length, config.floor)
        return rearrange((mel - config.mean) / config.std, "b c m l -> b (c m) l")

    def decode(self, latent: Tensor) -> Tensor:
        config = self.settings
        mel = rearrange(latent.float(), "b (c m) l -> (b c) m l", m=config.n_mels) * config.std + config.mean
        mel = (mel.clamp(max=6.0).exp() - config.floor).clamp(min=0)
        magnitude = linear_magnitude(mel, self.filters)
        wave = griffin_lim(magnitude, config.n_fft, config.hop_length, config.griffin_lim_iterations)
        return rearrange(wave, "(b c) n -> b c n", c=config.channels).clamp(-1, 1)


@dataclass(frozen=True)
class PatchAutoencoderConfig:
    """Settings of `PatchAutoencoder`: the picture shrinks by patch_size, then by two."""

    channels: int = 3
    patch_size: int = 4
    width: int = 64
    latent_channels: int = 8
    num_blocks: int = 2

    @property
    def spatial_factor(self) -> int:
        """Pixels of the picture a latent stands for, in each direction."""
        return 2 * self.patch_size


class ConvBlock(nn.Module):
    """Residual block of two 3x3 convolutions."""

    def __init__(self, width: int):
        super().__init__()
        self.layers = nn.Sequential(
            GroupNorm(8, width),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.SiLU(),
            zeroed(nn.Conv2d(width, width, 3, padding=1)),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class PatchAutoencoder(Codec):
    """A small variational autoencoder of single frames; `encode` gives the mean, normalised per channel.

    Frames are coded one by one, so that an event stays in its frame. Height and width must divide by `spatial_factor`.
    """

    modality = "video"

    @configured_by(PatchAutoencoderConfig)
    def __init__(self, config: PatchAutoencoderConfig):
        super().__init__()
        self.settings = config
        patch, width, wide = config.channels * config.patch_size**2, config.width, 2 * config.width
        self.encoder = nn.Sequential(
            nn.PixelUnshuffle(config.patch_size),
            nn.Conv2d(patch, width, 3, padding=1),
            ConvBlock(width),
            nn.Conv2d(width, wide, 2, stride=2),
            *(ConvBlock(wide) for _ in range(config.num_blocks)),
            GroupNorm(8, wide),
            nn.SiLU(),
            nn.Conv2d(wide, 2 * config.latent_channels, 1),
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(config.latent_channels, wide, 3, padding=1),
            *(ConvBlock(wide) for _ in range(config.num_blocks)),
            nn.Conv2d(wide, 4 * width, 1),
            nn.PixelShuffle(2),
            *(ConvBlock(width) for _ in range(config.num_blocks)),
            GroupNorm(8, width),
            nn.SiLU(),
            nn.Conv2d(width, patch, 3, padding=1),
            nn.PixelShuffle(config.patch_size),
        )
        self.register_buffer("mean", torch.zeros(config.latent_channels))
        self.register_buffer("std", torch.ones(config.latent_channels))

    def latent_shape(self, num_frames: int, height: int, width: int) -> tuple[int, ...]:
        """Return the latents' shape `c f h w` for a clip of this size."""
        factor = self.settings.spatial_factor
        if height % factor or width % factor:
            raise ValueError(f"codec: {height}x{width} does not divide by {factor}; choose another clip size")
        return (self.settings.latent_channels, num_frames, height // factor, width // factor)

    def moments(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log-variance of single frames' latents, not normalised."""
        mean, log_variance = self.encoder(frames).chunk(2, dim=1)
        return mean, log_variance.clamp(-12, 4)

    def encode(self, x: Tensor) -> Tensor:
        mean, _ = self.moments(rearrange(x, "b c f h w -> (b f) c h w"))
        mean = (mean - self.mean[:, None, None]) / self.std[:, None, None]
        return rearrange(mean, "(b f) c h w -> b c f h w", b=x.shape[0])

    def decode(self, latent: Tensor) -> Tensor:
        frames = rearrange(latent, "b c f h w -> (b f) c h w")
        frames = self.decoder(frames * self.std[:, None, None] + self.mean[:, None, None])
        return rearrange(frames, "(b f) c h w -> b c f h w", b=latent.shape[0]).clamp(-1, 1)
