"""What all codecs around a foreign sound network share: rates, channels, padding, weights."""

from abc import abstractmethod
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, nn

from mmdiff.models.codec import AudioCodec
from mmdiff.models.codecs.audio_signal import mix, resample

FORGOTTEN = ("transformers_version", "model_type", "architectures", "dtype", "torch_dtype")  # of a configuration


@dataclass(frozen=True, kw_only=True)
class NetworkAudioCodecConfig:
    """Settings of every `NetworkAudioCodec`: the network's own, the clip's rate and channels, where weights came from.

    Errors: `ValueError` where a clip cannot be so.
    """

    network_config: dict[str, Any]
    sample_rate: int
    channels: int
    source: str = ""
    sha256: str = ""

    def __post_init__(self) -> None:
        if self.sample_rate < 1 or self.channels not in (1, 2):
            raise ValueError(f"codec: a clip's sound has {self.channels} channels at {self.sample_rate} Hz; "
                             "give channels 1 or 2, and a sample_rate")  # fmt: skip


class NetworkAudioCodec(AudioCodec):
    """Sound by way of a pretrained network, whose sample rate and channels need not be the clip's.

    `sample_rate` and `channels` are the clip's; `network_rate`, `network_channels` what the network hears, and
    `made_rate` what it makes. Sound is resampled without delay (plain torch) and mixed on the way in and on the way
    out; what two channels do not share is lost in a network of one. The network is frozen, in evaluation mode.
    """

    channels: int
    network_rate: int
    network_channels: int
    made_rate: int
    hop_length: int

    def _set_rates(
        self, clip: NetworkAudioCodecConfig, *, rate: int, channels: int, hop_length: int, made_rate: int | None = None
    ) -> None:
        """State the clip's rates, and the network's."""
        self.sample_rate, self.channels = clip.sample_rate, clip.channels
        self.network_rate, self.network_channels, self.made_rate = rate, channels, made_rate or rate
        self.hop_length = hop_length
        self.temporal_factor = Fraction(hop_length * clip.sample_rate, rate)

    @classmethod
    def from_networks(cls, *, sample_rate: int, channels: int, **parts: Any) -> "NetworkAudioCodec":
        """Return the codec around networks given by name (`network`, `vocoder`), for clips of this rate.

        Other keywords are the codec's settings.

        Errors: `ValueError` where networks do not belong together.
        """
        networks = {name: part for name, part in parts.items() if isinstance(part, nn.Module)}
        settings = {name: part for name, part in parts.items() if name not in networks}
        settings |= {f"{name}_config": settings_of(network) for name, network in networks.items()}
        codec = cls(sample_rate=sample_rate, channels=channels, **settings)
        for name, network in networks.items():
            getattr(codec, name).load_state_dict(network.state_dict())
        codec.take_published_statistics()
        return codec.eval().requires_grad_(False)

    def take_published_statistics(self) -> None:
        """Set shift and scale to those that came with the weights, where any did; `fit` measures them anew."""

    def latent_rate(self, rate: int | Fraction) -> Fraction:
        """Return latent steps a second.

        Errors: `ValueError` for sound of another rate than the codec was made for.
        """
        if rate != self.sample_rate:
            raise ValueError(f"codec: this codec takes sound at {self.sample_rate} Hz, not {rate} Hz; "
                             "load it for the clip's rate")  # fmt: skip
        return super().latent_rate(rate)

    def padded(self, x: Tensor) -> Tensor:
        if x.shape[1] != self.channels:
            raise ValueError(f"codec: the sound has {x.shape[1]} channels, and this codec was made for "
                             f"{self.channels}; load it for the clip's channels")  # fmt: skip
        first, steps = int(self.starts_with_one), self.num_steps(x.shape[-1])
        length = first + (steps - first) * self.hop_length
        return resample(mix(x, self.network_channels), self.sample_rate, self.network_rate, length)

    def synthesise(self, latent: Tensor) -> Tensor:
        sound = mix(self.sound(latent), self.channels)
        return resample(sound, self.made_rate, self.sample_rate, self.num_held(latent.shape[-1]))

    @abstractmethod
    def sound(self, latent: Tensor) -> Tensor:
        """Return what the network makes of its latents, `b c n` at `made_rate`; what is too long is cut off."""

    def train(self, mode: bool = True) -> "NetworkAudioCodec":
        """Stay in evaluation mode: some networks drop codes at random while they train."""
        return super().train(False)


def settings_of(network: nn.Module) -> dict[str, Any]:
    """Return the configuration of a network of diffusers or transformers, as JSON takes it."""
    config = network.config
    if hasattr(config, "to_diff_dict"):  # transformers
        return {name: value for name, value in config.to_diff_dict().items() if name not in FORGOTTEN}
    kept = {name: value for name, value in config.items() if not name.startswith("_")}
    return kept | {"_class_name": type(network).__name__}


def with_tail(latent: Tensor, strides: list[int]) -> Tensor:
    """Repeat the last step of latents `b c l` where an odd stride makes the decoder's sound end a little early.

    There a transposed convolution of twice the stride cuts (stride + 1) / 2 off both ends: one too many.
    """
    return torch.cat([latent, latent[..., -1:]], dim=-1) if any(stride % 2 for stride in strides) else latent
