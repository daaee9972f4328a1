"""A data set on disk: opening any (ours, a Hugging Face VideoFolder, a plain folder of files), and writing ours.

out/config.yaml  stats.json  README.md          what it was made with, what is in it, its card
out/manifest.parquet  manifest.jsonl            one row for every clip, the same in both
out/rejects.parquet                             one row for everything left out, with the reason
out/state/<source>.json                         what is done, for going on after an interruption
out/files/<split>/<key>.mp4  metadata.jsonl     a Hugging Face VideoFolder: column file_name
"""

import hashlib
import json
import os
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from fractions import Fraction
from pathlib import Path
from typing import Any

from mmdiff.data.manifest import MANIFEST_NAME, SPLITS, Entry

PARQUET_NAME = "manifest.parquet"
REJECTS_NAME = "rejects.parquet"
STATS_NAME = "stats.json"
METADATA_NAME = "metadata.jsonl"
CARD_NAME = "README.md"
VIDEO_ENDINGS = {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".ts", ".mts", ".m2ts", ".flv", ".mpg", ".mpeg",
                 ".wmv", ".3gp", ".ogv"}  # fmt: skip
SPLIT_NAMES = {"train": "train", "validation": "validation", "valid": "validation", "val": "validation",
               "dev": "validation", "test": "test"}  # fmt: skip
HASH_BLOCK = 2**22
REJECT_COLUMNS = ("source", "key", "stage", "rule", "reason")


@dataclass(frozen=True)
class Row:
    """One clip file of a set: its path relative to the set's folder, and whatever the set says of it in `values`.

    source: what the clip was cut from, as far as the set says; else the file itself. split: empty where there is none.
    """

    path: str
    key: str
    source: str
    split: str
    values: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class DataSet:
    """A folder of clips and its rows; `kind` is "manifest", "videofolder" or "folder"."""

    folder: Path
    kind: str
    rows: tuple[Row, ...]

    def file(self, row: Row) -> Path:
        """Return where a row's file lies."""
        return self.folder / row.path


def open_set(folder: str | Path) -> DataSet:
    """Open any set of clips without looking into the files: missing and broken ones have rows, too.

    Errors: `ValueError` where the folder holds no clips, a list in it is malformed, or a path leads out of the folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder; name a folder of clips")
    if (folder / MANIFEST_NAME).is_file():
        kind, rows = "manifest", [_manifest_row(*line) for line in _read_lines(folder / MANIFEST_NAME)]
    elif metadata := sorted(folder.rglob(METADATA_NAME)):
        kind, rows = "videofolder", [row for path in metadata for row in _videofolder_rows(folder, path)]
    else:
        kind, rows = "folder", [_plain_row(folder, path) for path in list_videos(folder)]
    if not rows:
        raise ValueError(
            f"{folder}: neither a {MANIFEST_NAME}, a {METADATA_NAME} nor a video file here; name a data set"
        )
    root = folder.resolve()
    for row in rows:
        if not (root / row.path).resolve().is_relative_to(root):
            raise ValueError(f"{folder}: '{row.path}' leads out of the folder; a set may only name files below it")
    return DataSet(folder, kind, tuple(rows))


def list_videos(folder: Path) -> list[Path]:
    """Return the video files below a folder in a fixed order, without hidden ones."""
    found = [path for path in folder.rglob("*") if path.suffix.lower() in VIDEO_ENDINGS and path.is_file()]
    visible = [path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts)]
    return sorted(visible, key=lambda path: path.relative_to(folder).as_posix())


def write_set(folder: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write the manifest of clips that lie at `row["path"]`, as JSON lines, as Parquet, and as VideoFolder metadata.

    rows: `path key source split` and the other fields of `mmdiff.data.manifest.Entry`, then any further columns; the
    same rows give the same bytes. Values are plain (numbers, text, lists, mappings) or fractions, written as text.
    """
    rows = [_in_order(_plain(row)) for row in rows]
    write_text(folder / MANIFEST_NAME, _as_lines(rows))
    write_parquet(folder / PARQUET_NAME, rows)
    by_folder: dict[Path, list[dict]] = {}
    for row in rows:
        path = Path(row["path"])
        told = {name: value for name, value in row.items() if name != "path"}
        by_folder.setdefault(path.parent, []).append({"file_name": path.name, **told})
    for stale in sorted(folder.glob(f"files/*/{METADATA_NAME}")):
        if stale.parent.relative_to(folder) not in by_folder:
            stale.unlink()
    for place, own in by_folder.items():
        (folder / place).mkdir(parents=True, exist_ok=True)
        write_text(folder / place / METADATA_NAME, _as_lines(own))


def write_rejects(folder: Path, rejects: Sequence[Mapping[str, Any]]) -> None:
    """Write what was left out: `source`, `key` (empty for a whole source), `stage`, `rule` and `reason` of each."""
    rows = [{name: str(reject.get(name, "")) for name in REJECT_COLUMNS} for reject in rejects]
    write_parquet(folder / REJECTS_NAME, rows, REJECT_COLUMNS)


