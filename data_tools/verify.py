"""`mmdiff-data verify`: is a set what its list says? Every file is decoded, counted and hashed."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from tqdm import tqdm

from data_tools.audit_clip import stream_columns
from data_tools.audit_decode import Watcher, decode_file
from data_tools.dataset import PARQUET_NAME, DataSet, Row, file_sha256, open_set
from data_tools.engine import Crash, run_pool, run_ray

EXACT = ("num_frames", "fps", "width", "height", "sample_rate", "channels")
MOST_LISTED = 50


@dataclass(frozen=True)
class Verification:
    """What was compared of a set, and the faults: of each clip by key, and of the set as a whole under ""."""

    data: DataSet
    num_frames: int
    num_samples: int
    faults: Mapping[str, list[str]]

    @property
    def is_sound(self) -> bool:
        """Say whether everything is as listed."""
        return not self.faults


def verify_set(folder: Path, *, workers: int = 1, engine: str = "pool") -> Verification:
    """Decode every file of a set and compare it with the set's list, and the set's lists with each other.

    Errors: `ValueError` where the folder holds no set.
    """
    data = open_set(folder)
    faults: dict[str, list[str]] = {"": _compare_lists(data)}
    run, counts = {"pool": run_pool, "ray": run_ray}[engine], {"num_frames": 0, "num_samples": 0}
    files = [data.file(row) for row in data.rows]
    for number, found in tqdm(run(look_at_file, files, workers), total=len(files), desc="verify", unit="clip"):
        row = data.rows[number]
        if isinstance(found, Crash):
            found = {"error": f"it crashes or hangs the decoder: {found.reason}"}
        for name in counts:
            counts[name] += found.get(name, 0)
        faults[row.key] = compare_with_list(found, row)
    told = {key: lines for key, lines in faults.items() if lines}
    return Verification(data, counts["num_frames"], counts["num_samples"], told)


def look_at_file(path: Path, tell: Callable[[dict], None] = lambda message: None) -> dict[str, Any]:
    """Return what decoding a file and hashing it gives; `error` is empty where it went well."""
    try:
        found = stream_columns(decode_file(path, _Beacon(tell)))
    except ValueError as error:
        return {"error": str(error).removeprefix(f"{path}: ")}
    return found | {"sha256": file_sha256(path, lambda: tell({}))}


def compare_with_list(found: Mapping[str, Any], row: Row) -> list[str]:
    """Return in what a file differs from its line in the set's list."""
    told, faults = row.values, []
    if found["error"] or not found["decodes"]:
        reason = found["error"] or f"it ends {found['missing_seconds']:.3f} s before its header says"
        return [f"does not decode to its end: {reason}"]
    if not found["has_video"] or not found["has_audio"]:
        return [f"has no {'sound' if found['has_video'] else 'picture'}"]
    if told.get("sha256") and told["sha256"] != found["sha256"]:
        faults.append(f"has sha256 {found['sha256'][:12]}…, listed is {str(told['sha256'])[:12]}…")
    begins = float(told.get("begin_seconds") or 0)
    late = Fraction(begins) * Fraction(found["fps"]) // 1  # frames that a reader repeats before the first
    found = {**found, "num_frames": found["num_frames"] + int(late)}
    for name in EXACT:
        if name in told and Fraction(told[name]) != Fraction(found[name]):
            faults.append(f"{name} is {found[name]}, listed is {told[name]}")
    faults += _compare_samples(found, told)
    starts = {"picture": found["video_start_seconds"], "sound": found["audio_start_seconds"]}
    if "num_frames" in told and not begins:
        faults += [f"the {name} begins at {start:.4f} s, not at 0" for name, start in starts.items() if start]
    return faults


def format_verification(result: Verification) -> str:
    """Return the result as text."""
    count, broken = len(result.data.rows), sum(1 for key in result.faults if key)
    lines = [
        f"{result.data.folder}: {count} clips decoded, {result.num_frames} frames and {result.num_samples} samples; "
        f"{broken} clips with faults"
    ]
    shown = [(key, text) for key, own in result.faults.items() for text in own]
    lines += [f"  {key or 'the set'}: {text}" for key, text in shown[:MOST_LISTED]]
    if len(shown) > MOST_LISTED:
        lines.append(f"  and {len(shown) - MOST_LISTED} more; --json prints all")
    return "\n".join(lines)


class _Beacon(Watcher):
    """Gives a sign of life once a second of sound or picture."""

    def __init__(self, tell: Callable[[dict], None]):
        self.tell = tell

    def see(self, frame, start, end, facts) -> None:
        if facts.num_frames % max(round(facts.fps), 1) == 1:
            self.tell({})

    def hear(self, block, facts) -> None:
        self.tell({})


def _compare_samples(found: Mapping[str, Any], told: Mapping[str, Any]) -> list[str]:
    """An encoder such as AAC's fills its last frame: up to 2048 samples more than listed are its own."""
    if "num_samples" not in told:
        return []
    rate = found["sample_rate"]
    samples = round((found["audio_start_seconds"] + found["audio_seconds"]) * rate)
    more = samples - int(told["num_samples"])
    is_exact = found["audio_codec"] in ("flac", "alac", "opus") or found["audio_codec"].startswith("pcm")
    if not 0 <= more <= (0 if is_exact else 2048):
        return [f"num_samples is {samples}, listed is {told['num_samples']}"]
    return []


def _compare_lists(data: DataSet) -> list[str]:
    """Return where a set contradicts itself: a clip listed twice, a source in two splits, two lists that differ."""
    faults = []
    for name, values in (("key", [row.key for row in data.rows]), ("file", [row.path for row in data.rows])):
        faults += [f"{name} '{value}' is listed {n} times" for value, n in Counter(values).items() if n > 1]
    splits: dict[str, set[str]] = {}
    for row in data.rows:
        splits.setdefault(row.source, set()).add(row.split)
    faults += [
        f"source '{source}' is in several splits: {', '.join(sorted(own))}"
        for source, own in sorted(splits.items())
        if len(own) > 1
    ]
    if data.kind == "manifest" and (data.folder / PARQUET_NAME).is_file():
        faults += _compare_parquet(data)
    return faults


def _compare_parquet(data: DataSet) -> list[str]:
    import pyarrow.parquet as parquet

    listed = parquet.read_table(data.folder / PARQUET_NAME, columns=["key", "path", "sha256"]).to_pylist()
    here = [{"key": row.key, "path": row.path, "sha256": row.values.get("sha256")} for row in data.rows]
    return [] if listed == here else [f"{PARQUET_NAME} and the manifest's lines do not list the same clips"]
