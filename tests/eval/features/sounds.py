"""Clips made of a sound alone, for the extractors that listen."""

import numpy as np

from mmdiff.media import Clip


def sound_clip(waveform: np.ndarray, sample_rate: int) -> Clip:
    """Return a clip of one black frame with a waveform `n` or `c n`."""
    frames = np.zeros((1, 8, 8, 3), np.uint8)
    return Clip(frames, np.atleast_2d(waveform).astype(np.float32), 10, sample_rate)


def noise_clip(seconds: float, sample_rate: int = 16_000, *, seed: int = 0, channels: int = 1) -> Clip:
    """Return a clip of quiet noise."""
    rng = np.random.default_rng(seed)
    return sound_clip(0.1 * rng.standard_normal((channels, round(seconds * sample_rate))), sample_rate)
