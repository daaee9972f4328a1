"""From folders of files to event lists: the windows that are measured, and what is heard and seen in each."""

import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from tqdm import tqdm

from mmdiff.data.manifest import MANIFEST_NAME, Entry, entry_path, read_manifest
from mmdiff.eval import sync
from mmdiff.media import Clip, ClipSpec, probe, read_clip

SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".webm")
MAX_REAL_WINDOWS = 200
MAX_PIXELS = 256
CALIBRATION_WINDOWS = 96
SHIFTED_ROWS_MS = (-200, 200)  # moved in every real window, for rows of the table
CALIBRATION_MS = (-300, -200, -130, -60, -25, 25, 60, 130, 200, 300)  # moved in some, for the calibration curve


@dataclass(frozen=True)
class Window:
    """A stretch of a file to measure: `shown` is the path as typed; times of true events where they are known."""

    path: Path
    shown: str
    start: Fraction
    truth: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Reading:
    """What was found in a window, in seconds from its start; by shift in ms where it was shifted too."""

    window: Window
    audio: np.ndarray
    video: np.ndarray
    shifted: dict[int, "ShiftedEvents"]


@dataclass(frozen=True)
class ShiftedEvents:
    """Events of a window whose sound was moved, and when its last frame appears."""

    audio: np.ndarray
    video: np.ndarray
    end_seconds: float


def find_media(folder: Path) -> list[Path]:
    """Return a folder's media files in order.

    Errors: `ValueError` where there is no such folder or nothing in it.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder; give a folder of MP4 files")
    found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))
    if not found:
        raise ValueError(f"{folder}: no media files here ({', '.join(SUFFIXES)})")
    return found


def protocol_spec(paths: Sequence[Path]) -> ClipSpec:
    """Return the shape of the first readable generation: everything is measured in windows of this shape, in mono.

    Frames are made no larger than `MAX_PIXELS` each way; so many are taken as last a whole number of samples.

    Errors: `ValueError` where no file can be read.
    """
    reasons = []
    for path in paths:
        try:
            read_clip(path)
            info = probe(path)
            unit = (info.sample_rate / info.fps).denominator
            scale = min(1, MAX_PIXELS / max(info.height, info.width))
            height, width = (max(round(size * scale), 1) for size in (info.height, info.width))
            return ClipSpec(info.num_frames // unit * unit, info.fps, height, width, info.sample_rate, 1)
        except (ValueError, OSError) as error:
            reasons.append(str(error))
    raise ValueError(f"no generation can be read; the first fault is: {reasons[0]}")


def real_windows(
    reference: Path, spec: ClipSpec, split: str, rejected: list[dict[str, str]], most: int = MAX_REAL_WINDOWS
) -> list[Window]:
    """Return consecutive windows of the reference's files; of more than `most`, an evenly spread choice.

    Errors: `ValueError` where the split is empty or the folder holds no media.
    """
    if (reference / MANIFEST_NAME).is_file():
        windows = list(_manifest_windows(reference, spec, split))
    else:
        windows = list(_folder_windows(reference, spec, rejected))
    return evenly(windows, most)


def evenly(items: Sequence, most: int) -> list:
    """Return at most so many items, spread evenly over all of them."""
    if len(items) <= most:
        return list(items)
    return [items[i] for i in np.linspace(0, len(items) - 1, most).round().astype(int)]


def _manifest_windows(folder: Path, spec: ClipSpec, split: str) -> Iterator[Window]:
    entries = read_manifest(folder)
    chosen = [entry for entry in entries if entry.split == split]
    if not chosen:
        there = ", ".join(sorted({entry.split for entry in entries})) or "none"
        raise ValueError(f"{folder}: no files in split '{split}'; there are: {there} (--split)")
    for entry in chosen:
        for number in range(max(int(entry.duration_seconds // spec.duration_seconds), 1)):
            start = number * spec.duration_seconds
            truth = _true_times(entry, start, spec) if entry.events else None
            yield Window(entry_path(folder, entry), str(folder / entry.path), start, truth)


def _true_times(entry: Entry, start: Fraction, spec: ClipSpec) -> tuple[float, ...]:
    """Return the times of an entry's events in a window; what happens at the same moment is one event."""
    times = np.array(sorted(event.time - float(start) for event in entry.events))
    times = sync.merge_times(times, np.zeros(len(times)), sync.MERGE_SECONDS / 2)
    return tuple(float(time) for time in times if 0 <= time < spec.duration_seconds)


def _folder_windows(folder: Path, spec: ClipSpec, rejected: list[dict[str, str]]) -> Iterator[Window]:
    for path in find_media(folder):
        try:
            info = probe(path)
        except (ValueError, OSError) as error:
            rejected.append({"file": str(path), "reason": str(error)})
            continue
        lasts = info.num_frames / info.fps if info.fps else Fraction(0)
        for number in range(max(int(lasts // spec.duration_seconds), 1)):
            yield Window(path, str(path), number * spec.duration_seconds)


def read_all(
    name: str,
    windows: Sequence[Window],
    spec: ClipSpec,
    rejected: list[dict[str, str]],
    shifts: Sequence[int] = (),
) -> list[Reading]:
    """Find the events of all windows; a file that cannot be read is listed once and left out."""
    calibrated = set(np.linspace(0, len(windows) - 1, min(len(windows), CALIBRATION_WINDOWS)).round().astype(int))
    readings: list[Reading] = []
    broken: dict[Path, str] = {}
    for number, window in enumerate(tqdm(windows, desc=name, unit="clip", file=sys.stderr, disable=None)):
        if window.path in broken:
            continue
        try:
            clip = read_clip(window.path, spec, start=window.start)
        except (ValueError, OSError) as error:
            broken[window.path] = str(error)
            continue
        wanted = [ms for ms in shifts if ms in SHIFTED_ROWS_MS or number in calibrated]
        readings.append(read_events(window, clip, wanted))
    rejected += [{"file": str(path), "reason": reason} for path, reason in broken.items()]
    return readings


def read_events(window: Window, clip: Clip, shifts: Sequence[int]) -> Reading:
    """Find a clip's events, and again with its sound moved by each of the shifts."""
    return Reading(
        window,
        sync.audio_onsets(clip.waveform, clip.sample_rate),
        sync.video_onsets(clip.frames, clip.fps),
        {ms: _shifted_events(shift_sound(clip, ms), ms) for ms in shifts},
    )


def _shifted_events(clip: Clip, ms: int) -> ShiftedEvents:
    return ShiftedEvents(
        sync.audio_onsets(clip.waveform, clip.sample_rate),
        sync.video_onsets(clip.frames, clip.fps),
        float((clip.num_frames - 1) / clip.fps),
    )


def shift_sound(clip: Clip, shift_ms: int) -> Clip:
    """Move a clip's sound later (positive) or earlier against its picture, and cut both to the stretch they share."""
    shift = Fraction(shift_ms, 1000)
    lost = math.ceil(abs(shift) * clip.fps)
    first = lost if shift > 0 else 0
    frames = clip.frames[first : first + clip.num_frames - lost]
    start = round((first / clip.fps - shift) * clip.sample_rate)
    length = int(len(frames) / clip.fps * clip.sample_rate)
    return Clip(frames, clip.waveform[:, start : start + length], clip.fps, clip.sample_rate)
