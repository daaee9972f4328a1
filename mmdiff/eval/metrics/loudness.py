"""Loudness: integrated LUFS of a sound, and whether generated clips keep the loudness of the training clips."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

BLOCK_SECONDS = 0.4
TOLERANCE = 2.5  # LU
MAX_CHANNELS = 5  # left, right, centre and the surrounds, as ITU-R BS.1770 weighs them


def integrated_loudness(waveform: np.ndarray, sample_rate: int) -> float:
    """Return the gated loudness of a waveform `c n` or `n` in LUFS, minus infinity where no block is above -70 LUFS.

    Channels are taken as they are: mono counts once, and the same sound in both channels of stereo reads 3.01 LU more.
    The filters are De Man's (pyloudnorm's class "DeMan"), which follow ITU-R BS.1770-4 at every sample rate.

    Errors: `ValueError` where the sound is shorter than 0.4 s, one block, has more than 5 channels or is not finite.
    """
    wave = np.atleast_2d(np.asarray(waveform, np.float64))
    if wave.ndim != 2 or not 0 < len(wave) <= MAX_CHANNELS:
        raise ValueError(f"loudness: the waveform is {np.shape(waveform)}; give 1 to {MAX_CHANNELS} channels, samples")
    if wave.shape[1] < BLOCK_SECONDS * sample_rate:
        raise ValueError(
            f"loudness: {wave.shape[1] / sample_rate:.3f} s of sound are shorter than a block of {BLOCK_SECONDS} s; "
            "give a longer clip"
        )
    if not np.isfinite(wave).all():
        raise ValueError("loudness: a sample is NaN or infinite; the file or the vocoder that made it is broken")
    import pyloudnorm

    with np.errstate(divide="ignore", invalid="ignore"):  # the logarithm of silent blocks, which the gate removes
        return float(pyloudnorm.Meter(sample_rate, filter_class="DeMan").integrated_loudness(wave.T))


@dataclass(frozen=True)
class LoudnessAgreement:
    """Which generated clips keep the training clips' mean loudness in LUFS, and the percentage of them."""

    mean_lufs: float
    is_within: np.ndarray
    percent: float


def within_loudness(
    train_lufs: Sequence[float], generated_lufs: Sequence[float], *, tolerance: float = TOLERANCE
) -> LoudnessAgreement:
    """Compare loudness with the mean of the training clips' loudness: |LUFS - mean| <= tolerance, bound included.

    Silent training clips (minus infinity) stay out of the mean; silent generated ones are not within it.

    Errors: `ValueError` where a side is empty, or every training clip is silent.
    """
    train, generated = np.asarray(train_lufs, np.float64), np.asarray(generated_lufs, np.float64)
    train = train[np.isfinite(train)]
    if not len(train) or not len(generated):
        raise ValueError("loudness: every training clip is silent, or nothing is generated; give one of each at least")
    mean = float(train.mean())
    is_within = np.abs(generated - mean) <= tolerance + 1e-9  # inclusive also where the mean is rounded
    return LoudnessAgreement(mean, is_within, 100 * float(is_within.mean()))
