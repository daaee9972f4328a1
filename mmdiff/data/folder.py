"""A plain folder of media files as a data set: what a manifest would say, found out by looking."""

import hashlib
import json
import math
import uuid
from fractions import Fraction
from pathlib import Path

from tqdm import tqdm

from mmdiff.data.manifest import MANIFEST_NAME, SPLITS, Entry
from mmdiff.log import get_logger
from mmdiff.media import probe, read_audio

ENDINGS = {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi"}
CACHE_NAME = ".mmdiff-scan.json"
HELD_OUT = 20  # of so many files one goes to validation and one to test
MAX_NAMED = 5
FACTS = {"stamp", "sha256", "begin_seconds", "is_variable_frame_rate", "fps", "num_frames", "height", "width",
         "sample_rate", "channels", "num_samples"}  # fmt: skip


def scan_folder(folder: Path, seed: int = 0) -> list[Entry]:
    """Return an entry for every media file below a folder; what was found is kept there in a hidden file.

    The split depends on the files' contents and the seed: of 20 files one is for validation and one for test, at least
    one each from three files on. Files with the same contents are one source.

    Errors: `ValueError` where there is no media file, or that names those that are broken or lack a stream.
    """
    folder = Path(folder)
    paths = [p for p in sorted(folder.rglob("*")) if p.suffix.lower() in ENDINGS and not _is_hidden(p, folder)]
    if not paths:
        raise ValueError(
            f"{folder}: neither {MANIFEST_NAME} nor media files here; make a data set with `mmdiff-data synthesize`, "
            "or name a folder of MP4 files"
        )
    known = _read_cache(folder / CACHE_NAME)
    facts, faults = {}, []
    for path in tqdm(paths, desc=f"look at {folder}", unit="file", disable=len(paths) <= len(known), leave=False):
        name, stat = path.relative_to(folder).as_posix(), path.stat()
        stamp = [stat.st_size, stat.st_mtime_ns]
        try:
            kept = known.get(name, {})
            facts[name] = kept if kept.get("stamp") == stamp else {"stamp": stamp, **_look(path)}
        except ValueError as error:
            faults.append(str(error))
    if faults:
        more = f"\nand {len(faults) - MAX_NAMED} more" if len(faults) > MAX_NAMED else ""
        raise ValueError("mend these files, or take them out:\n" + "\n".join(faults[:MAX_NAMED]) + more)
    if facts != known:
        _write_cache(folder / CACHE_NAME, facts)
    splits = _assign_splits({fact["sha256"] for fact in facts.values()}, seed)
    return [_entry(name, fact, splits[fact["sha256"]]) for name, fact in facts.items()]


def _is_hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def _look(path: Path) -> dict:
    """Return what an entry needs to know of a file; its picture's packets are read, its sound is decoded."""
    info = probe(path)
    if not info.has_video or not info.has_audio:
        raise ValueError(f"{path}: no {'sound' if info.has_video else 'picture'} in this file; both are needed")
    sound = read_audio(path)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {
        "sha256": digest,
        "fps": str(info.fps),
        "num_frames": math.floor(info.video_start * info.fps) + info.num_frames,
        "height": info.height,
        "width": info.width,
        "sample_rate": sound.sample_rate,
        "channels": sound.waveform.shape[0],
        "num_samples": sound.waveform.shape[1],
        "begin_seconds": float(max(info.video_start, info.audio_start)),
        "is_variable_frame_rate": info.is_variable_frame_rate,
    }


def _entry(name: str, fact: dict, split: str) -> Entry:
    values = {key: value for key, value in fact.items() if key != "stamp"}
    return Entry(path=name, key=name, source=fact["sha256"], split=split, **{**values, "fps": Fraction(fact["fps"])})


def _assign_splits(sources: set[str], seed: int) -> dict[str, str]:
    order = sorted(sources, key=lambda source: hashlib.sha256(f"{seed} {source}".encode()).digest())
    count = max(round(len(order) / HELD_OUT), 1) if len(order) >= 3 else 0
    names = [SPLITS[1]] * count + [SPLITS[2]] * count + [SPLITS[0]] * (len(order) - 2 * count)
    return dict(zip(order, names, strict=True))


def _read_cache(path: Path) -> dict[str, dict]:
    if not path.is_file():
        return {}
    try:
        loaded = json.loads(path.read_text(encoding="utf-8"))
        return {name: fact for name, fact in loaded.items() if {*fact} == FACTS}
    except (ValueError, AttributeError, TypeError, OSError) as error:
        get_logger().warning("%s: not readable (%s); the files are looked at again", path, error)
        return {}



def _write_cache(path: Path, facts: dict[str, dict]) -> None:
    aside = path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")
    try:
        aside.write_text(json.dumps(facts, indent=1), encoding="utf-8")
        aside.replace(path)
    except OSError as error:
        get_logger().warning("%s: cannot be written (%s); the files will be looked at every time", path, error)
