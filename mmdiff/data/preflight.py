"""Looking at the data before step 1: better an error now than a mute model after three days."""

from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from mmdiff.data.clips import DataConfig, Window, WindowReader, fixed_windows, select_entries
from mmdiff.media import ClipSpec

SILENCE_DBFS = -60.0
MAX_FILES = 64


@dataclass(frozen=True)
class SplitReport:
    """What one split holds; shares are of the windows that were read."""

    split: str
    num_files: int
    num_windows: int
    hours: float
    fps: str
    sample_rates: str
    num_read: int
    silent_share: float
    still_share: float


@dataclass(frozen=True)
class PreflightReport:
    """What the data set holds, split by split."""

    splits: tuple[SplitReport, ...]

    def table(self) -> str:
        """Return the report as text for people."""
        lines = [f"{'split':<11}{'files':>6}{'windows':>9}{'hours':>7}{'fps':>10}{'Hz':>8}{'silent':>8}{'still':>7}"]
        for s in self.splits:
            lines.append(
                f"{s.split:<11}{s.num_files:>6}{s.num_windows:>9}{s.hours:>7.2f}{s.fps:>10}{s.sample_rates:>8}"
                f"{s.silent_share:>8.0%}{s.still_share:>7.0%}"
            )
        return "\n".join(lines)


def preflight(config: DataConfig, spec: ClipSpec, splits: tuple[str, ...] = ("train",)) -> PreflightReport:
    """Read windows of up to 64 files of every split and report on them.

    Errors: `ValueError` that names the files where one cannot be read, or where a modality carries nothing at all.
    """
    return PreflightReport(tuple(_check_split(config, spec, split) for split in splits))


def is_silent(waveform: np.ndarray) -> bool:
    """Say whether a waveform `c n` stays below -60 dBFS."""
    return float(np.sqrt(np.mean(np.square(waveform, dtype=np.float64)))) < 10 ** (SILENCE_DBFS / 20)


def is_still(frames: np.ndarray) -> bool:
    """Say whether no pixel of frames `f h w 3` ever changes by more than two steps of 255."""
    return int(np.ptp(frames.astype(np.int16), axis=0).max()) <= 2


def _check_split(config: DataConfig, spec: ClipSpec, split: str) -> SplitReport:
    entries = select_entries(config.path, split, spec)
    stride = max(len(entries) // MAX_FILES, 1)
    reader = WindowReader(config.path, spec, cache_bytes=0)
    silent, still, count = [], [], 0
    for entry in tqdm(entries[::stride], desc=f"preflight {split}", unit="file", leave=False):
        windows = fixed_windows([entry], spec)
        for window in {windows[0], windows[len(windows) // 2]}:
            clip = reader.read(Window(window.entry, window.start, False))
            count += 1
            silent += [entry.path] if is_silent(clip.waveform) else []
            still += [entry.path] if is_still(clip.frames) else []
    for name, bad in (("audio is silent", silent), ("video never changes", still)):
        if len(bad) == count:
            listed = ", ".join(sorted(set(bad))[:5])
            raise ValueError(f"{config.path}: the {name} in every window that was read: {listed}; mend or leave out")
    return SplitReport(
        split=split,
        num_files=len(entries),
        num_windows=len(fixed_windows(entries, spec)),
        hours=float(sum(entry.duration_seconds for entry in entries)) / 3600,
        fps=",".join(sorted({str(entry.fps) for entry in entries})),
        sample_rates=",".join(sorted({str(entry.sample_rate) for entry in entries})),
        num_read=count,
        silent_share=len(silent) / count,
        still_share=len(still) / count,
    )
