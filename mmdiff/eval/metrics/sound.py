"""A sound as librosa's functions want it: one channel, at the rate that a published metric was defined for."""

import fcntl
import importlib
import os
import tempfile
from pathlib import Path
from types import ModuleType

import numpy as np

LIBROSA_RATE = 22050  # what librosa.load gives where it is not asked, and what the published metrics were run at


def load_librosa() -> ModuleType:
    """Import librosa, one process at a time.

    On first import numba compiles librosa's kernels and writes them to a cache. Two processes that write at once (ranks
    under torchrun) leave a cache whose parts do not fit each other, and every later process that uses it crashes.
    """
    with (Path(tempfile.gettempdir()) / f"mmdiff-librosa-{os.getuid()}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for module in ("util.utils", "core.audio", "core.pitch", "onset", "beat"):  # those with kernels
            importlib.import_module(f"librosa.{module}")
        return importlib.import_module("librosa")


def mono_at(waveform: np.ndarray, sample_rate: float, target_rate: int = LIBROSA_RATE) -> np.ndarray:
    """Return a waveform `c n` or `n` as mono float32 `n` at a rate, as `librosa.load` does: mean of channels, soxr HQ.

    Errors: `ValueError` where it has more than two axes, a rate is not positive, or a sample is not finite.
    """
    wave = np.asarray(waveform)
    if wave.ndim not in (1, 2) or not sample_rate > 0:
        raise ValueError(f"sound: a waveform {wave.shape} at {sample_rate} Hz; give channels, samples and a rate")
    if not np.issubdtype(wave.dtype, np.floating):
        raise ValueError(f"sound: samples are {wave.dtype}; divide them by full scale to floats in [-1, 1]")
    wave = wave.astype(np.float32, copy=False)
    mono = wave.mean(0) if wave.ndim == 2 else wave
    if not np.isfinite(mono).all():
        raise ValueError("sound: a sample is NaN or infinite; the file or the vocoder that made it is broken")
    if sample_rate == target_rate or mono.size == 0:
        return mono
    return load_librosa().resample(mono, orig_sr=sample_rate, target_sr=target_rate, res_type="soxr_hq")
