"""What the latents look like to a denoiser: their scale on real clips, and what becomes of noise that is encoded.

A denoiser's noisy latents are sqrt(a) z + sqrt(1 - a) noise. Noise that is added to pixels or samples and then encoded
is something else: here it is measured how much else.
"""

from collections.abc import Sequence
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from mmdiff.models.codec import Codec

NUM_CLIPS = 8
SHARE = 0.5  # of signal and of noise power, each, in the half-noisy state


@torch.no_grad()
def describe_latents(codec: Codec, examples: Sequence[Tensor], seed: int) -> dict[str, Any]:
    """Return mean and deviation of clean latents, and of latents of pure noise, over examples in [-1, 1].

    Pairs of numbers are the least and the largest of a channel; noise that is added to latents has mean 0 and deviation
    1 in all of them. `half_noisy_correlation` is that of encoded half-noisy clips with clean latents, a channel about
    its mean, where noise added to latents leaves `expected_correlation`.
    """
    generator = torch.Generator().manual_seed(seed)
    noises = [torch.randn(x.shape, generator=generator).to(x) for x in examples]
    clean = _encoded(codec, examples)
    noise = _encoded(codec, noises)
    mixed = _encoded(codec, [SHARE**0.5 * x + (1 - SHARE) ** 0.5 * n for x, n in zip(examples, noises)])
    variance = _centred(clean).square().mean()
    return {
        "num_clips": len(examples),
        "mean": float(clean.mean()),
        "std": float(clean.std()),
        "noise_means": [float(end) for end in noise.mean(1).aminmax()],
        "noise_stds": [float(end) for end in noise.std(1).aminmax()],
        "half_noisy_correlation": _correlation(mixed, clean),
        "expected_correlation": float((SHARE * variance / (SHARE * variance + 1 - SHARE)).sqrt()),
    }


def _encoded(codec: Codec, examples: Sequence[Tensor]) -> Tensor:
    """Return the latents of examples, `c n`."""
    return torch.cat([rearrange(codec.encode(x), "b c ... -> c (b ...)").float().cpu() for x in examples], dim=1)


def _centred(latents: Tensor) -> Tensor:
    return latents - latents.mean(1, keepdim=True)


def _correlation(first: Tensor, second: Tensor) -> float | None:
    first, second = _centred(first), _centred(second)
    norm = (first.square().sum() * second.square().sum()).sqrt()
    return float((first * second).sum() / norm) if norm > 0 else None
