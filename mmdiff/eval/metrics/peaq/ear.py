"""The ear of PEAQ Basic: from a waveform to the excitation of 109 critical bands (ITU-R BS.1387-1, Annex 2, part 2.1).

Shapes: samples `n`, frames `f`, spectral bins `k` (1025), critical bands `z` (109). Powers are on the scale on which a
sine of full scale at 1019.5 Hz has 92 dB SPL. Where the standard leaves room we follow P. Kabal, "An Examination and
Interpretation of ITU-R BS.1387", McGill University, 2003.
"""

import functools
from dataclasses import dataclass

import numpy as np

SAMPLE_RATE = 48000
N_FFT = 2048
HOP_LENGTH = N_FFT // 2
FRAMES_PER_SECOND = SAMPLE_RATE / HOP_LENGTH
NUM_BINS = N_FFT // 2 + 1
FULL_SCALE = 32768.0  # samples are counted in steps of 16 bits

LEVEL_DB_SPL = 92.0
LEVEL_HZ = 1019.5
BAND_BARK = 0.25
LOWEST_HZ, HIGHEST_HZ = 80.0, 18000.0
SMALLEST_BAND_POWER = 1e-12
SPREADING_EXPONENT = 0.4


@dataclass(frozen=True)
class Bands:
    """The critical bands: lower edges, centres and upper edges `z` in Hz."""

    lower: np.ndarray
    centre: np.ndarray
    upper: np.ndarray

    @property
    def num_bands(self) -> int:
        """Return how many bands there are."""
        return len(self.centre)


@dataclass(frozen=True)
class Excitation:
    """What one signal raises in the ear: excitation `f z` before and after smearing over time."""

    unsmeared: np.ndarray
    smeared: np.ndarray


@functools.cache
def critical_bands() -> Bands:
    """Return the 109 bands a quarter of a Bark wide between 80 Hz and 18 kHz, f = 650 sinh(z / 7).

    Four edges and centres of the published table depart from the formula; every published result rests on the table.
    """
    start, end = (7 * np.arcsinh(edge / 650) for edge in (LOWEST_HZ, HIGHEST_HZ))
    num_bands = int(np.ceil((end - start) / BAND_BARK))
    edges = np.minimum(start + BAND_BARK * np.arange(num_bands + 1), end)
    lower, centre, upper = (
        np.round(650 * np.sinh(bark / 7), 3) for bark in (edges[:-1], (edges[:-1] + edges[1:]) / 2, edges[1:])
    )
    upper[28], upper[70], lower[66], centre[100] = 933.113, 4643.482, 3853.817, 13294.850
    return Bands(lower, centre, upper)


def frame(samples: np.ndarray, first: int, last: int) -> np.ndarray:
    """Return frames first to last (excluded) `f 2048` of samples `n`, half of each in the next, zeros past the end."""
    needed = (last - 1) * HOP_LENGTH + N_FFT
    piece = samples[first * HOP_LENGTH : needed]
    piece = np.pad(piece, (0, needed - first * HOP_LENGTH - len(piece)))
    return np.lib.stride_tricks.sliding_window_view(piece, N_FFT)[::HOP_LENGTH]


def power_spectrum(frames: np.ndarray) -> np.ndarray:
    """Return the calibrated power `f k` of frames `f 2048` under a Hann window (section 2.1.3)."""
    return np.abs(np.fft.rfft(frames * (_calibration() * np.hanning(N_FFT)), axis=-1)) ** 2


def _calibration() -> float:
    """Return the gain that gives the largest bin of the full-scale sine between two bins the level of 92 dB."""
    width = N_FFT - 1
    position = LEVEL_HZ / SAMPLE_RATE * N_FFT
    distance = min(position % 1, 1 - position % 1) * width / N_FFT
    peak = np.sin(np.pi * distance) / (np.pi * distance * (1 - distance**2))
    return 10 ** (LEVEL_DB_SPL / 20) / (peak * FULL_SCALE / 4 * width)


