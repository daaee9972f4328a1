"""Streams of batches of a concept's files, which go on only with the files that they began with."""

import hashlib
from abc import abstractmethod
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from mmdiff.data.stream import BatchStream
from mmdiff.pretrained import hash_path


class ConceptBatches(BatchStream):
    """An endless stream of batches made of a few files; its state holds their hash."""

    @abstractmethod
    def files(self) -> Iterator[tuple[Path, str]]:
        """Yield every file in order, and the caption that lies beside it, "" for none."""

    def loader(self, num_workers: int) -> Any:
        """Return what hands out the batches: worker processes, or where there are none the stream itself."""
        if not num_workers:
            return self
        from mmdiff.data.loader import as_loader

        return as_loader(self, num_workers)

    @cached_property
    def fingerprint(self) -> str:
        """What the files are known by: the hash of their contents and captions, whatever they are called."""
        digest = hashlib.sha256()
        for path, caption in self.files():
            digest.update(f"{hash_path(path)}\0{caption}\0".encode())
        return digest.hexdigest()

    def state_dict(self) -> dict[str, Any]:
        """Return where the stream stands, and in which files."""
        return {**super().state_dict(), "files": self.fingerprint}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where a stream stood.

        Errors: `ValueError` where the files or their captions are others.
        """
        if state["files"] != self.fingerprint:
            raise ValueError("instance_data_dir: its files or captions, or those of the class or the background, are "
                             "not those that this run began with; restore them, or begin another run with a new "
                             "output_dir")  # fmt: skip
        super().load_state_dict(state)
