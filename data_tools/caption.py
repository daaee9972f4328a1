"""`mmdiff-data caption`: a sentence for every clip, from files beside it, from its known events, or from a model."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from tqdm import tqdm

from data_tools.dataset import METADATA_NAME, PARQUET_NAME, DataSet, Row, open_set, write_set, write_text
from data_tools.filter import link_file
from data_tools.sources import CAPTION_NAMES, MAX_SIDECAR
from mmdiff.data.manifest import MANIFEST_NAME
from mmdiff.media import ClipSpec, probe, read_video

JOURNAL_NAME = ".caption.jsonl"
LARGEST_SIDE = 512  # pixels; vision models take less
COUNTS = {1: "once", 2: "twice"}


class Captioner(Protocol):
    """Says what is in a clip.

    name: what the manifest calls it. sha256: of a model's weights, else empty. num_frames: how many frames it looks at.
    """

    name: str
    sha256: str
    num_frames: int

    def caption(self, frames: np.ndarray, row: Row) -> str:
        """Return a sentence on a clip's frames, uint8 `f h w 3`; empty where there is nothing to say."""


@dataclass(frozen=True)
class SidecarCaptioner:
    """Takes the text that lies beside a clip: `x.txt`, or the field `caption` or `text` of `x.json`.

    folders: where to look, by the clip's own path, then by its key, then by the name of the recording it was cut from.
    """

    folders: Sequence[Path]
    name: str = "sidecar"
    sha256: str = ""
    num_frames: int = 0

    def caption(self, frames: np.ndarray, row: Row) -> str:
        """Return the text; errors: `ValueError` where a JSON file is malformed."""
        names = [row.path, f"{row.key}.x", row.values.get("source_path"), row.source]
        stems = dict.fromkeys(Path(str(name)).with_suffix("") for name in names if name)
        for folder in self.folders:
            for stem in stems:
                place = folder / stem
                if place.resolve().is_relative_to(folder.resolve()) and (text := _read_sidecar(place)):
                    return text
        return ""


@dataclass(frozen=True)
class BenchmarkCaptioner:
    """Takes the set's own caption, or makes a sentence of the events that the set knows."""

    name: str = "benchmark"
    sha256: str = ""
    num_frames: int = 0

    def caption(self, frames: np.ndarray, row: Row) -> str:
        """Return the caption, else for example `ball on wood twice, mallet on metal once`."""
        own = next((str(row.values[name]) for name in CAPTION_NAMES if row.values.get(name)), "")
        return own or describe_events(row.values.get("events") or ())


def describe_events(events: Sequence[Mapping[str, Any]]) -> str:
    """Return a sentence on events (`kind`, `detail`): each thing that happens, the most frequent first."""
    counts = Counter((event["kind"], event.get("detail") or "") for event in events)
    with_times = (
        f"{_told(kind, detail)} {COUNTS.get(count, f'{count} times')}" for (kind, detail), count in counts.most_common()
    )
    return ", ".join(with_times)


def caption_set(
    folder: Path, captioner: Captioner, out: Path | None = None, *, keep: bool = False, dry_run: bool = False
) -> dict[str, Any]:
    """Give every clip of a set a caption; return how many were captioned, kept, and left without.

    The lists of the set are replaced in place, or those of a copy in `out`, whose clips are linked. Columns: `caption`,
    `caption_by`, `caption_sha256`. Where the captioner says nothing, an earlier caption stays. keep: clips that have a
    caption are passed over. Interrupted, the same call goes on. Errors: `ValueError` where `out` holds anything else.
    """
    data = open_set(folder)
    home = _prepare(data, out, dry_run)
    said = _Journal(home / JOURNAL_NAME, captioner, is_written=bool(captioner.num_frames) and not dry_run)
    rows, counts, faults = [], Counter(captioned=0, kept=0, without=0), {}
    for row in tqdm(data.rows, desc="caption", unit="clip", disable=None):
        values, earlier = dict(row.values), str(row.values.get("caption") or row.values.get("text") or "")
        text = ""
        if not (keep and earlier):
            try:
                text = said.find(row, data) if dry_run else said.get(row, data)
            except ValueError as error:
                faults[row.key] = str(error)
        counts["captioned" if text else "kept" if earlier else "without"] += 1
        by = {"caption_by": captioner.name, "caption_sha256": captioner.sha256} if text else {}
        plain = {"caption": text or earlier} | {
            name: values.get(name) or "" for name in ("caption_by", "caption_sha256")
        }
        if "text" in values:
            plain["text"] = plain["caption"]
        rows.append((row, values | plain | by))
    if not dry_run:
        _write_lists(data, home, rows)
        said.path.unlink(missing_ok=True)
    told = {"set": str(folder), "output": str(home), "captioner": captioner.name, "sha256": captioner.sha256}
    return told | {"clips": len(rows), **counts, "faults": faults, "dry_run": dry_run}


