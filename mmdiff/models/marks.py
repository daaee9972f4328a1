"""Marks: one more channel that tells a network which latent steps it is given clean."""

from collections.abc import Mapping

import torch
from torch import Tensor

State = dict[str, Tensor]


def marked(noisy: State, given: Mapping[str, Tensor] | None, has_channel: bool) -> State:
    """Return latents video `b c f h w` and audio `b c l`, each with a channel of 1 where a step is given, else 0.

    `given` holds bool `b s` or `s` for the steps of a modality; of one that it does not name nothing is given.

    Errors: `ValueError` where steps are given to a network without the channel.
    """
    if not has_channel:
        if given:
            raise ValueError("model: steps are marked as given, but this network has no given_channel; condition it by "
                             "replacement or gradient, or train one with the channel")  # fmt: skip
        return noisy
    return {name: torch.cat([x, _mark(x, (given or {}).get(name))], dim=1) for name, x in noisy.items()}


def _mark(x: Tensor, given: Tensor | None) -> Tensor:
    """Return the channel `b 1 ...` of one modality."""
    if given is None:
        return torch.zeros_like(x[:, :1])
    steps = given.to(x).expand(len(x), x.shape[2])
    return steps[:, None, :, *[None] * (x.ndim - 3)].expand(-1, 1, *x.shape[2:])
