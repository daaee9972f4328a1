"""What a video-to-audio model sees: how every frame looks, and how it differs from the one before."""

from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from mmdiff.models.layers import AudioConv, GroupNorm, Linear

PLACES = 4  # rows and columns of a frame that are told apart in the end
FRAMES_AT_A_TIME = 64  # of a frozen vision model


class FrameConvolutions(nn.Module):
    """Convolutions over single pictures `b c h w`, each halving height and width: `width` numbers a picture."""

    def __init__(self, width: int, channels: tuple[int, ...]):
        super().__init__()
        layers: list[nn.Module] = []
        for inner, outer in zip((3, *channels), channels):
            layers += [nn.Conv2d(inner, outer, 3, stride=2, padding=1), GroupNorm(outer // 8, outer), nn.SiLU()]
        self.layers = nn.Sequential(*layers)
        self.out = Linear(channels[-1] * PLACES**2, width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layers(x.contiguous(memory_format=torch.channels_last))
        return self.out(rearrange(F.adaptive_avg_pool2d(x, PLACES), "b c h w -> b (c h w)"))


class FrameNetwork(nn.Module):
    """How every frame of `b 3 f h w` looks, by itself: `b f d`."""

    def __init__(self, width: int, channels: tuple[int, ...]):
        super().__init__()
        self.frame = FrameConvolutions(width, channels)

    def forward(self, video: Tensor) -> Tensor:
        features = self.frame(rearrange(video, "b c f h w -> (b f) c h w"))
        return rearrange(features, "(b f) d -> b f d", b=len(video))


class MotionNetwork(nn.Module):
    """What changes at every frame of `b 3 f h w`: `b f d`.

    Differences to the frame before go through convolutions of their own, then over the frames around, so that what a
    movement comes to is known where it happens.
    """

    def __init__(self, width: int, channels: tuple[int, ...]):
        super().__init__()
        self.change = FrameConvolutions(width, channels)
        self.temporal = nn.ModuleList([AudioConv(width, width, dilation) for dilation in (1, 2)])

    def forward(self, video: Tensor) -> Tensor:
        changes = F.pad(video.diff(dim=2), (0, 0, 0, 0, 1, 0))  # nothing has changed at the first frame
        x = self.change(rearrange(changes, "b c f h w -> (b f) c h w"))
        x = rearrange(x, "(b f) d -> b d f", b=len(video))
        for layer in self.temporal:
            x = x + layer(F.silu(x))
        return rearrange(x, "b d f -> b f d")


class FrozenFrames:
    """A frozen vision model of transformers, CLIP's or DINO's: one row of numbers for every frame.

    Pictures are resized to the model's own square, and normalised with its `mean` and `std` (of colours in [0, 1]).
    `name` is what the model was asked for by, `sha256` that of its weights.
    """

    def __init__(self, network: nn.Module, size: int, mean: tuple[float, ...], std: tuple[float, ...], *, name: str,
                 sha256: str, device: torch.device | str = "cpu"):  # fmt: skip
        self.network = network.eval().requires_grad_(False).to(device)
        self.size, self.mean, self.std = size, mean, std
        self.name, self.sha256 = name, sha256
        self.channels = int(network.config.hidden_size)

    def to(self, device: torch.device | str) -> "FrozenFrames":
        """Move the model to a device, and return this."""
        self.network.to(device)
        return self

    @torch.no_grad()
    def encode(self, video: Tensor) -> Tensor:
        """Return the features `b f d` of video `b 3 f h w` in [-1, 1], in float32."""
        frames = rearrange(video, "b c f h w -> (b f) c h w")
        with torch.autocast(video.device.type, enabled=False):
            features = torch.cat([self._features(part.float()) for part in frames.split(FRAMES_AT_A_TIME)])
        return rearrange(features, "(b f) d -> b f d", b=len(video))

    def _features(self, frames: Tensor) -> Tensor:
        mean, std = (frames.new_tensor(values)[:, None, None] for values in (self.mean, self.std))
        if frames.shape[-2:] != (self.size, self.size):
            frames = F.interpolate(frames, (self.size, self.size), mode="bicubic", antialias=True)
        output: Any = self.network(pixel_values=((frames.clamp(-1, 1) + 1) / 2 - mean) / std)
        pooled = getattr(output, "pooler_output", None)
        return output.last_hidden_state[:, 0] if pooled is None else pooled
