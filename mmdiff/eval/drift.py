"""`mmdiff evaluate drift`: do long clips change, from their first seconds to their last, more than real ones do?"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from mmdiff.eval import statistics, sync
from mmdiff.eval.files import write_json
from mmdiff.eval.suite import name_folders
from mmdiff.eval.windows import MAX_REAL_WINDOWS, Window, evenly, find_media, protocol_spec, real_windows
from mmdiff.media import Clip, ClipSpec, read_clip

RESULT_NAME = "drift.json"
MIN_PARTS = 4
SILENCE = 1e-5  # amplitude below which loudness is not told apart
UNITS = {
    "brightness": "0 to 1", "contrast": "0 to 1", "detail": "0 to 1", "colour": "0 to 1", "motion": "0 to 1",
    "loudness": "dB", "sound events": "a second", "picture events": "a second",
}  # fmt: skip


@dataclass(frozen=True)
class Series:
    """What was measured along clips: `values` holds `clips parts` for each measure, and the agreements of each part."""

    files: list[str]
    values: dict[str, np.ndarray]
    agreements: list[list[sync.Agreement]]


def run_drift(options: argparse.Namespace) -> int:
    """Measure long generations part by part, beside real clips as long; print a table, and write `drift.json`.

    Errors: `ValueError` where a folder is missing or nothing in it can be read or is long enough.
    """
    result = evaluate_drift(
        options.reference, options.generations, part=Fraction(options.part), split=options.split, seed=options.seed
    )
    if options.output is not None:
        print(f"wrote {write_json(options.output / RESULT_NAME, result)}", file=sys.stderr)
    print(json.dumps(result, allow_nan=False) if options.json else format_table(result))
    return 0


def evaluate_drift(
    reference: Path, generations: Sequence[Path], *, part: Fraction = Fraction(8, 5), split: str = "test", seed: int = 0
) -> dict[str, Any]:
    """Return for each row and measure its first and last quarter, and the change between them, with 95 % intervals.

    Everything is cut into parts of `part` seconds, and read at the first generation's size and rates. A change is the
    last quarter's mean less the first's, of the same clips; `in_deviations` is that change over the deviation of the
    real clips' parts. The bootstrap draws clips.
    """
    files = {name: find_media(folder) for name, folder in name_folders(generations).items()}
    whole = protocol_spec([path for paths in files.values() for path in paths])
    spec = _part_of(whole, part)
    rejected: list[dict[str, str]] = []
    real = evenly(real_windows(Path(reference), whole, split, rejected), MAX_REAL_WINDOWS)
    series = {"real clips": _read("real clips", real, whole, spec, rejected)}
    for name, paths in files.items():
        found = [Window(path, str(path), Fraction(0)) for path in paths]
        series[name] = _read(name, found, whole, spec, rejected)
    empty = [name for name, each in series.items() if not each.files]
    if empty:
        reason = f"; {rejected[0]['reason']}" if rejected else ""
        raise ValueError(f"{empty[0]}: not one clip of {float(whole.duration_seconds):g} s can be read{reason}")
    deviations = {name: float(values.std()) for name, values in series["real clips"].values.items()}
    return {
        "protocol": {
            "part_seconds": float(spec.duration_seconds), "num_parts": whole.num_frames // spec.num_frames,
            "seconds": float(whole.duration_seconds), "fps": str(spec.fps), "size": [spec.height, spec.width],
            "sample_rate": spec.sample_rate, "seed": seed, "num_resamples": statistics.NUM_RESAMPLES,
        },
        "units": UNITS,
        "rows": [_row(name, each, deviations, seed) for name, each in series.items()],
        "rejected": rejected,
    }  # fmt: skip


def measure_part(clip: Clip) -> dict[str, float]:
    """Return what is followed along a clip, of one part of it; `UNITS` says in what unit."""
    frames = clip.frames.astype(np.float32) / 255
    grey = frames.mean(-1)
    seconds = clip.num_frames / float(clip.fps)
    return {
        "brightness": float(grey.mean()),
        "contrast": float(grey.std(axis=(1, 2)).mean()),
        "detail": float(np.abs(np.diff(grey, axis=1)).mean() + np.abs(np.diff(grey, axis=2)).mean()),
        "colour": float((frames.max(-1) - frames.min(-1)).mean()),
        "motion": float(np.abs(np.diff(grey, axis=0)).mean()) if len(grey) > 1 else 0.0,
        "loudness": float(20 * np.log10(max(float(np.sqrt((clip.waveform**2).mean())), SILENCE))),
        "sound events": len(sync.audio_onsets(clip.waveform, clip.sample_rate)) / seconds,
        "picture events": len(sync.video_onsets(clip.frames, clip.fps)) / seconds,
    }


def _part_of(whole: ClipSpec, part: Fraction) -> ClipSpec:
    """Return the shape of one part.

    Errors: `ValueError` where clips have too few parts, or a part no whole number of frames and samples.
    """
    frames, samples = part * whole.fps, part * whole.sample_rate
    if part <= 0 or frames.denominator != 1 or samples.denominator != 1:
        raise ValueError(f"--part is {float(part):g} s: at {whole.fps} frames a second and {whole.sample_rate} Hz that "
                         "is no whole number of both; give another length")  # fmt: skip
    if whole.num_frames < MIN_PARTS * frames:
        raise ValueError(f"clips last {float(whole.duration_seconds):g} s, and a part {float(part):g} s; give clips "
                         f"of at least {MIN_PARTS} parts, or a smaller --part")  # fmt: skip
    return ClipSpec(int(frames), whole.fps, whole.height, whole.width, whole.sample_rate, 1)


def _read(name: str, windows: Sequence[Window], whole: ClipSpec, spec: ClipSpec, rejected: list) -> Series:
    """Measure the parts of every window; a file that cannot be read is listed and left out."""
    values: list[list[dict[str, float]]] = []
    agreements, files = [], []
    for window in tqdm(windows, desc=name, unit="clip", file=sys.stderr, disable=None):
        try:
            clip = read_clip(window.path, whole, start=window.start)
        except (ValueError, OSError) as error:
            rejected.append({"file": str(window.path), "reason": str(error)})
            continue
        parts = _cut(clip, spec)
        files.append(window.shown)
        values.append([measure_part(part) for part in parts])
        agreements.append([_agreement(part) for part in parts])
    measured = {key: np.array([[part[key] for part in clip] for clip in values]) for key in UNITS}
    return Series(files, measured, agreements)


def _cut(clip: Clip, spec: ClipSpec) -> list[Clip]:
    return [
        Clip(
            clip.frames[number * spec.num_frames : (number + 1) * spec.num_frames],
            clip.waveform[:, number * spec.num_samples : (number + 1) * spec.num_samples], clip.fps, clip.sample_rate,
        )
        for number in range(clip.num_frames // spec.num_frames)
    ]  # fmt: skip


def _agreement(part: Clip) -> sync.Agreement:
    tolerance = sync.default_tolerance(part.fps)
    return sync.compare_events(
        sync.audio_onsets(part.waveform, part.sample_rate), sync.video_onsets(part.frames, part.fps),
        tolerance_seconds=tolerance, reach_seconds=3 * tolerance, end_seconds=float((part.num_frames - 1) / part.fps),
    )  # fmt: skip


def _row(name: str, series: Series, deviations: dict[str, float], seed: int) -> dict[str, Any]:
    count = len(series.files)
    rng = np.random.default_rng(seed)
    weights = np.concatenate([np.ones((1, count)), statistics.resample_counts(count, statistics.NUM_RESAMPLES, rng)])
    measures = {key: _change(values, weights, deviations[key]) for key, values in series.values.items()}
    return {"name": name, "num_clips": count, "measures": measures | {"sync F1": _f1_change(series, weights)}}


def _change(values: np.ndarray, weights: np.ndarray, deviation: float) -> dict[str, Any]:
    """Return first and last quarter of `clips parts`, and the change, over rows of clips' weights."""
    quarter = max(values.shape[1] // 4, 1)
    first, last = values[:, :quarter].mean(1), values[:, -quarter:].mean(1)
    means = [weights @ each / weights.sum(1) for each in (first, last, last - first)]
    told = {key: statistics.interval(mean).as_dict() for key, mean in zip(("first", "last", "change"), means)}
    return told | {"in_deviations": told["change"]["value"] / deviation if deviation else None}


def _f1_change(series: Series, weights: np.ndarray) -> dict[str, Any]:
    """Return the same of the pooled F1, NaN where a resample has no event."""
    quarter = max(len(series.agreements[0]) // 4, 1)
    curves = []
    for part in (slice(quarter), slice(-quarter, None)):
        matched = weights @ np.array([sum(a.num_matched for a in clip[part]) for clip in series.agreements])
        events = weights @ np.array([sum(a.num_audio + a.num_video for a in clip[part]) for clip in series.agreements])
        curves.append(np.divide(2 * matched, events, out=np.full(len(events), np.nan), where=events > 0))
    first, last = curves
    told = zip(("first", "last", "change"), (first, last, last - first))
    return {key: statistics.interval(curve).as_dict() for key, curve in told} | {"in_deviations": None}


def format_table(result: dict[str, Any]) -> str:
    """Return the table: a block for each row, a line for each measure."""
    protocol = result["protocol"]
    lines = [f"clips of {protocol['seconds']:g} s in {protocol['num_parts']} parts of {protocol['part_seconds']:g} s; "
             "first and last quarter, and the change, 95 % over clips"]  # fmt: skip
    for row in result["rows"]:
        lines += ["", f"{row['name']}, {row['num_clips']} clips",
                  f"{'':<16}{'first':>10}{'last':>10}{'change':>30}{'in deviations':>16}"]  # fmt: skip
        for name, told in row["measures"].items():
            size = told["in_deviations"]
            lines.append(f"{name:<16}{_number(told['first']['value']):>10}{_number(told['last']['value']):>10}"
                         f"{_told(told['change']):>30}{'-' if size is None else f'{size:+.2f}':>16}")  # fmt: skip
    if result["rejected"]:
        lines += ["", *(f"left out: {each['file']}: {each['reason']}" for each in result["rejected"])]
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _told(change: dict[str, float | None]) -> str:
    if change["value"] is None or change["low"] is None:
        return "-"
    return f"{change['value']:+.3f} [{change['low']:+.3f}, {change['high']:+.3f}]"
