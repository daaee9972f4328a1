"""Clip: frames and the sound that belongs to them, in memory."""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from mmdiff.media.spec import as_fps


@dataclass(frozen=True)
class Clip:
    """Frames uint8 `f h w 3` (RGB) at `fps`, waveform float32 `c n` in [-1, 1] at `sample_rate` Hz; both start at 0.

    Errors: `ValueError` where an array has the wrong type or shape.
    """

    frames: np.ndarray
    waveform: np.ndarray
    fps: Fraction
    sample_rate: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "fps", as_fps(self.fps))
        if self.frames.dtype != np.uint8 or self.frames.ndim != 4 or self.frames.shape[-1] != 3:
            raise ValueError(
                f"clip: frames are {self.frames.dtype} {self.frames.shape}; give uint8 frames, height, width, 3"
            )
        if self.waveform.dtype != np.float32 or self.waveform.ndim != 2:
            raise ValueError(
                f"clip: waveform is {self.waveform.dtype} {self.waveform.shape}; give float32 channels, samples"
            )

    @property
    def num_frames(self) -> int:
        """Number of frames."""
        return self.frames.shape[0]

    @property
    def num_samples(self) -> int:
        """Number of audio samples in each channel."""
        return self.waveform.shape[1]

    @property
    def duration_seconds(self) -> Fraction:
        """Duration of the picture, in seconds."""
        return self.num_frames / self.fps