def sample_frames(path: Path, count: int) -> np.ndarray:
    """Return frames of a clip, spread evenly, uint8 `f h w 3` of at most 512 pixels a side; none where count is 0.

    Errors: `ValueError` where the file cannot be read.
    """
    if not count:
        return np.zeros((0, 0, 0, 3), np.uint8)
    info = probe(path)
    if not info.has_video:
        raise ValueError(f"{path}: no picture in this file; a captioner that looks at frames needs one")
    shrink = min(Fraction(LARGEST_SIDE, max(info.height, info.width)), Fraction(1))
    size = {"height": max(round(info.height * shrink), 1), "width": max(round(info.width * shrink), 1)}
    spec = ClipSpec(num_frames=1, fps=Fraction(10), sample_rate=16_000, **size)
    last = max(info.num_frames - 1, 0) / info.fps
    times = [info.video_start + last * Fraction(2 * index + 1, 2 * count) for index in range(count)]
    return np.concatenate([read_video(path, spec, start=max(time, Fraction(0))).frames for time in times])


class _Journal:
    """What a captioner has said so far, so that an interrupted run goes on; a line for every clip."""

    def __init__(self, path: Path, captioner: Captioner, is_written: bool):
        self.path, self.captioner, self.is_written = path, captioner, is_written
        self.head = {"captioner": captioner.name, "sha256": captioner.sha256, "num_frames": captioner.num_frames,
                     "prompt": getattr(captioner, "prompt", "")}  # fmt: skip
        lines = path.read_text(encoding="utf-8").split("\n")[:-1] if is_written and path.is_file() else []
        is_ours = bool(lines) and json.loads(lines[0]) == self.head
        self.said = {tuple(json.loads(line)[:2]): json.loads(line)[2] for line in lines[1:]} if is_ours else {}
        if is_written:  # drops a line cut off by a crash, and another captioner's
            write_text(path, "".join(f"{line}\n" for line in (lines if is_ours else [json.dumps(self.head)])))

    def get(self, row: Row, data: DataSet) -> str:
        """Return what is noted of a clip, else ask and note it."""
        if not self.is_written:
            return self._ask(row, data)
        path = data.file(row)
        stat = path.stat() if path.is_file() else None
        key = (row.path, f"{stat.st_size}-{stat.st_mtime_ns}" if stat else "missing")
        if key not in self.said:
            self.said[key] = self._ask(row, data)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps([*key, self.said[key]]) + "\n")
        return self.said[key]

    def find(self, row: Row, data: DataSet) -> str:
        """Return what a dry run can say without looking at the picture: something, wherever there is a file."""
        return self._ask(row, data) if not self.captioner.num_frames else "?" * data.file(row).is_file()

    def _ask(self, row: Row, data: DataSet) -> str:
        frames = sample_frames(data.file(row), self.captioner.num_frames)
        return " ".join(self.captioner.caption(frames, row).split())


def _told(kind: str, detail: str) -> str:
    return detail if " " in detail and not detail.startswith(("on ", "off ")) else f"{kind} {detail}".strip()


def _read_sidecar(stem: Path) -> str:
    text_file, json_file = Path(f"{stem}.txt"), Path(f"{stem}.json")
    if text_file.is_file() and text_file.stat().st_size <= MAX_SIDECAR:
        return text_file.read_text(encoding="utf-8", errors="replace").strip()
    if not json_file.is_file() or json_file.stat().st_size > MAX_SIDECAR:
        return ""
    try:
        values = json.loads(json_file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{json_file}: not JSON ({error}); mend or remove it") from error
    names = CAPTION_NAMES if isinstance(values, dict) else ()
    return next((str(values[name]) for name in names if values.get(name)), "")


def _prepare(data: DataSet, out: Path | None, dry_run: bool) -> Path:
    """Return the folder whose lists are to be written; a new one gets links to the clips."""
    if out is None or out.resolve() == data.folder.resolve():
        return data.folder
    ours = {Path(row.path).parts[0] for row in data.rows} | {MANIFEST_NAME, PARQUET_NAME, METADATA_NAME, JOURNAL_NAME}
    foreign = sorted({path.name for path in out.iterdir()} - ours) if out.is_dir() else []
    if foreign:
        raise ValueError(f"{out}: holds {foreign[0]}, which is not of this set; name a new folder")
    for row in () if dry_run else data.rows:
        target = out / row.path
        target.parent.mkdir(parents=True, exist_ok=True)
        if data.file(row).is_file() and not target.exists():
            link_file(data.file(row), target)
    return out


def _write_lists(data: DataSet, home: Path, rows: Sequence[tuple[Row, dict[str, Any]]]) -> None:
    """Replace the lists that a set has: ours, or the metadata of a VideoFolder, which a plain folder becomes."""
    if data.kind == "manifest":
        if (data.folder / PARQUET_NAME).is_file():
            write_set(home, [values for _, values in rows])
        else:
            write_text(home / MANIFEST_NAME, _lines(values for _, values in rows))
        return
    by_list: dict[Path, list[dict[str, Any]]] = {}
    for row, values in rows:
        parents = [parent for parent in Path(row.path).parents if (data.folder / parent / METADATA_NAME).is_file()]
        place = parents[0] if parents else Path()
        by_list.setdefault(place, []).append(values | {"file_name": Path(row.path).relative_to(place).as_posix()})
    for place, own in by_list.items():
        write_text(home / place / METADATA_NAME, _lines(own))


def _lines(rows) -> str:
    return "".join(json.dumps(row, sort_keys=True, ensure_ascii=False) + "\n" for row in rows)
