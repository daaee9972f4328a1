"""`mmdiff evaluate sync`: real pairs, controls and generations, measured alike and written as one result."""

import argparse
import json
import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import scipy

import mmdiff
from mmdiff.eval import statistics, sync
from mmdiff.eval.files import write_json
from mmdiff.eval.windows import (
    CALIBRATION_MS,
    CALIBRATION_WINDOWS,
    SHIFTED_ROWS_MS,
    Reading,
    ShiftedEvents,
    Window,
    find_media,
    protocol_spec,
    read_all,
    real_windows,
)
from mmdiff.media import ClipSpec

RESULT_NAME = "sync.json"
NUM_SHUFFLES = 4
REACH_PER_TOLERANCE = 3  # offsets are looked for within three times the tolerance
AUDIO_TOLERANCE_SECONDS = 0.05  # of validation: a detected sound this near to a true event is right


@dataclass(frozen=True)
class Protocol:
    """How everything is measured: the windows' shape and the distances in seconds within which events are matched."""

    spec: ClipSpec
    seed: int

    @property
    def tolerance(self) -> float:
        """Events further apart than this do not count as one, in seconds."""
        return sync.default_tolerance(self.spec.fps)

    @property
    def reach(self) -> float:
        """Largest offset that can be reported, in seconds."""
        return REACH_PER_TOLERANCE * self.tolerance

    @property
    def end(self) -> float:
        """When a window's last frame appears: later events cannot be seen."""
        return float((self.spec.num_frames - 1) / self.spec.fps)

    def compare(self, audio: np.ndarray, video: np.ndarray, end: float | None = None) -> sync.Agreement:
        """Score one pair of event lists."""
        return sync.compare_events(
            audio, video, tolerance_seconds=self.tolerance, reach_seconds=self.reach,
            end_seconds=self.end if end is None else end,
        )  # fmt: skip


def run_sync(options: argparse.Namespace) -> int:
    """Measure a reference and folders of generations; print the table, and write `sync.json` and `report.html`.

    Files that cannot be read are listed with their reasons and left out.

    Errors: `ValueError` where a folder is missing, holds no media, or nothing in it can be read.
    """
    result = evaluate_sync(
        options.reference, options.generations, split=options.split, seed=options.seed
    )
    if options.output is not None:
        path = write_json(options.output / RESULT_NAME, result)
        from mmdiff.eval.report import write_sync_report

        report = write_sync_report(options.output, result)
        print(f"wrote {path} and {report}", file=sys.stderr)
    print(json.dumps(result, allow_nan=False) if options.json else format_table(result))
    return 0


def evaluate_sync(
    reference: Path, generations: Sequence[Path], *, split: str = "test", seed: int = 0
) -> dict[str, Any]:
    """Return the result that `sync.json` holds (its keys are described in docs/sync.md)."""
    files = {name: find_media(folder) for name, folder in name_folders(generations).items()}
    rejected: list[dict[str, str]] = []
    protocol = Protocol(protocol_spec([path for paths in files.values() for path in paths]), seed)
    spread = sorted({*SHIFTED_ROWS_MS, *CALIBRATION_MS})
    usable = [ms for ms in spread if abs(ms) <= 250 * protocol.spec.duration_seconds]  # a quarter of a window
    windows = real_windows(Path(reference), protocol.spec, split, rejected)
    real = read_all("real pairs", windows, protocol.spec, rejected, shifts=usable)
    if not real:
        raise ValueError(f"{reference}: not one real clip can be read; {rejected[0]['reason']}")
    rows = [
        make_row("real pairs", "real", real, protocol),
        *shuffled_row("shuffled pairs", real, protocol),
        *(shifted_row(ms, real, protocol) for ms in SHIFTED_ROWS_MS if ms in usable),
    ]
    clips = describe("real pairs", real)
    for name, paths in files.items():
        found = [Window(path, str(path), Fraction(0)) for path in paths]
        readings = read_all(name, found, protocol.spec, rejected)
        rows.append(make_row(name, "generated", readings, protocol))
        rows += shuffled_row(f"{name}, shuffled", readings, protocol)
        clips += describe(name, readings)
    return {
        "protocol": describe_protocol(protocol),
        "rows": [{key: value for key, value in row.items() if key != "offsets"} for row in rows],
        "validation": validate(real, protocol),
        "calibration": calibrate(real, protocol, [0, *usable]),
        "offsets_ms": {row["name"]: row["offsets"] for row in rows},
        "clips": clips,
        "rejected": rejected,
    }


def name_folders(folders: Sequence[Path]) -> dict[str, Path]:
    """Name each folder of generations by its last part, or in full where two would share it."""
    last = [Path(folder).name or str(folder) for folder in folders]
    return {
        (name if last.count(name) == 1 else str(folder)): Path(folder) for name, folder in zip(last, folders)
    }


