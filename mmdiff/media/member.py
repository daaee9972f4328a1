"""A media file inside an uncompressed tar: read where it lies, never unpacked."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path


@dataclass(frozen=True)
class Member:
    """The bytes of a tar from `offset` on; `sha256` is what they must hash to, unless empty."""

    tar: Path
    name: str
    offset: int
    num_bytes: int
    sha256: str = ""

    def __str__(self) -> str:
        return f"{self.tar}/{self.name}"

    def open(self, mode: str = "rb") -> BytesIO:
        """Return the member's bytes as a seekable file (only mode "rb").

        Errors: `ValueError` that names the tar where it is missing, too short, or its bytes are not those it was
        written with.
        """
        assert mode == "rb", mode
        return BytesIO(self._data)

    @cached_property
    def _data(self) -> bytes:
        """The bytes, read and checked once however often a window's picture and sound are opened."""
        try:
            with self.tar.open("rb") as file:
                file.seek(self.offset)
                data = file.read(self.num_bytes)
        except OSError as error:
            raise ValueError(f"{self.tar}: cannot be read ({error.strerror}); copy the shard again") from error
        is_whole = len(data) == self.num_bytes
        if not is_whole or (self.sha256 and hashlib.sha256(data).hexdigest() != self.sha256):
            raise ValueError(f"{self.tar}: damaged: {self.name} is not what was written; copy the shard again")
        return data
