"""Codecs: what the joint model diffuses instead of pixels and waveforms. One interface, `encode` and `decode`."""

from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from einops import rearrange
from torch import Tensor

from mmdiff.models.layers import configured_by
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

    def wholly_given(self, kept: Tensor) -> Tensor:
        """Say of every latent step whether all frames or samples that it is made of are kept (bool, as `kept` is)."""
        return kept


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
        return latent  # not clamped: super-resolution is given what lies beyond


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
    std: float = 1.5
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

    def fit(self, sounds: list[Tensor]) -> "MelCodec":
        """Return a codec of these settings, with the mean and deviation of sounds `b c n`."""
        plain = MelCodec(**asdict(self.settings) | {"mean": 0.0, "std": 1.0})
        mel = torch.cat([plain.encode(sound).flatten() for sound in sounds])
        scale = {"mean": round(float(mel.mean()), 4), "std": round(float(mel.std()), 4)}
        return MelCodec(**asdict(self.settings) | scale)

    def encode(self, x: Tensor) -> Tensor:
        config = self.settings
        x = F.pad(x, (0, -x.shape[-1] % config.hop_length))
        mel = log_mel(x, self.filters, config.n_fft, config.hop_length, config.floor)
        return rearrange((mel - config.mean) / config.std, "b c m l -> b (c m) l")

    def wholly_given(self, kept: Tensor) -> Tensor:
        config = self.settings
        kept = F.pad(kept, (0, -len(kept) % config.hop_length), value=True)
        margin = (config.n_fft - config.hop_length) // 2
        padded = F.pad(kept, (margin, config.n_fft - config.hop_length - margin), value=True)
        return padded.unfold(0, config.n_fft, config.hop_length).all(dim=1)

    def decode(self, latent: Tensor) -> Tensor:
        config = self.settings
        mel = rearrange(latent.float(), "b (c m) l -> (b c) m l", m=config.n_mels) * config.std + config.mean
        mel = (mel.clamp(max=6.0).exp() - config.floor).clamp(min=0)
        magnitude = linear_magnitude(mel, self.filters)
        wave = griffin_lim(magnitude, config.n_fft, config.hop_length, config.griffin_lim_iterations)
        return rearrange(wave, "(b c) n -> b c n", c=config.channels).clamp(-1, 1)


@dataclass(frozen=True)
class PatchCodecConfig:
    """Settings of `PatchCodec`: square patches, and how many numbers stand for one."""

    channels: int = 3
    patch_size: int = 8
    latent_channels: int = 32

    def __post_init__(self) -> None:
        if self.latent_channels > self.channels * self.patch_size**2:
            raise ValueError(f"codec: a patch has fewer than {self.latent_channels} numbers; lower latent_channels")


class PatchCodec(Codec):
    """Single frames, patch by patch, in the principal components of the footage's patches.

    The best linear code there is (Karhunen-Loeve): nothing to train, errors known in advance, and frames are coded one
    by one, so that an event stays in its frame. Components are scaled by the square root of their deviation: between
    pixels' own proportions and equal weight for the finest detail. Height and width must divide by `patch_size`.
    """

    modality = "video"

    @configured_by(PatchCodecConfig)
    def __init__(self, config: PatchCodecConfig):
        super().__init__()
        self.settings = config
        size = config.channels * config.patch_size**2
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("components", torch.eye(config.latent_channels, size))
        self.register_buffer("scale", torch.ones(config.latent_channels))

    def latent_shape(self, num_frames: int, height: int, width: int) -> tuple[int, ...]:
        """Return the latents' shape `c f h w` for a clip of this size."""
        patch = self.settings.patch_size
        if height % patch or width % patch:
            raise ValueError(f"codec: {height}x{width} does not divide by {patch}; choose another clip size")
        return (self.settings.latent_channels, num_frames, height // patch, width // patch)

    def encode(self, x: Tensor) -> Tensor:
        latent = (self._patches(x) - self.mean) @ self.components.T / self.scale
        return rearrange(latent, "b f h w c -> b c f h w")

    def decode(self, latent: Tensor) -> Tensor:
        patches = rearrange(latent.float(), "b c f h w -> b f h w c") * self.scale @ self.components + self.mean
        p = self.settings.patch_size
        return rearrange(patches, "b f h w (c p q) -> b c f (h p) (w q)", p=p, q=p).clamp(-1, 1)

    def fit(self, videos: list[Tensor]) -> float:
        """Take the principal components of videos `b c f h w`; return the share of their variance that is kept."""
        patches = torch.cat([self._patches(video).flatten(0, -2) for video in videos]).double()
        mean = patches.mean(0)
        variances, vectors = torch.linalg.eigh((patches - mean).T @ (patches - mean) / len(patches))
        kept = slice(-self.settings.latent_channels, None)
        scale = variances[kept].clamp(min=1e-8).sqrt().sqrt()
        scale *= (variances[kept] / scale.square()).mean().sqrt()  # latents of unit scale
        self.mean.copy_(mean)
        self.components.copy_(vectors[:, kept].T)
        self.scale.copy_(scale)
        return float(variances[kept].sum() / variances.sum())

    def _patches(self, x: Tensor) -> Tensor:
        p = self.settings.patch_size
        return rearrange(x, "b c f (h p) (w q) -> b f h w (c p q)", p=p, q=p)
