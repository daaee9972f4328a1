"""What encoding and decoding do to one clip's picture and sound: pure functions on arrays, before and after."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.ndimage import gaussian_filter

from mmdiff.eval.metrics.loudness import BLOCK_SECONDS, integrated_loudness

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
SSIM_SIGMA = 1.5
SSIM_RADIUS = 5
SSIM_CONSTANTS = ((0.01 * 255) ** 2, (0.03 * 255) ** 2)
MOVING_LEVELS = 1.0  # a frame whose levels change by more than this on average moves
FROZEN_SHARE = 0.1  # and stands still where the decoded one changes by less than this share of it
SPECTRUM_SECONDS = 0.032
FLOOR_DB = 80.0  # below a clip's loudest bin nothing counts
LOWEST_BAND_HZ = 62.5


@dataclass(frozen=True)
class PictureChange:
    """What became of a picture: mean squares in levels of 255, SSIM, and frames that ought to move but stand still."""

    squared_error: float
    ssim: float
    squared_flicker: float
    num_frozen: int
    num_moving: int


@dataclass(frozen=True)
class SoundChange:
    """What became of a sound: log-spectral distance in dB, LU louder, energies of signal and error, and of each band.

    NaN where there is nothing to compare: a silent sound, or one too short to have a loudness.
    """

    log_spectral_distance: float
    loudness_change: float
    signal: float
    error: float
    bands: np.ndarray  # before and after, `2 k`


def compare_pictures(real: np.ndarray, decoded: np.ndarray) -> PictureChange:
    """Compare frames uint8 `f h w 3` with what became of them.

    Flicker is the error of frame differences: an error that stands still does not flicker, however large it is.
    """
    before, after = real.astype(np.float32), decoded.astype(np.float32)
    moved, moved_after = np.diff(before, axis=0), np.diff(after, axis=0)
    sizes, sizes_after = (np.abs(change).mean((1, 2, 3)) for change in (moved, moved_after))
    is_moving = sizes > MOVING_LEVELS
    return PictureChange(
        float(np.square(after - before).mean(dtype=np.float64)),
        ssim(real, decoded),
        float(np.square(moved_after - moved).mean(dtype=np.float64)) if len(moved) else float("nan"),
        int((sizes_after[is_moving] < FROZEN_SHARE * sizes[is_moving]).sum()),
        int(is_moving.sum()),
    )


def ssim(real: np.ndarray, decoded: np.ndarray) -> float:
    """Return the mean structural similarity of the brightness of frames uint8 `f h w 3`; NaN below 11 pixels each way.

    Source: Wang et al., "Image Quality Assessment" (IEEE TIP 2004), eq. 13, with their Gaussian window of 11 pixels.
    """
    if min(real.shape[1:3]) <= 2 * SSIM_RADIUS:
        return float("nan")
    x, y = (frames.astype(np.float64) @ LUMA for frames in (real, decoded))
    mean_x, mean_y = _windowed(x), _windowed(y)
    variance_x = _windowed(x * x) - mean_x**2
    variance_y = _windowed(y * y) - mean_y**2
    covariance = _windowed(x * y) - mean_x * mean_y
    first, second = SSIM_CONSTANTS
    similarity = (2 * mean_x * mean_y + first) * (2 * covariance + second)
    similarity /= (mean_x**2 + mean_y**2 + first) * (variance_x + variance_y + second)
    return float(similarity.mean())


def _windowed(frames: np.ndarray) -> np.ndarray:
    """Return local means of frames `f h w`, where the window lies within the picture."""
    r = SSIM_RADIUS
    return gaussian_filter(frames, (0, SSIM_SIGMA, SSIM_SIGMA), radius=(0, r, r))[:, r:-r, r:-r]


def compare_sounds(real: np.ndarray, decoded: np.ndarray, sample_rate: int) -> SoundChange:
    """Compare a waveform `c n` with what became of it."""
    x, y = (wave.astype(np.float64) for wave in (real, decoded))
    power_x, power_y = power_spectrum(x, sample_rate), power_spectrum(y, sample_rate)
    return SoundChange(
        log_spectral_distance(power_x, power_y),
        _loudness_change(x, y, sample_rate),
        float(np.square(x).sum()),
        float(np.square(y - x).sum()),
        np.stack([band_energies(power, sample_rate) for power in (power_x, power_y)]),
    )


def power_spectrum(wave: np.ndarray, sample_rate: int) -> np.ndarray:
    """Return the power of a waveform `c n` in windows of 32 ms (Hann) every 8 ms, `c l k`."""
    size = max(round(SPECTRUM_SECONDS * sample_rate), 8)
    padded = np.pad(wave, ((0, 0), (0, max(size - wave.shape[1], 0))))
    pieces = np.lib.stride_tricks.sliding_window_view(padded, size, axis=1)[:, :: size // 4]
    return np.abs(np.fft.rfft(pieces * np.hanning(size))) ** 2


def log_spectral_distance(real: np.ndarray, decoded: np.ndarray) -> float:
    """Return the distance of power spectra `c l k` in dB: root mean square over bins, mean over windows.

    Both are floored 80 dB below the real sound's loudest bin; NaN where the real sound is silent.

    Source: Gray and Markel, "Distance Measures for Speech Processing" (IEEE TASSP 1976), with p = 2.
    """
    if not real.max() > 0:
        return float("nan")
    floor = real.max() * 10 ** (-FLOOR_DB / 10)
    difference = 10 * np.log10(np.maximum(decoded, floor) / np.maximum(real, floor))
    return float(np.sqrt(np.square(difference).mean(-1)).mean())


def band_edges(sample_rate: int) -> np.ndarray:
    """Return the edges in Hz of octave bands whose centres are 62.5 Hz, 125 Hz and so on, up to half the rate."""
    centres = LOWEST_BAND_HZ * 2.0 ** np.arange(int(np.log2(sample_rate / 2 / LOWEST_BAND_HZ)) + 1)
    edges = np.append(centres / 2**0.5, centres[-1] * 2**0.5)
    return np.minimum(edges, sample_rate / 2)


def band_energies(power: np.ndarray, sample_rate: int) -> np.ndarray:
    """Return the energy of each octave band of a power spectrum `c l k`."""
    hertz = np.linspace(0, sample_rate / 2, power.shape[-1])
    edges = band_edges(sample_rate)
    edges[-1] += 1  # half the rate itself belongs to the last band
    total = power.sum((0, 1))
    return np.array([total[(hertz >= low) & (hertz < high)].sum() for low, high in pairwise(edges)])


def _loudness_change(real: np.ndarray, decoded: np.ndarray, sample_rate: int) -> float:
    """Return how many LU louder the decoded sound is; NaN where one of both has no loudness."""
    if real.shape[1] < BLOCK_SECONDS * sample_rate:
        return float("nan")
    before, after = (integrated_loudness(wave, sample_rate) for wave in (real, decoded))
    return after - before if np.isfinite(before) and np.isfinite(after) else float("nan")
