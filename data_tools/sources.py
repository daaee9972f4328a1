"""Recordings to cut: listing a folder or an fsspec URL, what is told beside each, and copies of remote ones."""

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from data_tools.dataset import VIDEO_ENDINGS, list_videos, open_set
from mmdiff.data.manifest import MANIFEST_NAME

LICENCE_NAMES = ("licence", "license")
CAPTION_NAMES = ("caption", "text")
ORIGIN_NAMES = ("webpage_url", "url", "origin")
MAX_SIDECAR = 2**20
BLOCK = 2**22


@dataclass(frozen=True)
class Source:
    """A recording: its path relative to the folder or URL listed, where it is, and what is told of it.

    location: a file's path, or a URL for fsspec. stamp: changes when the file does. group: sources of one group go to
    one split. events: time, kind and detail of what happens in it.
    """

    name: str
    location: str
    stamp: str
    num_bytes: int
    group: str
    caption: str = ""
    licence: str = ""
    origin: str = ""
    events: tuple[dict[str, Any], ...] = field(default=())

    @property
    def state_name(self) -> str:
        """A file name of its own for the recording's state."""
        digest = hashlib.sha256(self.name.encode()).hexdigest()[:10]
        return re.sub(r"[^A-Za-z0-9_-]+", "-", PurePosixPath(self.name).stem)[:60] + f"-{digest}"


def list_sources(place: str) -> list[Source]:
    """Return the recordings of a folder, of a data set with a manifest, or below a URL, in the order of their names.

    Beside a recording `x.mp4`, `x.txt` is its caption, and `x.json` or `x.info.json` may tell its `licence`, `caption`
    and `url` (the names yt-dlp writes do, too). Errors: `ValueError` where there is no recording.
    """
    if "://" in place:
        sources = _list_remote(place)
    else:
        folder = Path(place)
        if not folder.is_dir():
            raise ValueError(f"{place}: no such folder; name a folder of recordings, or a URL such as s3://bucket/path")
        sources = _list_set(folder) if (folder / MANIFEST_NAME).is_file() else _list_folder(folder)
    if not sources:
        raise ValueError(f"{place}: no recordings here; known endings are {' '.join(sorted(VIDEO_ENDINGS))}")
    return sources


def is_remote(source: Source) -> bool:
    """Whether a recording has to be copied before it can be read."""
    return "://" in source.location


def fetch(source: Source, folder: Path, tell: Callable[[], None] = lambda: None) -> Path:
    """Copy a remote recording into a folder, piece by piece, and return the copy.

    Errors: `ValueError` where it cannot be read.
    """
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / (source.state_name + PurePosixPath(source.name).suffix)
    try:
        with _fsspec().open(source.location, "rb") as remote, target.open("wb") as local:
            while block := remote.read(BLOCK):
                local.write(block)
                tell()
    except (OSError, RuntimeError) as error:
        target.unlink(missing_ok=True)
        raise ValueError(f"{source.location}: cannot be read ({error})") from error
    return target


def _list_folder(folder: Path) -> list[Source]:
    sources = []
    for path in list_videos(folder):
        beside = {name: _read_text(path.with_name(name)) for name in _sidecar_names(path.name)}
        sources.append(_local_source(folder, path.relative_to(folder).as_posix(), **_told(path.name, beside)))
    return sources


def _list_set(folder: Path) -> list[Source]:
    """Return the clips of a data set as recordings, with its captions, licences, events and groups."""
    sources = []
    for row in sorted(open_set(folder).rows, key=lambda row: row.path):
        values = row.values
        told = {"caption": str(values.get("caption") or ""), "licence": str(values.get("licence") or "")}
        events = tuple(dict(event) for event in values.get("events") or ())
        sources.append(_local_source(folder, row.path, group=row.source, events=events, **told))
    return sources


def _local_source(folder: Path, name: str, group: str = "", **told) -> Source:
    path = folder / name
    stat = path.stat() if path.is_file() else None
    size, stamp = (stat.st_size, f"{stat.st_size}-{stat.st_mtime_ns}") if stat else (0, "missing")
    return Source(name=name, location=str(path), stamp=stamp, num_bytes=size, group=group or name, **told)


def _list_remote(url: str) -> list[Source]:
    fsspec = _fsspec()
    try:
        system, root = fsspec.core.url_to_fs(url)
        found = {path: info for path, info in system.find(root, detail=True).items() if info["type"] == "file"}
    except (OSError, ValueError, ImportError) as error:
        raise ValueError(
            f"{url}: cannot be listed ({error}); check the address and what fsspec needs for it"
        ) from error
    sources = []
    for path in sorted(found):
        name = path[len(root) :].lstrip("/") or PurePosixPath(path).name
        is_hidden = any(part.startswith(".") for part in PurePosixPath(name).parts)
        if PurePosixPath(path).suffix.lower() not in VIDEO_ENDINGS or is_hidden:
            continue
        beside = {}
        for sidecar in _sidecar_names(PurePosixPath(path).name):
            place = str(PurePosixPath(path).with_name(sidecar))
            if place in found and found[place]["size"] <= MAX_SIDECAR:
                beside[sidecar] = system.cat_file(place).decode("utf-8", errors="replace")
        info = found[path]
        stamp = "-".join(str(info.get(key, "")) for key in ("size", "ETag", "etag", "LastModified", "mtime"))
        told = _told(PurePosixPath(path).name, beside)
        location = system.unstrip_protocol(path)
        sources.append(Source(name, location, stamp, int(info["size"] or 0), group=name, **told))
    return sources


def _sidecar_names(name: str) -> list[str]:
    stem = PurePosixPath(name).stem
    return [f"{stem}.txt", f"{stem}.json", f"{stem}.info.json"]


def _told(name: str, beside: dict[str, str]) -> dict[str, str]:
    """Return caption, licence and origin from the texts of the files beside a recording."""
    stem = PurePosixPath(name).stem
    told = {"caption": beside.get(f"{stem}.txt", "").strip(), "licence": "", "origin": ""}
    for sidecar in (f"{stem}.info.json", f"{stem}.json"):
        try:
            values = json.loads(beside.get(sidecar) or "{}")
        except ValueError as error:
            raise ValueError(f"{sidecar}: not JSON ({error}); mend or remove it") from error
        if not isinstance(values, dict):
            continue
        for key, names in (("licence", LICENCE_NAMES), ("caption", CAPTION_NAMES), ("origin", ORIGIN_NAMES)):
            told[key] = next((str(values[name]) for name in names if values.get(name)), told[key])
    return told


def _read_text(path: Path) -> str:
    if not path.is_file() or path.stat().st_size > MAX_SIDECAR:
        return ""
    return path.read_text(encoding="utf-8", errors="replace")


def _fsspec():
    try:
        import fsspec
    except ImportError as error:
        raise ValueError("fsspec is missing; install it with `pip install 'mmdiff[data]'`") from error
    return fsspec
