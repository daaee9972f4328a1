"""Windows: short stretches of long files, exactly as long in sound as in picture."""

import math
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from mmdiff.data.folder import scan_folder
from mmdiff.data.manifest import MANIFEST_NAME, Entry, entry_path, read_manifest
from mmdiff.data.shards import has_shards, read_shards
from mmdiff.media import Clip, ClipSpec, read_audio, read_clip, read_video

MAX_NAMED = 5  # files that an error names


@dataclass(frozen=True)
class Window:
    """Where a training example comes from: an entry, the second at which it starts, and whether it is mirrored."""

    entry: Entry
    start: Fraction
    is_flipped: bool


def name_some(paths: list[str]) -> str:
    """Return the first few paths of a list as text, and how many more there are."""
    more = len(paths) - MAX_NAMED
    return ", ".join(paths[:MAX_NAMED]) + (f" and {more} more" if more > 0 else "")


def read_entries(folder: str | Path) -> list[Entry]:
    """Return all entries of a data set: its manifest's, its shards', or what a plain folder of media files holds.

    Errors: `ValueError` where there is neither, or a source is in two splits.
    """
    folder = Path(folder)
    if (folder / MANIFEST_NAME).exists():
        entries = read_manifest(folder)
    else:
        entries = read_shards(folder) if has_shards(folder) else scan_folder(folder)
    splits: dict[str, str] = {}
    for entry in entries:
        if splits.setdefault(entry.source, entry.split) != entry.split:
            raise ValueError(
                f"{folder}: source '{entry.source}' is in two splits, {splits[entry.source]} and {entry.split}; "
                "give each source one split in the manifest"
            )
    return entries


def select_entries(folder: str | Path, split: str, spec: ClipSpec) -> list[Entry]:
    """Return a split's entries, all of which can give windows of `spec`.

    Errors: `ValueError` where a source is in two splits, the split is empty, a file is too short, or its frame rate is
    lower than that of `spec`, so that frames would have to be repeated.
    """
    entries = read_entries(folder)
    chosen = [entry for entry in entries if entry.split == split]
    if not chosen:
        held = ", ".join(sorted({entry.split for entry in entries})) or "nothing"
        raise ValueError(f"{folder}: no clip in split '{split}'; the data set holds {held}")
    slow = [entry for entry in chosen if entry.fps < spec.fps]
    if slow:
        lowest = min(entry.fps for entry in slow)
        raise ValueError(
            f"{folder}: fewer frames per second than the {spec.fps} asked for, down to {lowest}: "
            f"{name_some([entry.path for entry in slow])}; frames are never repeated: set clip.fps to {lowest} or less"
        )
    short = [entry.path for entry in chosen if last_start(entry, spec) < first_start(entry)]
    if short:
        raise ValueError(
            f"{folder}: shorter than a window of {float(spec.duration_seconds):.3f} s: {name_some(short)}; lower "
            "clip.num_frames, or leave these files out"
        )
    return chosen


def first_start(entry: Entry) -> Fraction:
    """Return the first second, on the file's own frame grid, at which both streams have begun."""
    return math.ceil(Fraction(entry.begin_seconds) * entry.fps) / entry.fps


def last_start(entry: Entry, spec: ClipSpec) -> Fraction:
    """Return the last second at which a window may start so that neither stream ends within it; may be negative."""
    samples = entry.num_samples * spec.sample_rate // entry.sample_rate
    return min(entry.duration_seconds, Fraction(samples, spec.sample_rate)) - spec.duration_seconds


def fixed_windows(entries: list[Entry], spec: ClipSpec) -> list[Window]:
    """Return consecutive windows, side by side from every file's start: what is measured and evaluated on."""
    windows = []
    for entry in entries:
        begin, step = first_start(entry), spec.duration_seconds
        count = int((last_start(entry, spec) - begin) / step) + 1
        windows += [Window(entry, begin + number * step, False) for number in range(count)]
    return windows


def jittered_start(window: Window, spec: ClipSpec, chance: float) -> Fraction:
    """Return a start on the file's frame grid, near the fixed window's, for a chance in [0, 1).

    The possible starts of a file are divided into as many equal parts as it has fixed windows, one for each: over the
    epochs every start comes equally often, and in each epoch every part of the file comes once.
    """
    entry, begin = window.entry, first_start(window.entry)
    positions = int((last_start(entry, spec) - begin) * entry.fps) + 1
    count = int((last_start(entry, spec) - begin) / spec.duration_seconds) + 1
    number = int((window.start - begin) / spec.duration_seconds)
    return begin + int((number + chance) * positions / count) / entry.fps


class WindowReader:
    """Read windows, keeping in memory as many whole decoded files as fit, the first of `entries` first.

    A file that is kept is decoded once, at its first window; of the others each window is decoded from the nearest key
    frame. Which way a file is read depends on the arguments alone, so the same window always gives the same bits.
    """

    def __init__(self, folder: str | Path, spec: ClipSpec, entries: list[Entry], cache_bytes: int):
        self.folder, self.spec = Path(folder), spec
        self.cache: dict[str, Clip] = {}
        self.kept: set[str] = set()
        for entry in entries:
            size = int(entry.duration_seconds * spec.sample_rate) * spec.channels * 4
            size += entry.num_frames * spec.height * spec.width * 3
            if size > cache_bytes or entry.is_variable_frame_rate:
                continue
            cache_bytes -= size
            self.kept.add(entry.path)

    def read(self, window: Window) -> Clip:
        """Return the window as a clip of exactly `spec`.

        Errors: `ValueError` that names the file where it is damaged or shorter than its manifest says.
        """
        spec, entry = self.spec, window.entry
        if entry.path in self.kept:
            frames, sound = self._cut(window)
        else:
            clip = read_clip(entry_path(self.folder, entry), spec, start=window.start)
            frames, sound = clip.frames, clip.waveform
        if window.is_flipped:
            frames = frames[:, :, ::-1]
        return Clip(np.ascontiguousarray(frames), np.ascontiguousarray(sound), spec.fps, spec.sample_rate)

    def _cut(self, window: Window) -> tuple[np.ndarray, np.ndarray]:
        spec, whole = self.spec, self._whole(window.entry)
        # Frames lie at k / fps: the one on screen at a time is the last that has begun.
        indices = [int((window.start + time) * whole.fps) for time in spec.frame_times()]
        begin = round(window.start * spec.sample_rate)
        if indices[-1] >= whole.num_frames or begin + spec.num_samples > whole.num_samples:
            raise ValueError(f"{window.entry.path}: shorter than its manifest says; make one of them again")
        return whole.frames[indices], whole.waveform[:, begin : begin + spec.num_samples]

    def _whole(self, entry: Entry) -> Clip:
        if entry.path not in self.cache:
            path, spec = entry_path(self.folder, entry), self.spec
            picture = read_video(path, size=(spec.height, spec.width))
            sound = read_audio(path, sample_rate=spec.sample_rate, channels=spec.channels)
            self.cache[entry.path] = Clip(picture.frames, sound.waveform, picture.fps, spec.sample_rate)
        return self.cache[entry.path]
