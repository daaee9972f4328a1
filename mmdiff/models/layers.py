"""Layers that the networks share: configuration, norm, convolutions, self-attention, timestep embedding."""

import functools
import inspect
import math
from dataclasses import asdict, fields

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn


def configured_by(config_class: type):
    """Let a frozen dataclass be the one list of a network's settings.

    The decorated `__init__(self, config)` then takes the dataclass's fields as keywords, which is what diffusers'
    `from_config` reads from the signature, and registers them.
    """

    def decorate(init):
        @functools.wraps(init)
        def wrapper(self, **settings):
            config = config_class(**settings)
            init(self, config)
            self.register_to_config(**asdict(config))

        names = [inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)]
        names += [inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY) for field in fields(config_class)]
        wrapper.__signature__ = inspect.Signature(names)
        return wrapper

    return decorate


class GroupNorm(nn.GroupNorm):
    """Group normalisation, always in float32."""

    def forward(self, x: Tensor) -> Tensor:
        return F.group_norm(x.float(), self.num_groups, self.weight, self.bias, self.eps).to(x.dtype)


class VideoConv(nn.Module):
    """A 3x3 convolution over every frame, then one of length 3 over the frames ("2d+1d" of MM-Diffusion)."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.spatial = nn.Conv3d(in_channels, out_channels, (1, 3, 3), padding=(0, 1, 1))
        self.temporal = nn.Conv3d(out_channels, out_channels, (3, 1, 1), padding=(1, 0, 0))

    def forward(self, x: Tensor) -> Tensor:
        return self.temporal(self.spatial(x))


def audio_conv(in_channels: int, out_channels: int, dilation: int = 1) -> nn.Conv1d:
    """Return a convolution of length 3 with the given dilation that keeps the length."""
    return nn.Conv1d(in_channels, out_channels, 3, padding=dilation, dilation=dilation)


def zeroed(module: nn.Module) -> nn.Module:
    """Set a module's parameters to zero, so that the branch it closes begins as nothing."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


def timestep_embedding(timesteps: Tensor, width: int) -> Tensor:
    """Return the sinusoids `b width` of the timesteps `b`: cosines, then sines, in float32."""
    half = width // 2
    frequencies = torch.exp(-math.log(10_000) * torch.arange(half, device=timesteps.device) / half)
    angles = timesteps.float()[:, None] * frequencies[None]
    return torch.cat([angles.cos(), angles.sin()], dim=1)


def attend(query: Tensor, key: Tensor, value: Tensor, num_heads: int) -> Tensor:
    """Return softmax attention of tokens `b q d` over tokens `b k d`; the heads lie inside d."""
    split = functools.partial(rearrange, pattern="b s (n d) -> b n s d", n=num_heads)
    return rearrange(F.scaled_dot_product_attention(split(query), split(key), split(value)), "b n s d -> b s (n d)")


class SelfAttention(nn.Module):
    """Residual self-attention over sequences `b c s`, normalised over each sequence of its own."""

    def __init__(self, channels: int, num_heads: int, num_groups: int):
        super().__init__()
        self.num_heads = num_heads
        self.norm = GroupNorm(num_groups, channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = zeroed(nn.Linear(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        tokens = rearrange(self.norm(x), "b c s -> b s c")
        query, key, value = self.qkv(tokens).chunk(3, dim=-1)
        return x + rearrange(self.out(attend(query, key, value, self.num_heads)), "b s c -> b c s")
