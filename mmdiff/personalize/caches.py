"""What does not change while a concept is learned is computed once: latents by picture and view, conditions by caption.

A cache is asked by key, never by position: the wrong caption for a latent cannot happen.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from mmdiff.personalize.backbones.base import Posterior
from mmdiff.personalize.concepts import Picture, View, read_view


class LatentCache:
    """The autoencoder's posteriors of pictures, kept on the CPU; `encode` makes one of an image `1 3 h w`."""

    def __init__(self, encode: Callable[[Tensor], Posterior]):
        self.encode = encode
        self.kept: dict[tuple[str, View], Posterior] = {}

    def one(self, picture: Picture, view: View) -> Posterior:
        """Return the posterior of a picture, of batch size 1."""
        key = picture.key, view
        if key not in self.kept:
            made = self.encode(read_view(picture, view)[None])
            self.kept[key] = Posterior(made.mean.cpu(), made.std.cpu())
        return self.kept[key]

    def many(self, pictures: Sequence[Picture], views: Sequence[View], device: torch.device) -> Posterior:
        """Return the posteriors of a batch, on a device."""
        found = [self.one(picture, view) for picture, view in zip(pictures, views, strict=True)]
        mean, std = (torch.cat([getattr(each, name) for each in found]).to(device) for name in ("mean", "std"))
        return Posterior(mean, std)


class TextCache:
    """A frozen model's conditions of captions, kept on the CPU; `encode` makes those of a list of captions."""

    def __init__(self, encode: Callable[[Sequence[str]], dict[str, Tensor]]):
        self.encode = encode
        self.kept: dict[str, dict[str, Tensor]] = {}

    def __contains__(self, caption: str) -> bool:
        return caption in self.kept

    @torch.no_grad()
    def many(self, captions: Sequence[str], device: torch.device) -> dict[str, Tensor]:
        """Return the conditions of captions, on a device.

        Each is encoded by itself and in its encoder's own precision, and so the same in any batch and at any time.
        """
        for caption in dict.fromkeys(captions):
            if caption not in self.kept:
                with torch.autocast(device.type, enabled=False):
                    self.kept[caption] = {name: value.cpu() for name, value in self.encode([caption]).items()}
        found = [self.kept[caption] for caption in captions]
        return {name: torch.cat([each[name] for each in found]).to(device) for name in found[0]}
