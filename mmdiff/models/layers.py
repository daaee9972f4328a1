"""Layers that the networks share: configuration, norm, convolutions, self-attention, timestep embedding."""

import functools
import inspect
import math
from dataclasses import asdict, fields

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmdiff.models.attention import attend

# Else torch.compile traces through einops' parser at each of a network's thousand calls: minutes instead of seconds.
torch.compiler.allow_in_graph(rearrange)


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
    """Lay `b c ...` out in memory with the channels innermost, where convolutions and attention read them fastest.

    What lies so already is not copied, but its strides are written anew: PyTorch guesses the layout from them, and
    guesses wrong where an axis has length one and any stride would do.
    """
    tokens = rearrange(x, "b c ... -> b ... c")
    return rearrange(tokens.reshape(-1).view(tokens.shape), "b ... c -> b c ...")


class GroupNorm(nn.GroupNorm):
    """Group normalisation of `b c ...`, always computed in float32; then scaled and shifted by `b c`, if given."""

    def forward(self, x: Tensor, scale: Tensor | None = None, shift: Tensor | None = None) -> Tensor:
        wide = token_major(x.unsqueeze(2) if x.ndim == 3 else x)  # four axes keep their layout, three do not
        with torch.autocast(x.device.type, enabled=False):
            if scale is None:
                out = self._normalise(wide, self.weight, self.bias)
            else:  # the norm's own weight and the scale become one
                axes = (..., *[None] * (wide.ndim - 2))
                weight, bias = self.weight.to(x.dtype), self.bias.to(x.dtype)
                scale = 1 + scale.to(x.dtype)
                shift = torch.addcmul(shift.to(x.dtype), bias, scale)
                out = torch.addcmul(shift[axes], self._normalise(wide, None, None), (weight * scale)[axes])
        return out.reshape(x.shape)

    def _normalise(self, x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
        """The CPU's kernel computes in float32 whatever it is given; elsewhere that is asked for."""
        if x.device.type == "cpu":
            return F.group_norm(x, self.num_groups, weight, bias, self.eps)
        return F.group_norm(x.float(), self.num_groups, weight, bias, self.eps).to(x.dtype)


def activated(norm: GroupNorm, x: Tensor, scale: Tensor | None = None, shift: Tensor | None = None) -> Tensor:
    """Return SiLU of the normalised `b c ...`.

    Training keeps its input and no step in between: those are computed again on the way back, which saves a sixth of
    the memory for a few percent of the time. A compiler chooses for itself.
    """

    def compute(*inputs: Tensor | None) -> Tensor:
        return F.silu(norm(*inputs))

    if torch.is_grad_enabled() and not torch.compiler.is_compiling():
        return checkpoint(compute, x, scale, shift, use_reentrant=False, preserve_rng_state=False)
    return F.silu(norm(x, scale, shift), inplace=not torch.is_grad_enabled())


class VideoConv(nn.Module):
    """A 3x3 convolution over every frame, then one of length 3 over the frames ("2d+1d" of MM-Diffusion)."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.spatial = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.temporal = nn.Conv2d(out_channels, out_channels, (3, 1), padding=(1, 0))

    def forward(self, x: Tensor) -> Tensor:
        b, h = x.shape[0], x.shape[-2]
        x = self.spatial(rearrange(token_major(x), "b c f h w -> (b f) c h w"))
        x = self.temporal(token_major(rearrange(x, "(b f) c h w -> b c f (h w)", b=b)))
        return token_major(rearrange(x, "b c f (h w) -> b c f h w", h=h))


class AudioConv(nn.Module):
    """A convolution of length 3 along the sound `b c l`, with a dilation, that keeps its length."""

    def __init__(self, in_channels: int, out_channels: int, dilation: int = 1):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, (1, 3), padding=(0, dilation), dilation=(1, dilation))

    def forward(self, x: Tensor) -> Tensor:
        return token_major(self.conv(token_major(x.unsqueeze(2)))).squeeze(2)


class Linear(nn.Linear):
    """A linear layer over tokens `... c`.

    On a CPU it runs as a convolution of size one: PyTorch gives float32 products to MKL and convolutions to oneDNN,
    which is 2.2 times as fast where MKL does not know the processor's widest instructions (docs/performance.md).
    """

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu":
            return super().forward(x)
        tokens = x.reshape(1, 1, -1, x.shape[-1])
        out = F.conv2d(rearrange(tokens, "b h w c -> b c h w"), self.weight[:, :, None, None], self.bias)
        return rearrange(out, "b c h w -> b h w c").reshape(*x.shape[:-1], -1)


class Pointwise(Linear):
    """A linear layer over the channels of `b c ...`: what others write as a convolution of size one."""

    def forward(self, x: Tensor) -> Tensor:
        return rearrange(super().forward(rearrange(x, "b c ... -> b ... c")), "b ... c -> b c ...")


def concatenated(*parts: Tensor) -> Tensor:
    """Put the channels of tensors `b c ...` one behind the other, token by token."""
    return rearrange(torch.cat([rearrange(x, "b c ... -> b ... c") for x in parts], dim=-1), "b ... c -> b c ...")


def down(x: Tensor, factor: int) -> Tensor:
    """Average a picture `b c f h w` over 2x2 pixels, or a sound `b c l` over `factor` steps."""
    if x.ndim == 3:
        return F.avg_pool2d(token_major(x.unsqueeze(2)), (1, factor)).squeeze(2)
    pooled = F.avg_pool2d(rearrange(token_major(x), "b c f h w -> (b f) c h w"), 2)
    return rearrange(pooled, "(b f) c h w -> b c f h w", b=x.shape[0])


def up(x: Tensor, factor: int) -> Tensor:
    """Repeat every pixel of a picture `b c f h w` 2x2 times, or every step of a sound `b c l` `factor` times."""
    if x.ndim == 3:
        return F.interpolate(token_major(x.unsqueeze(2)), scale_factor=(1, factor), mode="nearest").squeeze(2)
    larger = F.interpolate(rearrange(token_major(x), "b c f h w -> (b f) c h w"), scale_factor=2, mode="nearest")
    return rearrange(larger, "(b f) c h w -> b c f h w", b=x.shape[0])


def zeroed(module: nn.Module) -> nn.Module:
    """Set a module's parameters to zero, so that the branch it closes begins as nothing."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


def cast_but_norms(network: nn.Module, dtype: torch.dtype) -> None:
    """Give a network another precision, all but its group norms, which compute in float32."""
    nn.Module.to(network, dtype)
    for module in network.modules():
        if isinstance(module, nn.GroupNorm):
            module.float()


def timestep_embedding(timesteps: Tensor, width: int) -> Tensor:
    """Return the sinusoids `b width` of the timesteps `b`: cosines, then sines, in float32."""
    half = width // 2
    frequencies = torch.exp(-math.log(10_000) * torch.arange(half, device=timesteps.device) / half)
    angles = timesteps.float()[:, None] * frequencies[None]
    return torch.cat([angles.cos(), angles.sin()], dim=1)


class SelfAttention(nn.Module):
    """Residual self-attention over sequences `b c s`, normalised over each sequence of its own."""

    def __init__(self, channels: int, num_heads: int, num_groups: int):
        super().__init__()
        self.num_heads, self.attention_backend = num_heads, "sdpa"
        self.norm = GroupNorm(num_groups, channels)
        self.qkv = Linear(channels, 3 * channels)
        self.out = zeroed(Linear(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        tokens = rearrange(self.norm(x), "b c s -> b s c")
        query, key, value = self.qkv(tokens).chunk(3, dim=-1)
        out = attend(query, key, value, self.num_heads, self.attention_backend)
        return x + rearrange(self.out(out), "b s c -> b c s")
