"""What all codecs around diffusers' picture and video autoencoders share: factors, statistics, slices of time."""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import ModelMixin
from torch import Tensor

from mmdiff.models.codec import VideoCodec
from mmdiff.models.layers import configured_by


@dataclass(frozen=True)
class NetworkVideoCodecConfig:
    """Settings of a `NetworkVideoCodec`: diffusers' configuration of the network, and where its weights came from."""

    network: dict[str, Any]
    source: str = ""
    sha256: str = ""


class NetworkVideoCodec(VideoCodec):
    """Pictures by way of one of diffusers' autoencoders: the mean of its posterior.

    Latents have the published scale (the network's configuration gives it) until `fit` measures it anew.

    Errors: `ValueError` where the configuration is another class's, or not one of a network that can be built.
    """

    network_class: str  # by its name in diffusers

    @configured_by(NetworkVideoCodecConfig)
    def __init__(self, config: NetworkVideoCodecConfig):
        super().__init__()
        import diffusers

        named = config.network.get("_class_name")
        if named != self.network_class:
            raise ValueError(f"codec: {type(self).__name__} is for {self.network_class}, the configuration is that of "
                             f"{named or 'no class'}; load it as what it is")  # fmt: skip
        self.autoencoder = getattr(diffusers, self.network_class).from_config(config.network)
        self._state_factors(self.autoencoder.config)
        self._set_statistics(*published_statistics(self.autoencoder, self._num_channels(self.autoencoder.config)))

    @classmethod
    def from_network(cls, network: ModelMixin, source: str = "", sha256: str = "") -> "NetworkVideoCodec":
        """Return the codec around a network, with its weights and published statistics, frozen."""
        codec = cls(network=settings_of(network), source=source, sha256=sha256)
        codec.autoencoder.load_state_dict(network.state_dict())
        shift, scale = published_statistics(network, codec.latent_channels)
        codec.shift.copy_(shift)
        codec.scale.copy_(scale)
        return codec.eval().requires_grad_(False)

    @abstractmethod
    def _state_factors(self, config: Any) -> None:
        """State `temporal_factor`, `starts_with_one` and `spatial_factor` of a network so configured."""

    def _num_channels(self, config: Any) -> int:
        return config.latent_channels

    def _analyse_in_slices(self, x: Tensor, analyse: Callable[[Tensor], Tensor], core: int, context: int) -> Tensor:
        """Return the latents of `x`, computed `core` steps at once with `context` more seen on either side."""
        kept = []
        for first, start, end, last in windows(self.num_steps(x.shape[2]), core, context):
            latent = analyse(x[:, :, self._lone_frame(first) : self.num_held(last)])
            kept.append(latent[:, :, start - first : end - first])
        return torch.cat(kept, dim=2)

    def _synthesise_in_slices(
        self, latent: Tensor, synthesise: Callable[[Tensor], Tensor], core: int, context: int
    ) -> Tensor:
        """Return the frames of latents, computed `core` steps at once with `context` more seen on either side."""
        kept = []
        for first, start, end, last in windows(latent.shape[2], core, context):
            frames, offset = synthesise(latent[:, :, first:last]), self._lone_frame(first)
            kept.append(frames[:, :, max(self.num_held(start), 0) - offset : self.num_held(end) - offset])
        return torch.cat(kept, dim=2)

    def _lone_frame(self, step: int) -> int:
        """Return which frame the first of a slice is: of a step that begins with one, the last frame stands alone."""
        return self.num_held(step + 1) - 1 if self.starts_with_one else self.num_held(step)


def windows(steps: int, core: int, context: int) -> list[tuple[int, int, int, int]]:
    """Cut steps into slices of `core`: where what is seen begins, the slice begins, ends, and what is seen ends.

    What is no longer than a slice with its context on both sides is not cut.
    """
    core = steps if steps <= core + 2 * context else core
    starts = range(0, steps, core)
    return [(max(s - context, 0), s, min(s + core, steps), min(s + core + context, steps)) for s in starts]


def settings_of(network: ModelMixin) -> dict[str, Any]:
    """Return a network's configuration with its class, and without what says where it lay."""
    settings = {key: value for key, value in network.config.items() if not key.startswith("_")}
    return settings | {"_class_name": type(network).__name__}


def published_statistics(network: ModelMixin, channels: int) -> tuple[Tensor, Tensor]:
    """Return mean and deviation per latent channel, `c` each, as diffusers' pipelines undo them.

    latents = (z - latents_mean) * scaling_factor / latents_std, with shift_factor where there is no latents_mean.
    """
    known = {**network.config, **dict(network.named_buffers())}
    mean, std = known.get("latents_mean"), known.get("latents_std")
    shift = (known.get("shift_factor") or 0.0) if mean is None else mean
    factor = known.get("scaling_factor") or 1.0
    return (
        torch.as_tensor(shift, dtype=torch.float32).detach().expand(channels).clone(),
        torch.as_tensor(1.0 if std is None else std, dtype=torch.float32).detach().expand(channels) / factor,
    )