def make_row(name: str, kind: str, readings: Sequence[Reading], protocol: Protocol) -> dict[str, Any]:
    """Return a row of the table: every clip's own sound against its own picture."""
    agreements = [protocol.compare(reading.audio, reading.video) for reading in readings]
    return _row(name, kind, None, agreements, [(i,) for i in range(len(readings))], readings, protocol)


def shuffled_row(name: str, readings: Sequence[Reading], protocol: Protocol) -> list[dict[str, Any]]:
    """Return the control row, none for one clip: every sound against another clip's picture, a few times over."""
    if len(readings) < 2:
        return []
    rng = np.random.default_rng(protocol.seed)
    orders = [statistics.derangement(len(readings), rng) for _ in range(NUM_SHUFFLES)]
    pairs = [(int(sound), picture) for order in orders for picture, sound in enumerate(order)]
    agreements = [protocol.compare(readings[sound].audio, readings[picture].video) for sound, picture in pairs]
    return [_row(name, "shuffled", None, agreements, pairs, readings, protocol)]


def shifted_row(ms: int, readings: Sequence[Reading], protocol: Protocol) -> dict[str, Any]:
    """Return the control row of real pairs whose sound was moved by a known time."""
    moved = [reading.shifted[ms] for reading in readings]
    agreements = [protocol.compare(m.audio, m.video, m.end_seconds) for m in moved]
    name = f"sound {abs(ms)} ms {'late' if ms > 0 else 'early'}"
    return _row(name, "shifted", float(ms), agreements, [(i,) for i in range(len(moved))], moved, protocol)


def _row(
    name: str, kind: str, shift_ms: float | None, agreements: Sequence[sync.Agreement],
    pairs: Sequence[tuple[int, ...]], events: Sequence[Reading | ShiftedEvents], protocol: Protocol,
) -> dict[str, Any]:  # fmt: skip
    summary = statistics.summarize(agreements, pairs, len(events), seed=protocol.seed)
    return {
        "name": name,
        "kind": kind,
        "shift_ms": shift_ms,
        "num_clips": len(events),
        "num_audio_events": sum(len(item.audio) for item in events),
        "num_video_events": sum(len(item.video) for item in events),
        "f1": summary.f1.as_dict(),
        "median_offset_ms": summary.median_offset_ms.as_dict(),
        "p90_offset_ms": summary.p90_offset_ms.as_dict(),
        "offsets": [round(1000 * float(offset), 2) for a in agreements for offset in a.offsets],
    }


def describe(name: str, readings: Sequence[Reading]) -> list[dict[str, Any]]:
    """Return the events of every clip of a row, in seconds from its start."""
    return [
        {
            "row": name,
            "file": reading.window.shown,
            "start": float(reading.window.start),
            "audio_events": [round(float(time), 4) for time in reading.audio],
            "video_events": [round(float(time), 4) for time in reading.video],
        }
        for reading in readings
    ]


def validate(readings: Sequence[Reading], protocol: Protocol) -> dict[str, dict[str, float | None]] | None:
    """Compare what was detected in real windows with the manifest's true events; None where none are known."""
    known = [reading for reading in readings if reading.window.truth is not None]
    if not known:
        return None
    seconds = float(protocol.spec.duration_seconds)
    sides = {
        "audio": ([r.audio for r in known], AUDIO_TOLERANCE_SECONDS, seconds),
        "video": ([r.video for r in known], protocol.tolerance, protocol.end),
    }
    truths = [np.array(reading.window.truth) for reading in known]
    return {name: _detection(truths, *side) for name, side in sides.items()}


def _detection(
    truths: Sequence[np.ndarray], found: Sequence[np.ndarray], tolerance: float, end: float
) -> dict[str, float | None]:
    scores = [
        sync.compare_events(times, truth, tolerance_seconds=tolerance, reach_seconds=0.0, end_seconds=end)
        for times, truth in zip(found, truths)
    ]
    matched = sum(s.num_matched for s in scores)
    num_found, num_true = sum(s.num_audio for s in scores), sum(s.num_video for s in scores)
    errors = 1000 * np.abs(np.concatenate([s.offsets for s in scores]))
    return {
        "precision": matched / num_found if num_found else None,
        "recall": matched / num_true if num_true else None,
        "f1": 2 * matched / (num_found + num_true) if num_found + num_true else None,
        "median_error_ms": float(np.median(errors)) if len(errors) else None,
        "p90_error_ms": float(np.quantile(errors, 0.9)) if len(errors) else None,
        "num_true_events": num_true,
    }


