"""Codecs: what the joint model diffuses instead of pixels and waveforms. One interface, `encode` and `decode`."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from fractions import Fraction

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from einops import rearrange
from torch import Tensor

from mmdiff.models.layers import configured_by
from mmdiff.models.mel import griffin_lim, linear_magnitude, log_mel, mel_filters


class Codec(ModelMixin, ConfigMixin, ABC):
    """Turn one modality into latents of about unit scale and back; n seconds in are n seconds out, to frame and sample.

    A codec is written as `analyse` and `synthesise`, whose latents have whatever scale its network gives them. What is
    diffused lies between: `encode` pads to the stride, and subtracts `shift` and divides by `scale`, one number a
    channel; `decode` undoes it and trims. Frames or samples per latent step are `temporal_factor`, a Fraction where
    the codec resamples; with `starts_with_one` the first frame is a step of its own; with `is_framewise` the latents of
    a step are those of its own frame or sample alone, so that a clip can be encoded in pieces.

    `sample_rate` is what the clip's sound must have in Hz (None: any). Video `b c f h w` and audio `b c n` are float in
    [-1, 1]; latents are `b c f h w` and `b c l`.
    """

    config_name = "config.json"
    modality: str
    latent_channels: int
    temporal_factor: int | Fraction = 1
    starts_with_one: bool = False
    is_framewise: bool = False
    spatial_factor: int = 1
    sample_rate: int | None = None

    def _set_statistics(self, shift: Tensor, scale: Tensor, persistent: bool = True) -> None:
        """Register what latents are shifted and scaled by, `c` each; not stored where the configuration gives them."""
        self.latent_channels = len(shift)
        self.register_buffer("shift", shift, persistent=persistent)
        self.register_buffer("scale", scale, persistent=persistent)

    def analyse(self, x: Tensor) -> Tensor:
        """Return the network's latents of `x`, whose length is whole steps."""
        raise TypeError(f"{type(self).__name__} does not encode")

    def synthesise(self, latent: Tensor) -> Tensor:
        """Return the picture or sound of the network's latents, all that they hold."""
        raise TypeError(f"{type(self).__name__} does not decode")

    def latent_rate(self, rate: int | Fraction) -> Fraction:
        """Return latent steps a second, for frames or samples a second."""
        return Fraction(rate) / Fraction(self.temporal_factor)

    def num_steps(self, length: int) -> int:
        """Return how many latent steps hold `length` frames or samples."""
        first = int(self.starts_with_one)
        return first + int(-((first - length) // self.temporal_factor))

    def num_held(self, steps: int) -> int:
        """Return how many whole frames or samples latent steps hold."""
        first = int(self.starts_with_one)
        return first + int((steps - first) * self.temporal_factor)

    def wholly_given(self, kept: Tensor) -> Tensor:
        """Say of every latent step whether all frames or samples that it stands for are kept (bool, as `kept` is).

        What a network hears or sees beyond its step's own span does not count.
        """
        first, factor = int(self.starts_with_one), Fraction(self.temporal_factor)
        given = torch.ones(self.num_steps(len(kept)), dtype=torch.bool, device=kept.device)
        missing = (~kept).nonzero()[:, 0]
        steps = first + (missing - first) * factor.denominator // factor.numerator
        given[torch.where(missing < first, missing, steps)] = False
        return given

    @torch.no_grad()
    def fit(self, examples: list[Tensor]) -> "Codec":
        """Measure mean and deviation of every latent channel on examples, and return this codec with them as its own.

        Errors: `ValueError` where a channel does not vary.
        """
        total = square = torch.zeros(self.latent_channels, dtype=torch.float64)
        count = 0
        for x in examples:
            values = rearrange(self.analyse(self.padded(x)), "b c ... -> c (b ...)").double().cpu()
            total, square, count = total + values.sum(1), square + values.square().sum(1), count + values.shape[1]
        mean = total / max(count, 1)
        deviation = (square / max(count, 1) - mean.square()).clamp(min=0).sqrt()
        if not (deviation > 1e-6).all():
            raise ValueError(f"codec: latent channel {int(deviation.argmin())} does not vary over {len(examples)} "
                             f"examples; fit to more, or to others")  # fmt: skip
        self.shift.copy_(mean)
        self.scale.copy_(deviation)
        return self

    @abstractmethod
    def padded(self, x: Tensor) -> Tensor:
        """Return `x` as the network takes it: whole steps."""

    def _normalised(self, latent: Tensor) -> Tensor:
        axes = (slice(None), *[None] * (latent.ndim - 2))
        return (latent - self.shift[axes]) / self.scale[axes]

    def _denormalised(self, latent: Tensor) -> Tensor:
        axes = (slice(None), *[None] * (latent.ndim - 2))
        return latent * self.scale[axes] + self.shift[axes]

    def _check_length(self, length: int, held: int) -> None:
        if length > held:
            raise ValueError(f"codec: the latents hold {held} frames or samples; {length} cannot be decoded from them")


class VideoCodec(Codec):
    """A codec for pictures `b c f h w`. What does not fill a step or a patch is filled by repeating the edge."""

    modality = "video"

    def latent_shape(self, num_frames: int, height: int, width: int) -> tuple[int, ...]:
        """Return the latents' shape `c f h w` for a clip of this size."""
        sizes = (-(-size // self.spatial_factor) for size in (height, width))
        return (self.latent_channels, self.num_steps(num_frames), *sizes)

    def padded(self, x: Tensor) -> Tensor:
        missing = self.num_held(self.num_steps(x.shape[2])) - x.shape[2]
        right, bottom = (-x.shape[axis] % self.spatial_factor for axis in (4, 3))
        if not (missing or right or bottom):
            return x
        return F.pad(x, (0, right, 0, bottom, 0, missing), mode="replicate")

    def encode(self, x: Tensor) -> Tensor:
        """Return the latents of `x`, of any length and size."""
        return self._normalised(self.analyse(self.padded(x)))

    def decode(self, latent: Tensor, length: int | None = None, size: tuple[int, int] | None = None) -> Tensor:
        """Return the pictures of latents: `length` frames of height and width `size`, else all that they hold.

        Errors: `ValueError` where they hold less.
        """
        x = self.synthesise(self._denormalised(latent)).clamp(-1, 1)
        for wanted, held in zip((length, *(size or ())), x.shape[2:], strict=False):
            self._check_length(wanted or 0, held)
        height, width = size or (None, None)
        return x[:, :, :length, :height, :width]

    def reconstruct(self, x: Tensor) -> Tensor:
        """Return what encoding and decoding leave of `x`, in its shape."""
        return self.decode(self.encode(x), x.shape[2], tuple(x.shape[3:]))


class AudioCodec(Codec):
    """A codec for sound `b c n` of `channels` channels. What does not fill a step is filled with zeros."""

    modality = "audio"
    channels: int = 1

    def latent_shape(self, num_samples: int) -> tuple[int, ...]:
        """Return the latents' shape `c l` for a clip of this length."""
        return (self.latent_channels, self.num_steps(num_samples))

    def padded(self, x: Tensor) -> Tensor:
        return F.pad(x, (0, int(-(-self.num_steps(x.shape[-1]) * self.temporal_factor // 1)) - x.shape[-1]))

    def encode(self, x: Tensor) -> Tensor:
        """Return the latents of `x`, of any length."""
        return self._normalised(self.analyse(self.padded(x)))

    def decode(self, latent: Tensor, length: int | None = None) -> Tensor:
        """Return the sound of latents: `length` samples, else all that they hold.

        Errors: `ValueError` where they hold less.
        """
        x = self.synthesise(self._denormalised(latent)).clamp(-1, 1)
        self._check_length(length or 0, x.shape[-1])
        return x[..., :length]

    def reconstruct(self, x: Tensor) -> Tensor:
        """Return what encoding and decoding leave of `x`, in its shape."""
        return self.decode(self.encode(x), x.shape[-1])


@dataclass(frozen=True)
class PixelCodecConfig:
    """Settings of `PixelCodec`."""

    channels: int = 3


class PixelCodec(VideoCodec):
    """The picture itself: latents are pixels, frame for frame."""

    is_framewise = True

    @configured_by(PixelCodecConfig)
    def __init__(self, config: PixelCodecConfig):
        super().__init__()
        self._set_statistics(torch.zeros(config.channels), torch.ones(config.channels), persistent=False)
        self.register_buffer("unused", torch.zeros(1))  # a file of weights may not be empty

    def encode(self, x: Tensor) -> Tensor:
        return x

    def decode(self, latent: Tensor, length: int | None = None, size: tuple[int, int] | None = None) -> Tensor:
        return latent[:, :, :length]  # not clamped: super-resolution is given what lies beyond

    def fit(self, examples: list[Tensor]) -> "PixelCodec":
        """Return this codec: pixels are diffused as they are."""
        return self


@dataclass(frozen=True)
class WaveformCodecConfig:
    """Settings of `WaveformCodec`."""

    channels: int = 1


class WaveformCodec(AudioCodec):
    """The sound itself, at any sample rate: latents are samples."""

    is_framewise = True

    @configured_by(WaveformCodecConfig)
    def __init__(self, config: WaveformCodecConfig):
        super().__init__()
        self.channels = config.channels
        self._set_statistics(torch.zeros(config.channels), torch.ones(config.channels), persistent=False)
        self.register_buffer("unused", torch.zeros(1))

    def encode(self, x: Tensor) -> Tensor:
        return x

    def decode(self, latent: Tensor, length: int | None = None) -> Tensor:
        return latent[..., :length].clamp(-1, 1)

    def fit(self, examples: list[Tensor]) -> "WaveformCodec":
        """Return this codec: samples are diffused as they are."""
        return self


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


class MelCodec(AudioCodec):
    """Sound as a normalised log-mel spectrogram, one latent column a hop; decoded by Griffin-Lim.

    One mean and one deviation for all bands; they are part of the configuration.
    """

    @configured_by(MelCodecConfig)
    def __init__(self, config: MelCodecConfig):
        super().__init__()
        self.settings, self.channels = config, config.channels
        self.temporal_factor, self.sample_rate = config.hop_length, config.sample_rate
        filters = mel_filters(config.sample_rate, config.n_fft, config.n_mels, config.f_min, config.f_max)
        self.register_buffer("filters", filters)
        size = (config.channels * config.n_mels,)
        self._set_statistics(torch.full(size, config.mean), torch.full(size, config.std), persistent=False)

    def fit(self, examples: list[Tensor]) -> "MelCodec":
        """Measure mean and deviation of the log-mel values of sounds `b c n`, and return this codec with them."""
        mel = torch.cat([self.analyse(self.padded(x)).flatten() for x in examples])
        self.settings = replace(self.settings, mean=round(float(mel.mean()), 4), std=round(float(mel.std()), 4))
        self.register_to_config(mean=self.settings.mean, std=self.settings.std)
        self.shift.fill_(self.settings.mean)
        self.scale.fill_(self.settings.std)
        return self

    def analyse(self, x: Tensor) -> Tensor:
        config = self.settings
        mel = log_mel(x, self.filters, config.n_fft, config.hop_length, config.floor)
        return rearrange(mel, "b c m l -> b (c m) l")

    def wholly_given(self, kept: Tensor) -> Tensor:
        """Say of every column whether all that its window hears is kept."""
        config = self.settings
        kept = F.pad(kept, (0, -len(kept) % config.hop_length), value=True)
        margin = (config.n_fft - config.hop_length) // 2
        padded = F.pad(kept, (margin, config.n_fft - config.hop_length - margin), value=True)
        return padded.unfold(0, config.n_fft, config.hop_length).all(dim=1)

    def synthesise(self, latent: Tensor) -> Tensor:
        config = self.settings
        mel = rearrange(latent.float(), "b (c m) l -> (b c) m l", m=config.n_mels)
        mel = (mel.clamp(max=6.0).exp() - config.floor).clamp(min=0)
        magnitude = linear_magnitude(mel, self.filters)
        wave = griffin_lim(magnitude, config.n_fft, config.hop_length, config.griffin_lim_iterations)
        return rearrange(wave, "(b c) n -> b c n", c=config.channels)


@dataclass(frozen=True)
class PatchCodecConfig:
    """Settings of `PatchCodec`: square patches, and how many numbers stand for one."""

    channels: int = 3
    patch_size: int = 8
    latent_channels: int = 32

    def __post_init__(self) -> None:
        if self.latent_channels > self.channels * self.patch_size**2:
            raise ValueError(f"codec: a patch has fewer than {self.latent_channels} numbers; lower latent_channels")


class PatchCodec(VideoCodec):
    """Single frames, patch by patch, in the principal components of the footage's patches.

    The best linear code there is (Karhunen-Loeve): nothing to train, errors known in advance, and frames are coded one
    by one, so that an event stays in its frame. Components are scaled by the square root of their deviation: between
    pixels' own proportions and equal weight for the finest detail.
    """

    is_framewise = True

    @configured_by(PatchCodecConfig)
    def __init__(self, config: PatchCodecConfig):
        super().__init__()
        self.settings = config
        self.spatial_factor = config.patch_size
        size = config.channels * config.patch_size**2
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("components", torch.eye(config.latent_channels, size))
        self._set_statistics(torch.zeros(config.latent_channels), torch.ones(config.latent_channels))
        self.register_buffer("shift", self.shift, persistent=False)  # `mean` has taken it away

    def analyse(self, x: Tensor) -> Tensor:
        return rearrange((self._patches(x) - self.mean) @ self.components.T, "b f h w c -> b c f h w")

    def synthesise(self, latent: Tensor) -> Tensor:
        patches = rearrange(latent.float(), "b c f h w -> b f h w c") @ self.components + self.mean
        p = self.settings.patch_size
        return rearrange(patches, "b f h w (c p q) -> b c f (h p) (w q)", p=p, q=p)

    @torch.no_grad()
    def fit(self, examples: list[Tensor]) -> "PatchCodec":
        """Take the principal components of videos `b c f h w` and return this codec with them."""
        patches = torch.cat([self._patches(self.padded(x)).flatten(0, -2) for x in examples]).double()
        mean = patches.mean(0)
        variances, vectors = torch.linalg.eigh((patches - mean).T @ (patches - mean) / len(patches))
        kept = slice(-self.settings.latent_channels, None)
        scale = variances[kept].clamp(min=1e-8).sqrt().sqrt()
        scale *= (variances[kept] / scale.square()).mean().sqrt()  # latents of unit scale
        self.mean.copy_(mean)
        self.components.copy_(vectors[:, kept].T)
        self.scale.copy_(scale)
        return self

    def variance_kept(self, examples: list[Tensor]) -> float:
        """Return the share of the variance of videos' patches that the components hold."""
        patches = torch.cat([self._patches(self.padded(x)).flatten(0, -2) for x in examples]) - self.mean
        return float((patches @ self.components.T).double().square().sum() / patches.double().square().sum())

    def _patches(self, x: Tensor) -> Tensor:
        p = self.settings.patch_size
        return rearrange(x, "b c f (h p) (w q) -> b f h w (c p q)", p=p, q=p)
