"""What a method trains of a pretrained model, as a module of its own: it alone is checkpointed and averaged."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


class Trained(nn.Module):
    """Parameters of a larger model by dotted name. They are the model's own: what changes here changes there.

    `named` are made to learn, in float32.
    """

    def __init__(self, named: dict[str, nn.Parameter]):
        super().__init__()
        for name, parameter in named.items():
            parameter.data = parameter.data.float()
            parameter.requires_grad_(True)
            *path, last = name.split(".")
            place = self
            for step in path:
                if step not in place._modules:
                    place.add_module(step, nn.Module())
                place = place._modules[step]
            place.register_parameter(last, parameter)

    def enable_gradient_checkpointing(self) -> None:
        """Do nothing: the task does so for the whole model, of which this is a part."""

    def compile(self, *arguments: object, **options: object) -> None:
        """Do nothing: as above."""


@contextmanager
def in_place_of(live: Trained, other: nn.Module) -> Iterator[None]:
    """Inside this context the model holds the numbers of `other`, a copy of `live`: say, the moving average."""
    pairs = list(zip(live.parameters(), other.parameters(), strict=True))
    if other is live:
        yield
        return
    kept = [ours.data for ours, _ in pairs]
    try:
        for ours, theirs in pairs:
            ours.data = theirs.data.to(ours.device, ours.dtype)
        with torch.no_grad():
            yield
    finally:
        for (ours, _), values in zip(pairs, kept):
            ours.data = values
