"""Folders of clips that show a musical concept: reading, checks, crops and chunks, backgrounds, loudness."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmdiff.eval.metrics.loudness import integrated_loudness
from mmdiff.log import get_logger
from mmdiff.media import read_audio
from mmdiff.media.audio import AUDIO_SUFFIXES, to_channels

CLASS_NAME = "class_name.txt"
MIN_SECONDS = 1.0
SILENT = 1e-6  # no sound has a smaller peak than this
LEAST_OF_MIX = -12.0  # decibels: a mix to mono below what its channels have has lost what they say


@dataclass(frozen=True)
class Recording:
    """A file's sound, float32 `c n` with the model's rate and channels, as loud as on disk; its loudness is in LUFS."""

    path: Path
    waveform: np.ndarray
    peak: float
    loudness: float
    is_mixed: bool = False  # of stereo, for a mono model


@dataclass(frozen=True)
class ClassName:
    """What a concept folder says it shows, such as "string instrument", and the word for the concept itself."""

    object_class: str = ""
    word: str = ""


def clips_in(folder: Path) -> list[Path]:
    """Return the audio files of a folder, by name; of one that is not there none."""
    found = folder.iterdir() if folder.is_dir() else ()
    return sorted(p for p in found if p.suffix.lower() in AUDIO_SUFFIXES and p.is_file() and not p.name.startswith("."))


def list_clips(folder: str | Path, setting: str) -> list[Path]:
    """Return the audio files of a folder, by name.

    Errors: `ValueError` where there is no such folder, or nothing to hear in it.
    """
    path = Path(folder).expanduser()
    if not path.is_dir():
        raise ValueError(f"{setting}: {folder} is no folder; name one with clips ({', '.join(AUDIO_SUFFIXES)})")
    found = clips_in(path)
    if not found:
        raise ValueError(f"{setting}: {folder} holds no clip ({', '.join(AUDIO_SUFFIXES)})")
    return found


def check_clips(paths: list[Path], count: int | None) -> None:
    """Refuse fewer clips than are asked for, and one clip alone where nobody asks for one.

    Errors: `ValueError` that says how many there are.
    """
    if count is not None and count > len(paths):
        raise ValueError(f"num_clips is {count}, and {paths[0].parent} holds {len(paths)}; add clips, or lower it")
    if count is None and len(paths) == 1:
        raise ValueError(f"instance_data_dir: {paths[0].parent} holds one clip only, and what would be learned is that "
                         "clip; add more, three to five are customary, or set num_clips=1")  # fmt: skip


def read_class_name(folder: str | Path) -> ClassName:
    """Return what `class_name.txt` says: the class in its first line, and the concept's word in its second.

    Errors: `ValueError` where it cannot be read, or is empty.
    """
    path = Path(folder).expanduser() / CLASS_NAME
    if not path.is_file():
        return ClassName()
    try:
        lines = [" ".join(line.split()) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: cannot be read as text in UTF-8 ({error})") from error
    if not lines:
        raise ValueError(f"{path}: is empty; write the class into its first line, such as: string instrument")
    return ClassName(lines[0], lines[1] if len(lines) > 1 else "")


def read_recording(path: Path, sample_rate: int, channels: int = 1, *, may_be_silent: bool = False) -> Recording:
    """Read a clip at a rate; stereo becomes mono where the model is, mono is doubled where it is not.

    Errors: `ValueError` that names the file where it cannot be read, is shorter than a second or silent, or loses what
    its channels say when they are mixed.
    """
    try:
        whole = read_audio(path, sample_rate=sample_rate).waveform
    except ValueError as error:
        raise ValueError(f"{error}; remove the clip, or save it again") from error
    if whole.shape[1] < MIN_SECONDS * sample_rate:
        raise ValueError(f"{path}: {whole.shape[1] / sample_rate:.2f} s are too short; clips have {MIN_SECONDS:g} s at "
                         "least")  # fmt: skip
    waveform = np.ascontiguousarray(to_channels(whole, channels))
    is_mixed = len(whole) > channels
    if is_mixed:
        check_mix(path, whole, waveform)
    loudness = integrated_loudness(waveform, sample_rate)
    if not math.isfinite(loudness) and not may_be_silent:
        raise ValueError(f"{path}: silent, or nearly so; a model would learn to be silent: remove the clip")
    return Recording(path, waveform, float(np.abs(waveform).max()), loudness, is_mixed)


def check_mix(path: Path, whole: np.ndarray, mixed: np.ndarray) -> None:
    """Refuse a sound `c n` that loses what its channels say when they are mixed.

    Errors: `ValueError` that names the file.
    """
    power, left = (float(np.mean(np.square(wave, dtype=np.float64))) for wave in (whole, mixed))
    if left < 10 ** (LEAST_OF_MIX / 10) * power:
        raise ValueError(f"{path}: its channels cancel each other: this model hears mono, and of their mix less than "
                         f"{LEAST_OF_MIX:g} dB is left; turn the phase of one channel about, or save one of them "
                         "alone")  # fmt: skip


def read_recordings(folder: str | Path, sample_rate: int, setting: str, count: int | None = None, *,
                    channels: int = 1, may_be_silent: bool = False) -> list[Recording]:  # fmt: skip
    """Return the clips of a folder, or the first `count` of them by name; says once which were mixed to mono.

    Errors: `ValueError` where one cannot be used.
    """
    paths = list_clips(folder, setting)
    read = [read_recording(path, sample_rate, channels, may_be_silent=may_be_silent) for path in paths[:count]]
    mixed = [each.path.name for each in read if each.is_mixed]
    if mixed:
        get_logger().info("%s: %d of %d clips are stereo and this model is mono; each is heard as the mean of its "
                          "channels: %s", setting, len(mixed), len(read), ", ".join(mixed[:3]))  # fmt: skip
    return read


def mean_loudness(recordings: list[Recording]) -> float:
    """Return the mean loudness of clips as they are on disk, in LUFS."""
    return float(np.mean([each.loudness for each in recordings]))


def chunk_starts(num_samples: int, length: int, min_samples: int) -> list[int]:
    """Return where the chunks of a sound begin, one after another; a last one that is too short is left out."""
    starts = range(0, num_samples, length)
    return [start for start in starts if start == 0 or num_samples - start >= min_samples]


def crop(waveform: np.ndarray, start: int, length: int) -> np.ndarray:
    """Return `length` samples of a sound `... n` from a start on; after its end is silence."""
    piece = waveform[..., start : start + length]
    return np.pad(piece, [(0, 0)] * (piece.ndim - 1) + [(0, length - piece.shape[-1])])


def random_start(num_samples: int, length: int, rng: np.random.Generator) -> int:
    """Return where a window of a sound begins, every place as likely; 0 where the sound is no longer than it."""
    return int(rng.integers(max(num_samples - length, 0) + 1))


def random_crop(waveform: np.ndarray, length: int, rng: np.random.Generator) -> np.ndarray:
    """Return a window of a sound, which is repeated where it is shorter: for backgrounds."""
    repeated = np.tile(waveform, -(-length // waveform.shape[-1]))
    return crop(repeated, random_start(repeated.shape[-1], length, rng), length)


def mix_background(waveform: np.ndarray, background: np.ndarray, snr_decibels: float) -> np.ndarray:
    """Return a sound with another behind it, whose power is so many decibels below its own.

    A background window in which nothing is heard adds nothing.
    """
    power, behind = (float(np.mean(np.square(wave, dtype=np.float64))) for wave in (waveform, background))
    if not behind:
        return waveform
    scale = math.sqrt(10 ** (-snr_decibels / 10) * power / behind)
    return (waveform + scale * background).astype(np.float32)


def warn_of_clips(recordings: list[Recording], length: int, sample_rate: int) -> None:
    """Warn of what can work, but seldom works well: clips much shorter than what the model hears."""
    short = [each.path.name for each in recordings if each.waveform.shape[1] < length // 2]
    if short:
        get_logger().warning("instance_data_dir: %d of %d clips fill less than half of the %.1f s that are heard; the "
                             "rest is silence, which is learned too: %s", len(short), len(recordings),
                             length / sample_rate, ", ".join(short[:3]))  # fmt: skip
