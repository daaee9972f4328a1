"""The manifest: one JSON line for every clip file of a data set."""

import json
import os
from dataclasses import asdict, dataclass, field, fields
from fractions import Fraction
from pathlib import Path

from mmdiff.media.member import Member

MANIFEST_NAME = "manifest.jsonl"
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Event:
    """Something seen and heard at one moment: its time in seconds from the clip's start, and what it is."""

    time: float
    kind: str
    detail: str = ""


@dataclass(frozen=True)
class Entry:
    """One clip file: where it lies (relative to the manifest), what is in it, and where it comes from."""

    path: str
    key: str
    source: str
    split: str
    fps: Fraction
    num_frames: int
    height: int
    width: int
    sample_rate: int
    channels: int
    num_samples: int
    caption: str = ""
    licence: str = ""
    sha256: str = ""
    events: tuple[Event, ...] = field(default=())
    begin_seconds: float = 0.0  # until then one of the streams has not begun
    is_variable_frame_rate: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "fps", Fraction(self.fps))
        object.__setattr__(self, "events", tuple(e if isinstance(e, Event) else Event(**e) for e in self.events))
        if self.split not in SPLITS:
            raise ValueError(f"manifest: {self.key} is in split '{self.split}'; use one of {', '.join(SPLITS)}")

    @property
    def duration_seconds(self) -> Fraction:
        """Exact duration of the picture, in seconds."""
        return self.num_frames / self.fps


@dataclass(frozen=True)
class ShardEntry(Entry):
    """A clip inside a shard: `path` is the tar's and the member's name, the rest where its bytes lie in the tar."""

    offset: int = 0
    num_bytes: int = 0


def write_manifest(folder: Path, entries: list[Entry]) -> Path:
    """Write the entries as `manifest.jsonl` in the folder, aside first and then renamed; return its path."""
    folder = Path(folder)
    path = folder / MANIFEST_NAME
    aside = folder / f".{MANIFEST_NAME}.partial"
    with aside.open("w", encoding="utf-8") as file:
        for entry in entries:
            file.write(json.dumps({**asdict(entry), "fps": str(entry.fps)}, sort_keys=True) + "\n")
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)
    return path


def read_manifest(folder: Path) -> list[Entry]:
    """Read the manifest of a data set's folder.

    Errors: `ValueError` that names the file and line where the manifest is missing or malformed, or where a path leads
    out of the folder.
    """
    path = Path(folder) / MANIFEST_NAME
    if not path.is_file():
        raise ValueError(f"{path}: no manifest here; make one with `mmdiff-data synthesize` or `mmdiff-data record`")
    entries = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if line.strip():
            entries.append(parse_line(line, f"{path}:{number}"))
    return entries


def entry_path(folder: Path, entry: Entry) -> Path | Member:
    """Return where an entry's file lies, which must be inside the data set's folder: its path, or a tar's member."""
    root = Path(folder).resolve()
    path = (root / entry.path).resolve()
    if not path.is_relative_to(root):
        raise ValueError(f"{entry.path}: this path leads out of {folder}; a manifest may only name files below it")
    if isinstance(entry, ShardEntry):
        return Member(path.parent, path.name, entry.offset, entry.num_bytes, entry.sha256)
    return path


def parse_line(line: str, where: str) -> Entry:
    """Return the entry that a JSON text describes; errors name `where` it stands."""
    known = {f.name for f in fields(Entry)}
    try:
        values = json.loads(line)
        entry = Entry(**{name: value for name, value in values.items() if name in known})
    except (TypeError, ValueError, AttributeError, ZeroDivisionError) as error:
        raise ValueError(f"{where}: not a manifest line ({error})") from error
    if Path(entry.path).is_absolute() or ".." in Path(entry.path).parts:
        raise ValueError(f"{where}: path '{entry.path}' leads out of the folder; write it relative, without '..'")
    return entry
