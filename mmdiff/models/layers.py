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


def token_major(x: Tensor) -> Tensor:
    """Lay `b c ...` out in memory with the channels innermost, where convolutions and attention read them fastest."""
    return rearrange(rearrange(x, "b c ... -> b ... c").contiguous(), "b ... c -> b c ...")


class GroupNorm(nn.GroupNorm):
    """Group normalisation of `b c ...`, always in float32."""

    def forward(self, x: Tensor) -> Tensor:
        wide = x.unsqueeze(2) if x.ndim == 3 else x  # four axes keep their memory layout, three do not
        out = F.group_norm(wide.float(), self.num_groups, self.weight.float(), self.bias.float(), self.eps)
        return out.reshape(x.shape).to(x.dtype)


class VideoConv(nn.Module):
    """A 3x3 convolution over every frame, then one of length 3 over the frames ("2d+1d" of MM-Diffusion)."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.spatial = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.temporal = nn.Conv2d(out_channels, out_channels, (3, 1), padding=(1, 0))

    def forward(self, x: Tensor) -> Tensor:
        b, h = x.shape[0], x.shape[-2]
        x = self.spatial(rearrange(x, "b c f h w -> (b f) c h w"))
        x = self.temporal(rearrange(x, "(b f) c h w -> b c f (h w)", b=b))
        return rearrange(x, "b c f (h w) -> b c f h w", h=h)


class AudioConv(nn.Module):
    """A convolution of length 3 along the sound `b c l`, with a dilation, that keeps its length."""

    def __init__(self, in_channels: int, out_channels: int, dilation: int = 1):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, (1, 3), padding=(0, dilation), dilation=(1, dilation))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x.unsqueeze(2)).squeeze(2)


class Pointwise(nn.Linear):
    """A linear layer over the channels of `b c ...`: what others write as a convolution of size one."""

    def forward(self, x: Tensor) -> Tensor:
        return rearrange(super().forward(rearrange(x, "b c ... -> b ... c")), "b ... c -> b c ...")


def down(x: Tensor, factor: int) -> Tensor:
    """Average a picture `b c f h w` over 2x2 pixels, or a sound `b c l` over `factor` steps."""
    if x.ndim == 3:
        return F.avg_pool2d(x.unsqueeze(2), (1, factor)).squeeze(2)
    pooled = F.avg_pool2d(rearrange(x, "b c f h w -> (b f) c h w"), 2)
    return rearrange(pooled, "(b f) c h w -> b c f h w", b=x.shape[0])


def up(x: Tensor, factor: int) -> Tensor:
    """Repeat every pixel of a picture `b c f h w` 2x2 times, or every step of a sound `b c l` `factor` times."""
    if x.ndim == 3:
        return F.interpolate(x.unsqueeze(2), scale_factor=(1, factor), mode="nearest").squeeze(2)
    larger = F.interpolate(rearrange(x, "b c f h w -> (b f) c h w"), scale_factor=2, mode="nearest")
    return rearrange(larger, "(b f) c h w -> b c f h w", b=x.shape[0])


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