def read_rejects(folder: Path) -> list[dict[str, str]]:
    """Return what was left out; nothing where the set has no such file."""
    path = Path(folder) / REJECTS_NAME
    return _parquet().read_table(path).to_pylist() if path.is_file() else []


def write_parquet(path: Path, rows: Sequence[Mapping[str, Any]], columns: Sequence[str] = ()) -> None:
    """Write rows as a Parquet table, aside first and then renamed; a column that a row lacks is null there.

    columns: text columns to write even where there are no rows.
    """
    import pyarrow as pa

    names = list(dict.fromkeys([*columns, *(name for row in rows for name in row)]))
    arrays = [_column(pa, name, [row.get(name) for row in rows]) for name in names]
    aside = _aside(path)
    try:
        _parquet().write_table(pa.table(arrays, names=names), aside)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file, aside first and then renamed."""
    aside = _aside(path)
    try:
        with aside.open("w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def summarize(rows: Sequence[Mapping[str, Any]], rejects: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return a set's statistics: clips, sources and hours by split, licences, and rejects by rule."""
    splits = {}
    for split in SPLITS:
        own = [row for row in rows if row["split"] == split]
        seconds = sum((Fraction(row["num_frames"]) / Fraction(row["fps"]) for row in own), Fraction(0))
        splits[split] = {
            "clips": len(own), "sources": len({row["source"] for row in own}), "hours": round(float(seconds) / 3600, 6)
        }  # fmt: skip
    return {
        "clips": len(rows),
        "splits": splits,
        "licences": dict(sorted(Counter(row.get("licence") or "unknown" for row in rows).items())),
        "rejects": dict(sorted(Counter(reject["rule"] for reject in rejects).items())),
    }


def file_sha256(path: Path, tell: Callable[[], None] = lambda: None) -> str:
    """Return a file's SHA-256, reading it piece by piece; `tell` is called after each."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(HASH_BLOCK):
            digest.update(block)
            tell()
    return digest.hexdigest()


def _manifest_row(values: dict, where: str) -> Row:
    try:
        path, split = str(values["path"]), str(values.get("split", ""))
    except KeyError as error:
        raise ValueError(f"{where}: no 'path' in this line; give every clip its path relative to the folder") from error
    return Row(path, str(values.get("key") or path), str(values.get("source") or path), split, values)


def _videofolder_rows(folder: Path, metadata: Path) -> list[Row]:
    rows = []
    for values, where in _read_lines(metadata):
        if not values.get("file_name"):
            raise ValueError(f"{where}: no 'file_name' in this line; a VideoFolder names every file")
        path = (metadata.parent / str(values["file_name"])).relative_to(folder).as_posix()
        key, source = str(values.get("key") or path), str(values.get("source") or path)
        rows.append(Row(path, key, source, str(values.get("split") or _split_of(Path(path))), values))
    return rows


def _plain_row(folder: Path, path: Path) -> Row:
    name = path.relative_to(folder).as_posix()
    return Row(name, name, name, _split_of(Path(name)))


def _split_of(path: Path) -> str:
    """Return the split that the nearest folder of that name gives a file."""
    return next((SPLIT_NAMES[part.lower()] for part in reversed(path.parts[:-1]) if part.lower() in SPLIT_NAMES), "")


def _read_lines(path: Path) -> Iterable[tuple[dict, str]]:
    """Yield every JSON line and where it stands."""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except ValueError as error:
            raise ValueError(f"{path}:{number}: not JSON ({error}); mend or delete this line") from error
        if not isinstance(values, dict):
            raise ValueError(f"{path}:{number}: not a JSON object; every line describes one clip")
        yield values, f"{path}:{number}"


def _plain(value: Any) -> Any:
    if isinstance(value, Fraction):
        return str(value)
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _in_order(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row with the trainer's columns first, then all others by name."""
    names = [f.name for f in fields(Entry) if f.name in row]
    return {name: row[name] for name in [*names, *sorted(row.keys() - set(names))]}


def _as_lines(rows: Sequence[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(row, sort_keys=True, ensure_ascii=False) + "\n" for row in rows)


def _column(pa, name: str, values: list):
    """Return an Arrow array whose type does not hang on the rows: lists of times, and of events, may all be empty."""
    if name == "events":
        event = pa.struct([("time", pa.float64()), ("kind", pa.string()), ("detail", pa.string())])
        return pa.array(values, pa.list_(event))
    if all(value is None or value == [] for value in values):
        return pa.array(values, pa.list_(pa.float64()) if any(value == [] for value in values) else pa.string())
    return pa.array(values)


def _parquet():
    try:
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise ValueError("pyarrow is missing; install it with `pip install 'mmdiff[data]'`") from error
    return parquet


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
