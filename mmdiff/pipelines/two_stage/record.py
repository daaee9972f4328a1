"""Files of a run: an MP4 and a JSON that says how it was made; a clip that is not whole never looks finished."""

import hashlib
import json
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mmdiff.media import Clip, write_mp4
from mmdiff.pipelines.two_stage.protocols import BackendInfo


@dataclass(frozen=True)
class Place:
    """Where a clip and its record lie."""

    movie: Path

    @property
    def record(self) -> Path:
        """The JSON beside the MP4."""
        return self.movie.with_suffix(".json")

    def is_finished(self, request: dict[str, Any]) -> bool:
        """Say whether the clip of a request lies there, whole.

        The record is written first and the movie is put beside it last, in one move: where the movie is there, both are
        whole. A record alone is what an interrupted run left.

        Errors: `FileExistsError` where anything else lies there, which would be replaced.
        """
        if not self.record.exists() and not self.movie.exists():
            return False
        told = self._requested()
        if told is None:
            path = self.movie if self.movie.exists() else self.record
            raise FileExistsError(f"{path}: is there already, and nothing is ever replaced; give another place with "
                                  "-o, or move it away")  # fmt: skip
        differing = [name for name in sorted(request.keys() | told.keys()) if request.get(name) != told.get(name)]
        if differing:
            name = differing[0]
            raise FileExistsError(f"{self.record}: was made with {name} {told.get(name)!r}, not {request.get(name)!r}; "
                                  "give another place with -o")  # fmt: skip
        return self.movie.exists()

    def _requested(self) -> dict[str, Any] | None:
        try:
            told = json.loads(self.record.read_text(encoding="utf-8"))["request"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return told if isinstance(told, dict) else None

    def write(self, clip: Clip, facts: dict[str, Any]) -> None:
        """Write the movie aside, then the record, then put the movie in its place.

        Errors: `FileExistsError` where a movie came to lie there meanwhile.
        """
        aside = self.movie.with_name(f".{self.movie.stem}.{uuid.uuid4().hex}.partial.mp4")
        aside_record = aside.with_suffix(".json")
        try:
            write_mp4(aside, clip)
            with aside.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            text = json.dumps({"file": self.movie.name, "sha256": sha256, **facts}, indent=2, ensure_ascii=False)
            aside_record.write_text(text + "\n", encoding="utf-8")
            if self.movie.exists():
                raise FileExistsError(f"{self.movie}: came to lie there while it was made; nothing is ever replaced")
            aside_record.replace(self.record)
            aside.rename(self.movie)
        finally:
            aside.unlink(missing_ok=True)
            aside_record.unlink(missing_ok=True)


def told_info(info: BackendInfo) -> dict[str, Any]:
    """Return what a record says of a backend."""
    facts = {name: value for name, value in asdict(info).items() if value is not None}
    if info.max_seconds is not None:
        facts["max_seconds"] = float(info.max_seconds)
    return facts
