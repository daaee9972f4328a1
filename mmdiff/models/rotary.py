"""Rotary position embedding whose time is in seconds: one time grid for latents of any rate (Su et al. 2021).

A token's place is the middle of the time that it covers, so that a frame and the sound heard during it are near each
other whatever the two rates are; attention between them depends on their distance in seconds alone.
"""

import math

import torch
from torch import Tensor

SPATIAL_WAVELENGTHS = (4.0, 400.0)  # in patches


def middles(num_steps: int, step: float, first_step: float, device: torch.device | None = None) -> Tensor:
    """Return the time `s` at the middle of every latent step, in seconds, where steps last `step` but for the first."""
    numbers = torch.arange(num_steps, device=device, dtype=torch.float32)
    return torch.where(numbers == 0, first_step / 2, first_step + (numbers - 0.5) * step)


def phases(positions: Tensor, num_pairs: int, wavelengths: tuple[float, float]) -> Tensor:
    """Return the angle `s p` of every pair of channels at positions `s`: wavelengths in geometric progression.

    Positions and wavelengths share a unit, so that the angles of seconds are the same for every modality.
    """
    shortest, longest = wavelengths
    share = torch.arange(num_pairs, device=positions.device, dtype=torch.float32) / max(num_pairs - 1, 1)
    lengths = shortest * (longest / shortest) ** share
    return positions[:, None] * (2 * math.pi / lengths)


def split_pairs(head_channels: int) -> tuple[int, int]:
    """Return how many pairs of a head's channels turn with time, and how many with each axis of the picture."""
    pairs = head_channels // 2
    spatial = pairs // 4
    return pairs - 2 * spatial, spatial


def token_angles(times: Tensor, places: Tensor | None, head_channels: int, wavelengths: tuple[float, float]) -> Tensor:
    """Return the angles `s p` of tokens at `times` `s` in seconds and `places` `s 2` in patches (None: sound).

    Pairs that turn with the picture's axes stand still for sound.
    """
    num_time, num_spatial = split_pairs(head_channels)
    in_time = phases(times, num_time, wavelengths)
    if places is None:
        return torch.cat([in_time, in_time.new_zeros(len(times), 2 * num_spatial)], dim=1)
    axes = [phases(places[:, axis], num_spatial, SPATIAL_WAVELENGTHS) for axis in (0, 1)]
    return torch.cat([in_time, *axes], dim=1)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the pairs (channel i, channel i + d/2) of heads `b s n d` by the angles whose cosines are `s d/2`."""
    first, second = x.chunk(2, dim=-1)
    cos, sin = cos[:, None], sin[:, None]
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)
