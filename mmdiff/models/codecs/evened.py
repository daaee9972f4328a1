"""What our own autoencoders share: the scale in which a decoder's convolutions are given latents."""

import torch
from torch import Tensor, nn

from mmdiff.models.codec import Codec


class Evened(nn.Module):
    """Bring a network's latents `b c ...` to about unit scale, by statistics that training does not move.

    A codec's own `shift` and `scale` may be fitted again at any time, which must not change what its decoder computes.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.register_buffer("shift", torch.zeros(channels))
        self.register_buffer("scale", torch.ones(channels))

    def forward(self, latent: Tensor) -> Tensor:
        axes = (slice(None), *[None] * (latent.ndim - 2))
        return (latent - self.shift[axes]) / self.scale[axes]

    def copy_statistics(self, codec: Codec) -> None:
        """Take over what a codec was fitted to."""
        self.shift.copy_(codec.shift)
        self.scale.copy_(codec.scale)
