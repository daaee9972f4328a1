"""`mmdiff-data audit`: measure every clip of a set, compare the clips with each other, and say what is wrong.

A journal beside the result keeps what was measured of every file: an interrupted audit goes on where it stopped, and a
set that was audited before has only its new and changed files measured.
"""

import base64
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from data_tools.audit_clip import ClipMeasures, failed_measures, measure_clip
from data_tools.audit_columns import COLUMNS, Fault, blank_row, find_faults, weigh
from data_tools.audit_content import Fingerprint
from data_tools.audit_duplicates import Content, Pair, find_leaks, find_pairs, group_duplicates
from data_tools.dataset import DataSet, open_set
from data_tools.engine import ENGINES, Crash, run_pool, run_ray

FOLDER_NAME = "audit"
JOURNAL_NAME = ".measures.jsonl"
VERSION = 3  # of what the journal holds; raised with every change of a measure
MAX_LEAKS = 5


@dataclass(frozen=True)
class Audit:
    """A set, one row for every clip in its order, the faults of each, and the pairs with the same content."""

    data: DataSet
    rows: tuple[dict[str, Any], ...]
    faults: tuple[tuple[Fault, ...], ...]
    pairs: tuple[Pair, ...]
    num_measured: int
    elapsed_seconds: float
    journal: "Journal"

    def worst_first(self) -> list[int]:
        """Return the rows' numbers, the worst first; rows without a fault come last, in the set's order."""
        return sorted(range(len(self.rows)), key=lambda i: (-self.rows[i]["severity"], -self._size(i), i))

    def _size(self, index: int) -> float:
        return self.faults[index][0].size if self.faults[index] else 0.0


def audit_set(folder: Path, output: Path | None = None, *, workers: int = 1, engine: str = "pool") -> Audit:
    """Measure every clip below a folder and compare them; a file that crashes a decoder costs its own row only.

    output: where the journal lies (default: `audit` in the folder). Errors: `ValueError` where the folder holds no set
    or the engine is none.
    """
    if engine not in ENGINES or workers < 1:
        raise ValueError(f"--engine {engine}, --workers {workers}: choose {' or '.join(ENGINES)}, and 1 worker or more")
    data = open_set(folder)
    output = Path(output or data.folder / FOLDER_NAME)
    output.mkdir(parents=True, exist_ok=True)
    journal, started = Journal(output / JOURNAL_NAME), time.monotonic()
    files = {data.file(row): row.path for row in data.rows}
    todo = [path for path, name in files.items() if not journal.knows(name, stamp_of(path))]
    bar = tqdm(total=len(files), initial=len(files) - len(todo), desc="audit", unit="clip", disable=not todo)
    with journal, bar:
        run = {"pool": run_pool, "ray": run_ray}[engine]
        for number, measured in run(measure_clip, todo, workers) if todo else ():
            if isinstance(measured, Crash):
                measured = failed_measures(f"it crashes or hangs the decoder: {measured.reason}")
            journal.add(files[todo[number]], stamp_of(todo[number]), measured)
            bar.update()
    rows, contents = _read_rows(data, journal)
    pairs = find_pairs(contents)
    _tell_duplicates(rows, contents, pairs)
    faults = []
    for row, own in zip(rows, data.rows, strict=True):
        found = find_faults(row, own.values)
        row |= {"faults": [fault.name for fault in found], "severity": weigh(found)}
        faults.append(tuple(found))
    elapsed = time.monotonic() - started
    return Audit(data, tuple(rows), tuple(faults), tuple(pairs), len(todo), elapsed, journal)


class Journal:
    """What was measured of every file, one JSON line each; a line cut off by a crash is dropped."""

    def __init__(self, path: Path):
        self.path, self.places, self.stamps, self.file = path, {}, {}, None
        end = 0
        if path.is_file():
            with path.open("rb") as file:
                for line in file:
                    head = _read_line(line)
                    if head is None:
                        break
                    self.places[head["path"]], self.stamps[head["path"]] = end, head["stamp"]
                    end += len(line)
        self.end = end

    def __enter__(self) -> "Journal":
        self.file = self.path.open("r+b" if self.path.exists() else "w+b")
        self.file.truncate(self.end)
        self.file.seek(self.end)
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def knows(self, name: str, stamp: list[int]) -> bool:
        """Say whether a file was measured and has not changed since."""
        return self.stamps.get(name) == stamp

    def add(self, name: str, stamp: list[int], measures: ClipMeasures) -> None:
        """Write down what was measured of a file."""
        arrays = {
            f"{kind} {part}": base64.b64encode(getattr(getattr(measures, kind), part).tobytes()).decode()
            for kind in ("picture", "sound")
            for part in ("times", "hashes")
        }
        line = {"version": VERSION, "path": name, "stamp": stamp, "columns": measures.columns, **arrays,
                "strip": base64.b64encode(measures.strip).decode()}  # fmt: skip
        data = (json.dumps(line) + "\n").encode()
        self.file.write(data)
        self.file.flush()
        self.places[name], self.stamps[name] = self.end, stamp
        self.end += len(data)

    def read(self, name: str) -> ClipMeasures:
        """Return what was measured of a file."""
        with self.path.open("rb") as file:
            file.seek(self.places[name])
            line = json.loads(file.readline())

        def fingerprint(kind: str, dtype: type) -> Fingerprint:
            times, hashes = (base64.b64decode(line[f"{kind} {part}"]) for part in ("times", "hashes"))
            return Fingerprint(np.frombuffer(times, np.float32), np.frombuffer(hashes, dtype))

        return ClipMeasures(
            line["columns"], fingerprint("picture", np.uint64), fingerprint("sound", np.uint32),
            base64.b64decode(line["strip"]),
        )  # fmt: skip


def stamp_of(path: Path) -> list[int]:
    """Return what changes with a file: its size and time; nothing where there is no file."""
    try:
        stat = path.stat()
    except OSError:
        return []
    return [stat.st_size, stat.st_mtime_ns]


def _read_line(line: bytes) -> dict | None:
    try:
        head = json.loads(line)
        return head if head["version"] == VERSION and line.endswith(b"\n") else None
    except (ValueError, KeyError, TypeError):
        return None


def _read_rows(data: DataSet, journal: Journal) -> tuple[list[dict[str, Any]], list[Content]]:
    rows, contents = [], []
    for own in data.rows:
        measures = journal.read(own.path)
        row = blank_row() | measures.columns
        row |= {"key": own.key, "path": own.path, "source": own.source, "split": own.split}
        unknown = set(row) - set(COLUMNS)
        assert not unknown, unknown
        rows.append(row)
        seconds = max(row["video_seconds"] or 0.0, row["audio_seconds"] or 0.0)
        contents.append(
            Content(own.key, own.split, own.source, seconds, row["sha256"] or "", measures.picture, measures.sound)
        )
    return rows, contents


def _tell_duplicates(rows: Sequence[dict], contents: Sequence[Content], pairs: Sequence[Pair]) -> None:
    for index, (first, pair) in group_duplicates(len(rows), pairs).items():
        rows[index] |= {
            "duplicate_of": contents[first].key, "duplicate_how": pair.how, "duplicate_share": pair.share
        }  # fmt: skip
    for index, leaks in find_leaks(contents, pairs).items():
        what = "source" if leaks["source"] else "content"
        others = [contents[other].key for other in leaks[what]]
        rows[index] |= {"leak": what, "leaks_with": others[:MAX_LEAKS]}
