"""A data set in shards: WebDataset tars whose clips are read where they lie, without unpacking."""

import json
import re
import tarfile
from pathlib import Path, PurePosixPath

from mmdiff.data.manifest import ShardEntry, parse_line

SHARDS_NAME = "shards"
INDEX_NAME = "index.json"
SHARD_PATTERN = re.compile(r"(train|validation|test)-\d{6}\.tar")
SIDE_ENDINGS = {".json", ".txt", ".flac"}


def has_shards(folder: Path) -> bool:
    """Say whether a folder holds a set in shards."""
    return (Path(folder) / SHARDS_NAME / INDEX_NAME).is_file()


def read_index(folder: Path) -> dict:
    """Return what `shards/index.json` says: `shards` is a list of `name num_clips num_bytes sha256`.

    Errors: `ValueError` where it is malformed.
    """
    path = Path(folder) / SHARDS_NAME / INDEX_NAME
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
        shards, _ = index["shards"], index["is_complete"]
        names_are_sound = all(SHARD_PATTERN.fullmatch(shard["name"]) for shard in shards)
        if not names_are_sound or not all(
            int(shard[name]) >= 0 for shard in shards for name in ("num_bytes", "num_clips")
        ):
            raise ValueError("a shard's name or counts")
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise ValueError(f"{path}: not an index of shards ({error}); run `mmdiff-data shard` again") from error
    return index


def read_shards(folder: Path) -> list[ShardEntry]:
    """Return the clips of a set in shards in their order; of the tars only the headers and rows are read.

    Errors: `ValueError` that names the tar which is missing or damaged, or the index where it is not complete.
    """
    folder = Path(folder)
    index = read_index(folder)
    if not index["is_complete"]:
        raise ValueError(f"{folder}: the shards are not all written; run `mmdiff-data shard` again, it goes on")
    return [entry for shard in index["shards"] for entry in _read_shard(folder, shard)]


def _read_shard(folder: Path, shard: dict) -> list[ShardEntry]:
    name = f"{SHARDS_NAME}/{shard['name']}"
    path = folder / name
    size = path.stat().st_size if path.is_file() else None
    if size != shard["num_bytes"]:
        held = "is missing" if size is None else f"has {size} bytes"
        raise ValueError(f"{path}: {held}, the index says {shard['num_bytes']} bytes; copy the shard again")
    rows, media = {}, {}
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                ending = PurePosixPath(member.name).suffix
                key = member.name.removesuffix(ending)
                if ending == ".json":
                    rows[key] = tar.extractfile(member).read().decode("utf-8")
                elif ending not in SIDE_ENDINGS:
                    media[key] = member
    except (tarfile.TarError, OSError, UnicodeDecodeError, AttributeError) as error:
        raise ValueError(f"{path}: damaged ({error}); copy the shard again") from error
    if rows.keys() != media.keys() or len(rows) != shard["num_clips"]:
        raise ValueError(
            f"{path}: damaged: it holds {len(media)} clips and {len(rows)} rows, the index says {shard['num_clips']}; "
            "copy the shard again"
        )
    return [_entry(f"{name}/{member.name}", member, rows[key], f"{path}: {key}.json") for key, member in media.items()]


def _entry(path: str, member: tarfile.TarInfo, row: str, where: str) -> ShardEntry:
    entry = parse_line(row, where)
    return ShardEntry(**{**vars(entry), "path": path}, offset=member.offset_data, num_bytes=member.size)