@functools.cache
def ear_weights() -> np.ndarray:
    """Return the outer and middle ear's weighting of power `k` (BS.1387-1, section 2.1.4)."""
    khz = np.arange(NUM_BINS) * (SAMPLE_RATE / N_FFT / 1000)
    with np.errstate(divide="ignore"):  # nothing passes at 0 Hz
        decibels = -2.184 * khz**-0.8 + 6.5 * np.exp(-0.6 * (khz - 3.3) ** 2) - 0.001 * khz**3.6
    return 10 ** (decibels / 10)


@functools.cache
def _grouping() -> np.ndarray:
    """Return which share of each bin `k z` falls into each band."""
    bands, width = critical_bands(), SAMPLE_RATE / N_FFT
    centre = np.arange(NUM_BINS)[:, None] * width
    share = np.minimum(bands.upper, centre + width / 2) - np.maximum(bands.lower, centre - width / 2)
    return np.maximum(share, 0) / width


def group(power: np.ndarray) -> np.ndarray:
    """Return the power `f z` of the critical bands from that of the bins `f k`, never quite zero."""
    return np.maximum(power @ _grouping(), SMALLEST_BAND_POWER)


@functools.cache
def internal_noise() -> np.ndarray:
    """Return the power `z` of the noise inside the ear (BS.1387-1, section 2.1.6)."""
    return 10 ** (0.1456 * (critical_bands().centre / 1000) ** -0.8)


def spread(power: np.ndarray) -> np.ndarray:
    """Return excitation `f z`: each band's power leaks into its neighbours (BS.1387-1, section 2.1.7).

    27 dB a Bark are lost towards low bands; towards high bands less, the louder the band. Exponents add up as 0.4.
    """
    return _spread(power) / _spread(np.ones((1, power.shape[-1])))


def _spread(power: np.ndarray) -> np.ndarray:
    """Return the spread power `f z` without the normalisation that keeps a flat spectrum of power 1 as it is."""
    num_bands = power.shape[-1]
    band = np.arange(num_bands)
    downward = 10 ** (-2.7 * BAND_BARK)
    upward = 10 ** ((-2.4 - 23 / critical_bands().centre) * BAND_BARK) * power ** (0.2 * BAND_BARK)
    below = (1 - downward ** (band + 1)) / (1 - downward)
    above = (1 - upward ** (num_bands - band)) / (1 - upward)
    kept = (power / (below + above - 1)) ** SPREADING_EXPONENT
    total = kept @ np.tril(downward ** (SPREADING_EXPONENT * (band[:, None] - band)))
    loss, leaking = upward**SPREADING_EXPONENT, kept
    for _ in range(1, num_bands):  # one band further up each time, for every frame and source at once
        leaking = leaking[:, :-1] * loss[:, : leaking.shape[-1] - 1]
        total[:, num_bands - leaking.shape[-1] :] += leaking
    return total ** (1 / SPREADING_EXPONENT)


def decay(seconds_at_100_hz: float, shortest_seconds: float = 0.008) -> np.ndarray:
    """Return how much `z` of a memory each band keeps from one frame to the next (BS.1387-1, section 2.1.8)."""
    seconds = shortest_seconds + 100 / critical_bands().centre * (seconds_at_100_hz - shortest_seconds)
    return np.exp(-1 / (FRAMES_PER_SECOND * seconds))


def remember(values: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Return the running sums `f z` of values `f z` of which a share `z` is kept a frame, from zero on."""
    sums, memory = np.empty_like(values), np.zeros(values.shape[-1])
    for index, value in enumerate(values):
        memory = kept * memory + value
        sums[index] = memory
    return sums


def excite(band_power: np.ndarray) -> Excitation:
    """Return the excitation that the power `f z` of the bands raises: noise added, spread, and smeared forward."""
    unsmeared = spread(band_power + internal_noise())
    kept = decay(0.030)
    return Excitation(unsmeared, np.maximum(remember((1 - kept) * unsmeared, kept), unsmeared))
