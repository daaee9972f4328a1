"""Sound as long as its picture, to the sample: fitting, mixing, and the cross-fade that joins windows."""

import math
from fractions import Fraction

import numpy as np
import soxr

from mmdiff.media import Sound
from mmdiff.media.audio import to_channels

NATIVE_SHARE = math.sqrt(0.5)  # two unlike sounds at this level each are together as loud as one


def num_samples_of(duration_seconds: Fraction, sample_rate: int) -> int:
    """Return how many samples a picture lasts: exact, but for rounding to a whole one."""
    return round(duration_seconds * sample_rate)


def fit_sound(
    sound: Sound, duration_seconds: Fraction, sample_rate: int | None = None, channels: int | None = None
) -> Sound:
    """Bring a sound to a rate and a number of channels, and cut it or fill it with silence to a picture's duration."""
    wave, rate = sound.waveform, sample_rate or int(sound.sample_rate)
    if rate != sound.sample_rate:
        wave = soxr.resample(wave.T, sound.sample_rate, rate, quality="HQ").T
    if channels is not None:
        wave = to_channels(wave, channels)
    length = num_samples_of(duration_seconds, rate)
    wave = np.pad(wave, ((0, 0), (0, max(length - wave.shape[1], 0))))[:, :length]
    return Sound(np.ascontiguousarray(wave, dtype=np.float32), rate)


def mix_sounds(first: Sound, second: Sound, duration_seconds: Fraction) -> Sound:
    """Return two sounds together: at the higher rate, each at 3 dB less, and all of it lower where it would clip."""
    rate = max(first.sample_rate, second.sample_rate)
    channels = max(first.waveform.shape[0], second.waveform.shape[0])
    both = [fit_sound(sound, duration_seconds, rate, channels).waveform for sound in (first, second)]
    wave = NATIVE_SHARE * (both[0] + both[1])
    return Sound((wave / max(np.abs(wave).max(initial=0), 1)).astype(np.float32), rate)


def cross_fade(before: np.ndarray, after: np.ndarray, num_samples: int) -> np.ndarray:
    """Join two waveforms `c n` that overlap by `num_samples`, at equal power.

    The gains are a quarter turn of cosine and sine, whose squares add up to one: two unlike sounds of the same power
    keep it all the way through the fade.
    """
    if not num_samples:
        return np.concatenate([before, after], axis=1)
    assert num_samples <= min(before.shape[1], after.shape[1]), (before.shape, after.shape, num_samples)
    angle = (np.arange(num_samples) + 0.5) / num_samples * (np.pi / 2)
    faded = before[:, -num_samples:] * np.cos(angle) + after[:, :num_samples] * np.sin(angle)
    return np.concatenate([before[:, :-num_samples], faded.astype(before.dtype), after[:, num_samples:]], axis=1)
