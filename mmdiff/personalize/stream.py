"""The endless stream of batches of pictures of a concept, and beside each of them one of its class."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmdiff.personalize.batches import ConceptBatches
from mmdiff.personalize.concepts import Picture, View, nearest_bucket, read_view


@dataclass(frozen=True)
class StreamConfig:
    """How pictures become examples: sizes (height, width) to choose from, mirrored or cut at random or not."""

    buckets: list[tuple[int, int]]
    random_flip: bool = False
    center_crop: bool = True
    reads_pixels: bool = False


class ConceptStream(ConceptBatches):
    """Batches of instance pictures, all of one size, and as many of the class where there are any.

    Over as many batches as there are pictures every picture is taken as often as any other. `captions(picture,
    is_class, rng)` says what an example is called.
    """

    def __init__(self, pictures: list[Picture], class_pictures: list[Picture], config: StreamConfig,
                 captions: Callable[[Picture, bool, np.random.Generator], str], *, batch_size: int, seed: int,
                 rank: int = 0, world_size: int = 1):  # fmt: skip
        super().__init__(batch_size=batch_size, seed=seed, rank=rank, world_size=world_size)
        self.pictures, self.class_pictures, self.config, self.captions = pictures, class_pictures, config, captions
        self.by_bucket: dict[tuple[int, int], list[Picture]] = {}
        for picture in pictures:
            self.by_bucket.setdefault(nearest_bucket(picture, config.buckets), []).append(picture)

    def views(self) -> list[tuple[Picture, View, bool]]:
        """Return every picture in every way that it can be looked at, and whether it is of the class: for caches."""
        flips = (False, True) if self.config.random_flip else (False,)
        own = [(picture, View(*size, flip), False) for size, pictures in self.by_bucket.items() for picture in pictures
               for flip in flips]  # fmt: skip
        return own + [(picture, View(*size, flip), True) for size in self.by_bucket for picture in self.class_pictures
                      for flip in flips]  # fmt: skip

    def files(self) -> Iterator[tuple[Path, str]]:
        """Yield every picture's file and caption: those of the concept, then those of the class."""
        for picture in (*self.pictures, *self.class_pictures):
            yield picture.path, picture.caption

    def batch(self, number: int) -> dict[str, Any]:
        """Return batch `number` of this rank: pictures, views and captions, `is_class` (bool `b`), pixels if asked."""
        number = number * self.world_size + self.rank
        size, pictures, turn = self._bucket(number)
        chosen = [(picture, False) for picture in self._taken(pictures, turn, 0)]
        chosen += [(picture, True) for picture in self._taken(self.class_pictures, number, 1)]
        rng = np.random.default_rng((self.seed, number, 2))
        views = [self._view(size, rng) for _ in chosen]
        batch = {
            "picture": [picture for picture, _ in chosen],
            "view": views,
            "caption": [self.captions(picture, is_class, rng) for picture, is_class in chosen],
            "is_class": torch.tensor([is_class for _, is_class in chosen]),
        }
        if self.config.reads_pixels:
            batch["pixels"] = torch.stack([read_view(picture, view) for (picture, _), view in zip(chosen, views)])
        return batch

    def _bucket(self, number: int) -> tuple[tuple[int, int], list[Picture], int]:
        """Return the bucket of a batch, its pictures, and how many batches it gave before.

        In a round of as many batches as there are pictures a bucket has as many turns as it has pictures.
        """
        turns = [size for size, pictures in self.by_bucket.items() for _ in pictures]
        cycle, place = divmod(number, len(turns))
        order = np.random.default_rng((self.seed, cycle, 3)).permutation(len(turns))
        size = turns[order[place]]
        before = sum(turns[index] == size for index in order[:place])
        pictures = self.by_bucket[size]
        return size, pictures, cycle * len(pictures) + before

    def _taken(self, pictures: list[Picture], turn: int, kind: int) -> list[Picture]:
        """Return the pictures of a bucket's `turn`: each once, in a new order, before any comes again."""
        taken = []
        for position in range(turn * self.batch_size, (turn + 1) * self.batch_size) if pictures else ():
            epoch, index = divmod(position, len(pictures))
            order = np.random.default_rng((self.seed, epoch, len(pictures), 4 + kind)).permutation(len(pictures))
            taken.append(pictures[order[index]])
        return taken

    def _view(self, size: tuple[int, int], rng: np.random.Generator) -> View:
        chances = rng.random(3)
        cut = (0.5, 0.5) if self.config.center_crop else (float(chances[1]), float(chances[2]))
        return View(*size, bool(self.config.random_flip and chances[0] < 0.5), cut)