def calibrate(readings: Sequence[Reading], protocol: Protocol, shifts: Sequence[int]) -> list[dict[str, float | None]]:
    """Return for every injected shift of the sound what the common offset of all windows is then measured to be."""
    curve = []
    for ms in sorted(shifts):
        pairs = [reading if ms == 0 else reading.shifted.get(ms) for reading in readings]
        differences = [(p.audio[:, None] - p.video[None]).ravel() for p in pairs if p is not None]
        found = statistics.common_offset(differences, width_seconds=protocol.tolerance, seed=protocol.seed)
        curve.append({"injected_ms": float(ms), "measured_ms": found.value, "low": found.low, "high": found.high})
    return curve


def describe_protocol(protocol: Protocol) -> dict[str, Any]:
    """Return what has to be known to measure again."""
    spec = protocol.spec
    names = [name for name in dir(sync) if name.isupper()]
    return {
        "fps": str(spec.fps),
        "sample_rate": spec.sample_rate,
        "duration_seconds": float(spec.duration_seconds),
        "height": spec.height,
        "width": spec.width,
        "tolerance_ms": 1000 * protocol.tolerance,
        "largest_offset_ms": 1000 * protocol.reach,
        "estimator": {name.lower(): getattr(sync, name) for name in names},
        "bootstrap": {
            "resamples": statistics.NUM_RESAMPLES,
            "confidence": statistics.CONFIDENCE,
            "unit": "clip",
            "seed": protocol.seed,
        },
        "shuffles": NUM_SHUFFLES,
        "calibration_windows": CALIBRATION_WINDOWS,
        "software": {
            "mmdiff": mmdiff.__version__,
            "python": platform.python_version(),
            "numpy": np.__version__,
            "scipy": scipy.__version__,
            "av": av.__version__,
        },
    }


def format_table(result: dict[str, Any]) -> str:
    """Return the result as text: the table, the estimator's own errors, the calibration and what was rejected."""
    protocol, rows = result["protocol"], result["rows"]
    width = max(len(row["name"]) for row in rows)
    lines = [
        f"{'':{width}}  clips  sounds  flashes  {'F1':^18}  {'median |offset| ms':^20}  {'90th percentile ms':^20}"
    ]
    for row in rows:
        numbers = (_text(row["f1"], 2), _text(row["median_offset_ms"], 0), _text(row["p90_offset_ms"], 0))
        lines.append(
            f"{row['name']:{width}}  {row['num_clips']:5}  {row['num_audio_events']:6}  {row['num_video_events']:7}  "
            f"{numbers[0]:^18}  {numbers[1]:^20}  {numbers[2]:^20}"
        )
    lines.append(
        f"95 % intervals over clips; an event is matched within {protocol['tolerance_ms']:.0f} ms, "
        f"an offset is looked for within {protocol['largest_offset_ms']:.0f} ms; offset = sound minus picture"
    )
    for name, found in (result["validation"] or {}).items():
        if found["f1"] is not None and found["median_error_ms"] is not None:
            lines.append(
                f"{name} detector against {found['num_true_events']} true events: F1 {found['f1']:.3f}, "
                f"median error {found['median_error_ms']:.1f} ms, 90th percentile {found['p90_error_ms']:.1f} ms"
            )
    points = [p for p in result["calibration"] if p["measured_ms"] is not None]
    curve = ", ".join(f"{p['injected_ms']:+.0f} -> {p['measured_ms']:+.0f}" for p in points)
    lines.append(f"calibration, injected -> measured offset in ms: {curve or 'no events'}")
    lines += verdicts(rows)
    lines += [f"left out: {item['reason']}" for item in result["rejected"]]
    return "\n".join(lines)


def verdicts(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Say of every generated row how it stands to the real pairs and to its own shuffled control."""
    named, lines = {row["name"]: row for row in rows}, []
    real = named["real pairs"]["f1"]["value"]
    for row in rows:
        control = named.get(f"{row['name']}, shuffled")
        if row["kind"] != "generated" or row["f1"]["value"] is None:
            continue
        words = f"{row['name']}: F1 is {row['f1']['value'] / real:.2f} of the real pairs'" if real else row["name"]
        if control and None not in (row["f1"]["low"], control["f1"]["high"]):
            is_above = row["f1"]["low"] > control["f1"]["high"]
            words += f", {'above' if is_above else 'NOT above'} its shuffled control (intervals compared)"
        lines.append(words)
    return lines


def _text(numbers: dict[str, float | None], digits: int) -> str:
    if numbers["value"] is None:
        return "-"
    if numbers["low"] is None or numbers["high"] is None:
        return f"{numbers['value']:.{digits}f}"
    return f"{numbers['value']:.{digits}f} [{numbers['low']:.{digits}f}, {numbers['high']:.{digits}f}]"
