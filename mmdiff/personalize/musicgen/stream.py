"""The endless stream of batches of chunks, whose position is part of the checkpoint."""

import hashlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch

from mmdiff.personalize.musicgen.data import Chunk


class ChunkStream:
    """The endless stream of a rank's batches: codes `b k t` with `pad` after the shorter ones, and captions.

    Every chunk comes once before any comes again, in an order of its own each time; a batch is a function of seed and
    position alone.
    """

    def __init__(
        self, chunks: Sequence[Chunk], *, batch_size: int, pad: int, seed: int, rank: int = 0, world_size: int = 1
    ) -> None:
        self.chunks, self.batch_size, self.pad, self.seed = chunks, batch_size, pad, seed
        self.rank, self.world_size, self.position = rank, world_size, 0

    def __iter__(self) -> Iterator[dict[str, Any]]:
        while True:
            first = (self.position * self.world_size + self.rank) * self.batch_size
            self.position += 1
            yield self._batch([self.chunks[self._at(place)] for place in range(first, first + self.batch_size)])

    def state_dict(self) -> dict[str, Any]:
        """Return how many batches were handed out, and of which chunks."""
        return {"position": self.position, "chunks": self.fingerprint}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on after so many batches.

        Errors: `ValueError` where the chunks or their captions are others.
        """
        if state["chunks"] != self.fingerprint:
            raise ValueError("dataset_path: its music or its captions are not those that this run began with; restore "
                             "them, or begin another run with a new output_dir")  # fmt: skip
        self.position = state["position"]

    @cached_property
    def fingerprint(self) -> str:
        """What the chunks are known by: the hash of their captions and codes, in order."""
        digest = hashlib.sha256()
        for chunk in self.chunks:
            digest.update(f"{chunk.caption}\0{tuple(chunk.codes.shape)}".encode() + chunk.codes.numpy().tobytes())
        return digest.hexdigest()

    def _at(self, place: int) -> int:
        turn, rest = divmod(place, len(self.chunks))
        return int(np.random.default_rng((self.seed, turn)).permutation(len(self.chunks))[rest])

    def _batch(self, chunks: Sequence[Chunk]) -> dict[str, Any]:
        longest = max(chunk.codes.shape[1] for chunk in chunks)
        codes = torch.full((len(chunks), len(chunks[0].codes), longest), self.pad)
        for row, chunk in zip(codes, chunks):
            row[:, : chunk.codes.shape[1]] = chunk.codes
        return {"codes": codes, "caption": [chunk.caption for chunk in chunks]}
