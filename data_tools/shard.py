"""`mmdiff-data shard`: a set as WebDataset tars, byte for byte the same for the same set.

out/shards/<split>-000000.tar    <key>.mp4 .json, .txt where there is a caption, .flac where the clip holds FLAC
out/shards/index.json            every tar's clips, bytes and sha256
"""

import hashlib
import io
import json
import os
import re
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import av
from tqdm import tqdm

from data_tools.dataset import file_sha256, open_set, write_text
from mmdiff.data.manifest import MANIFEST_NAME, SPLITS
from mmdiff.data.shards import INDEX_NAME, SHARDS_NAME, read_index
from mmdiff.data.windows import read_entries


@dataclass(frozen=True)
class Packed:
    """One clip to pack: its file, its name in the tar, and its row."""

    file: Path
    key: str
    row: Mapping[str, Any]


def shard_set(folder: Path, out: Path, *, shard_megabytes: int = 512) -> dict[str, Any]:
    """Write a set's clips into tars of about `shard_megabytes` and return the index; goes on where it was stopped.

    Clips keep the order of the set's manifest within each split. Errors: `ValueError` where the set is malformed, a
    file is missing or is not the one listed, or `out` holds other shards.
    """
    if shard_megabytes < 1:
        raise ValueError(f"--shard-megabytes is {shard_megabytes}; give at least 1")
    plan = plan_shards(list_clips(folder), shard_megabytes * 2**20)
    digest = _plan_digest(plan)
    place = out / SHARDS_NAME
    place.mkdir(parents=True, exist_ok=True)
    done: dict[str, dict] = {}
    if (place / INDEX_NAME).is_file():
        index = read_index(out)
        if index.get("plan_sha256") != digest:
            raise ValueError(f"{place}: holds shards of another set or size; name a new folder")
        done = {shard["name"]: shard for shard in index["shards"]}
    shards: list[dict] = []
    with tqdm(total=sum(map(len, plan.values())), desc="shard", unit="clip", disable=None) as bar:
        for name, clips in plan.items():
            shard = done.get(name)
            if shard is None or not _is_whole(place / name, shard):
                shard = write_shard(place / name, clips)
            shards.append(shard)
            _write_index(place, digest, shards, is_complete=len(shards) == len(plan))
            bar.update(len(clips))
    return read_index(out)


def list_clips(folder: Path) -> list[Packed]:
    """Return a set's clips in its order: a manifest's rows, or what looking into a plain folder's files tells."""
    entries, names = read_entries(folder), set()
    rows = [{**asdict(entry), "fps": str(entry.fps)} for entry in entries]
    if (folder / MANIFEST_NAME).is_file():
        rows = [{**row.values} for row in open_set(folder).rows]
    clips = []
    for entry, row in zip(entries, rows, strict=True):
        file = folder / entry.path
        if not file.is_file():
            raise ValueError(f"{file}: no such file; shard the unpacked set, and run `mmdiff-data verify` on it")
        row |= {"path": entry.path, "key": entry.key, "split": entry.split}
        row["sha256"] = entry.sha256 or file_sha256(file)
        clips.append(Packed(file, plain_key(entry.key, names), row))
    return clips


def plain_key(text: str, names: set[str]) -> str:
    """Return a name without dots and folders that is no other's, as WebDataset's keys must be; adds it to `names`."""
    plain = re.sub(r"[^A-Za-z0-9_-]+", "_", text).strip("_") or "clip"
    key, number = plain, 2
    while key in names:
        key, number = f"{plain}-{number}", number + 1
    names.add(key)
    return key


def plan_shards(clips: Sequence[Packed], max_bytes: int) -> dict[str, list[Packed]]:
    """Return which clips go into which tar: each is closed before its media files pass `max_bytes`."""
    plan: dict[str, list[Packed]] = {}
    for split in SPLITS:
        number, filled = -1, max_bytes
        for clip in (clip for clip in clips if clip.row["split"] == split):
            size = clip.file.stat().st_size
            if number < 0 or filled + size > max_bytes:
                number, filled = number + 1, 0
                plan[f"{split}-{number:06d}.tar"] = []
            plan[f"{split}-{number:06d}.tar"].append(clip)
            filled += size
    return plan


def write_shard(path: Path, clips: Sequence[Packed]) -> dict[str, Any]:
    """Write one tar, aside first and then renamed, and return its line of the index."""
    aside = path.with_name(f".{path.name}.partial")
    with aside.open("wb") as file:
        with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as tar:
            for clip in clips:
                for name, data in clip_members(clip).items():
                    info = tarfile.TarInfo(name)  # owner, group and time stay 0
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
        file.flush()
        os.fsync(file.fileno())
    shard = {
        "name": path.name, "num_clips": len(clips), "num_bytes": aside.stat().st_size, "sha256": file_sha256(aside),
    }  # fmt: skip
    aside.replace(path)
    return shard


def clip_members(clip: Packed) -> dict[str, bytes]:
    """Return a clip's files by their names in the tar, sorted by ending.

    Errors: `ValueError` where the media file is not the one listed.
    """
    media = clip.file.read_bytes()
    if hashlib.sha256(media).hexdigest() != clip.row["sha256"]:
        raise ValueError(f"{clip.file}: not the file that was listed (another sha256); run `mmdiff-data verify`")
    row = json.dumps(clip.row, sort_keys=True, ensure_ascii=False).encode()
    members = {f"{clip.key}{clip.file.suffix.lower()}": media, f"{clip.key}.json": row}
    if caption := str(clip.row.get("caption") or ""):
        members[f"{clip.key}.txt"] = caption.encode()
    if sound := copy_flac(media, clip.file):
        members[f"{clip.key}.flac"] = sound
    return dict(sorted(members.items()))


def copy_flac(media: bytes, where: Path) -> bytes:
    """Return a media file's sound as a FLAC file, its packets as they are; nothing where its codec is another."""
    target = io.BytesIO()
    try:
        with av.open(io.BytesIO(media)) as source:
            if not source.streams.audio or source.streams.audio[0].codec_context.name != "flac":
                return b""
            options = {"fflags": "+bitexact"}  # no version of the library in the file
            with av.open(target, "w", format="flac", container_options=options) as copy:
                stream = copy.add_stream_from_template(source.streams.audio[0])
                for packet in source.demux(source.streams.audio[0]):
                    if packet.size:
                        packet.stream = stream
                        copy.mux(packet)
    except av.error.FFmpegError as error:
        raise ValueError(f"{where}: damaged or not a media file ({error.strerror})") from error
    return target.getvalue()


def _plan_digest(plan: Mapping[str, Sequence[Packed]]) -> str:
    told = [[name, [[clip.key, sorted(clip.row.items())] for clip in clips]] for name, clips in plan.items()]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def _is_whole(path: Path, shard: Mapping[str, Any]) -> bool:
    return path.is_file() and path.stat().st_size == shard["num_bytes"] and file_sha256(path) == shard["sha256"]


def _write_index(place: Path, digest: str, shards: Sequence[Mapping[str, Any]], *, is_complete: bool) -> None:
    index = {
        "is_complete": is_complete,
        "num_clips": sum(shard["num_clips"] for shard in shards),
        "plan_sha256": digest,
        "shards": list(shards),
    }
    write_text(place / INDEX_NAME, json.dumps(index, indent=1, sort_keys=True) + "\n")
