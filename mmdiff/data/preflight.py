"""Looking at the data before step 1: better an error now than a mute model after three days."""

from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np
from tqdm import tqdm

from mmdiff.data.clips import DataConfig
from mmdiff.data.manifest import Entry, entry_path
from mmdiff.data.windows import Window, WindowReader, fixed_windows, name_some, read_entries, select_entries
from mmdiff.media import ClipSpec, probe, read_audio, read_video

SILENCE_DBFS = -60.0
STILL_STEPS = 2  # of 255: less is an encoder's noise
MAX_FILES = 32


@dataclass(frozen=True)
class SplitReport:
    """What one split holds; shares are of the windows that were looked at."""

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
        lines = [
            f"{'split':<11}{'files':>6}{'windows':>9}{'hours':>7}{'fps':>10}{'Hz':>8}"
            f"{'looked at':>11}{'silent':>8}{'still':>7}"
        ]
        for s in self.splits:
            shares = f"{s.silent_share:>8.0%}{s.still_share:>7.0%}" if s.num_read else f"{'-':>8}{'-':>7}"
            lines.append(
                f"{s.split:<11}{s.num_files:>6}{s.num_windows:>9}{s.hours:>7.2f}{s.fps:>10}{s.sample_rates:>8}"
                f"{s.num_read:>11}{shares}"
            )
        return "\n".join(lines)


@dataclass
class _Findings:
    silent: list[bool] = field(default_factory=list)
    still: list[bool] = field(default_factory=list)
    faults: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))


def preflight(
    config: DataConfig,
    spec: ClipSpec,
    splits: tuple[str, ...] = ("train",),
    *,
    max_files: int = MAX_FILES,
    seed: int = 0,
) -> PreflightReport:
    """Count every split, and look into up to `max_files` files (a seeded choice) of the `splits` named.

    Of each file the streams, the length against the manifest and all of the sound are checked, and the picture in its
    first, middle and last window.

    Errors: `ValueError` that names the files that are broken, lack a stream, are shorter than the manifest says, are
    silent throughout, or whose picture never changes; and whatever `select_entries` refuses.
    """
    held = {split: select_entries(config.path, split, spec) for split in splits}
    others = defaultdict(list)
    for entry in read_entries(config.path):
        if entry.split not in held:
            others[entry.split].append(entry)
    reports = [_check(config, spec, split, entries, max_files, seed) for split, entries in held.items()]
    reports += [_report(split, entries, spec, _Findings()) for split, entries in sorted(others.items(), reverse=True)]
    return PreflightReport(tuple(reports))


def is_silent(waveform: np.ndarray) -> bool:
    """Say whether a waveform `c n` stays below -60 dBFS on the average."""
    return float(np.sqrt(np.mean(np.square(waveform, dtype=np.float64)))) < 10 ** (SILENCE_DBFS / 20)


def is_still(frames: np.ndarray) -> bool:
    """Say whether no pixel of frames `f h w 3` ever changes by more than two steps of 255."""
    return int((frames.max(0) - frames.min(0)).max()) <= STILL_STEPS


def _check(
    config: DataConfig, spec: ClipSpec, split: str, entries: list[Entry], max_files: int, seed: int
) -> SplitReport:
    chosen = entries
    if len(entries) > max_files:
        chosen = [entries[i] for i in sorted(np.random.default_rng(seed).permutation(len(entries))[:max_files])]
    reader = WindowReader(config.path, spec, [], cache_bytes=0)
    findings = _Findings()
    for entry in tqdm(chosen, desc=f"preflight {split}", unit="file", leave=False, disable=None):
        try:
            _look(reader, entry, findings)
        except ValueError as error:
            findings.faults[f"broken ({error})"].append(entry.path)
    if findings.faults:
        told = [f"  {fault}: {name_some(paths)}" for fault, paths in findings.faults.items()]
        raise ValueError(f"{config.path}: mend these files, or leave them out of the data set:\n" + "\n".join(told))
    return _report(split, entries, spec, findings)


def _look(reader: WindowReader, entry: Entry, findings: _Findings) -> None:
    path, faults, spec = entry_path(reader.folder, entry), findings.faults, reader.spec
    info = probe(path)
    if not info.has_video or not info.has_audio:
        faults["no picture in the file" if info.has_audio else "no sound in the file"].append(entry.path)
        return
    sound = read_audio(path)
    ends = sound.waveform.shape[1] / sound.sample_rate
    if ends < entry.num_samples / entry.sample_rate or info.duration_seconds < entry.duration_seconds - 1 / entry.fps:
        faults["shorter than its manifest says"].append(entry.path)
        return
    windows = fixed_windows([entry], spec)
    rate, length = sound.sample_rate, round(spec.duration_seconds * sound.sample_rate)
    begins = [round(window.start * rate) for window in windows]
    findings.silent += [is_silent(sound.waveform[:, begin : begin + length]) for begin in begins]
    if all(is_silent(sound.waveform[:, i : i + length]) for i in range(0, sound.waveform.shape[1], length)):
        faults["silent from beginning to end"].append(entry.path)
    chosen: list[Window] = [windows[i] for i in sorted({0, len(windows) // 2, len(windows) - 1})]
    still = [is_still(reader.read(window).frames) for window in chosen]
    findings.still += still
    if all(still) and is_still(read_video(path, size=(spec.height, spec.width)).frames):
        faults["a picture that never changes"].append(entry.path)


def _report(split: str, entries: list[Entry], spec: ClipSpec, findings: _Findings) -> SplitReport:
    def values(name: str) -> str:
        return ",".join(sorted({str(getattr(entry, name)) for entry in entries}))

    return SplitReport(
        split=split,
        num_files=len(entries),
        num_windows=len(fixed_windows(entries, spec)),
        hours=float(sum(entry.duration_seconds for entry in entries)) / 3600,
        fps=values("fps"),
        sample_rates=values("sample_rate"),
        num_read=len(findings.silent),
        silent_share=sum(findings.silent) / max(len(findings.silent), 1),
        still_share=sum(findings.still) / max(len(findings.still), 1),
    )
