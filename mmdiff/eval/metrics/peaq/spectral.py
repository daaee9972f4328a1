"""What PEAQ reads from the spectra: bandwidths and the error's harmonic structure (ITU-R BS.1387-1, Annex 2, part 4).

Shapes: frames `f`, spectral bins `k` (1025). A frame that a variable passes over has the value -1.
"""

import numpy as np

from mmdiff.eval.metrics.peaq.ear import N_FFT, SAMPLE_RATE

NOISE_BIN = round(21586 / SAMPLE_RATE * N_FFT)  # from here on a codec leaves nothing but noise
LOWEST_BIN = round(8109 / SAMPLE_RATE * N_FFT)  # references with less bandwidth are passed over
REFERENCE_RATIO, DEGRADED_RATIO = 10.0, 10**0.5  # 10 dB and 5 dB above that noise
SILENT_ENERGY = 8000.0  # of half a frame, in squared steps of 16 bits
NUM_LAGS = 256  # the largest power of two below 9 kHz in bins


def bandwidths(reference: np.ndarray, degraded: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return both signals' bandwidths `f` in bins from their power `f k` (section 4.4).

    The degraded signal's highest bins set the noise; its bandwidth is looked for below the reference's.
    """
    noise = degraded[:, NOISE_BIN : N_FFT // 2].max(-1, keepdims=True)
    passing = np.zeros(reference.shape, bool)
    searched = slice(LOWEST_BIN + 1, NOISE_BIN)
    passing[:, searched] = reference[:, searched] >= REFERENCE_RATIO * noise
    of_reference = _highest(passing)
    below = np.arange(degraded.shape[-1]) < of_reference[:, None]
    return of_reference, _highest(below & (degraded >= DEGRADED_RATIO * noise))


def _highest(passing: np.ndarray) -> np.ndarray:
    """Return one more than each row's highest bin `f` that passes `f k`, -1 where none does."""
    return np.where(passing.any(-1), passing.shape[-1] - np.argmax(passing[:, ::-1], -1), -1)


def harmonic_structure(
    reference_frames: np.ndarray, degraded_frames: np.ndarray, reference: np.ndarray, degraded: np.ndarray
) -> np.ndarray:
    """Return how regularly the error's spectrum repeats along frequency `f` (section 4.8).

    The frames `f 2048` say which are silent; the powers `f k` give the error: the log of their ratio up to 12 kHz. That
    is correlated with itself at lags of 0 .. 255 bins, and the strongest period of the result is the value. A frame in
    which a signal has bins of no power at all has no such ratio, and the value 0 (as in Kabal's program).
    """
    half = N_FFT // 2
    energies = [(frames[:, half:] ** 2).sum(-1) for frames in (reference_frames, degraded_frames)]
    is_silent = np.maximum(*energies) < SILENT_ENERGY
    num_bins = 2 * NUM_LAGS - 1
    with np.errstate(divide="ignore", invalid="ignore"):
        error = np.log(degraded[:, :num_bins] / reference[:, :num_bins])
    is_defined = np.isfinite(error).all(-1, keepdims=True)
    correlation = _normalised_correlation(np.where(is_defined, error, 0))
    window = np.sqrt(8 / 3) / NUM_LAGS * np.hanning(NUM_LAGS)
    power = np.abs(np.fft.rfft(window * (correlation - correlation.mean(-1, keepdims=True)), axis=-1)) ** 2
    peak = np.where(power > power[:, :1], power, 0).max(-1)  # a period counts where it rises above the constant part
    return np.where(is_silent, -1.0, peak)


def _normalised_correlation(error: np.ndarray) -> np.ndarray:
    """Return the correlation `f 256` of the first 256 errors of `f 511` with those at each lag, 1 where all are 0."""
    n_fft = 2 * NUM_LAGS
    start = np.fft.rfft(error[:, :NUM_LAGS], n_fft, axis=-1)
    products = np.fft.irfft(np.conj(start) * np.fft.rfft(error, n_fft, axis=-1), n_fft, axis=-1)[:, :NUM_LAGS]
    arriving, leaving = error[:, NUM_LAGS:] ** 2, error[:, : NUM_LAGS - 1] ** 2
    energy = products[:, :1] + np.concatenate([np.zeros_like(arriving[:, :1]), np.cumsum(arriving - leaving, -1)], -1)
    scale = products[:, :1] * energy
    return np.where(scale > 0, products / np.sqrt(np.where(scale > 0, scale, 1)), 1.0)
