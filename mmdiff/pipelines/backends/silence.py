"""Silence as long as the picture: for the picture alone."""

import numpy as np

from mmdiff.media import Sound
from mmdiff.pipelines.two_stage.protocols import BackendInfo, LoadOptions, Progress, Video
from mmdiff.pipelines.two_stage.sound import num_samples_of

SAMPLE_RATE = 48_000


class Silence:
    """A video-to-audio backend that makes no sound."""

    info = BackendInfo("silence", sample_rate=SAMPLE_RATE, channels=1, needs_text=False)

    def __call__(self, video: Video, prompt: str, *, callback: Progress | None = None, **_) -> Sound:
        """Return zeros."""
        if callback is not None:
            callback(1, 1)
        return Sound(np.zeros((1, num_samples_of(video.duration_seconds, SAMPLE_RATE)), np.float32), SAMPLE_RATE)


def load(source: str, options: LoadOptions) -> Silence:
    """Return the backend; there is nothing to load.

    Errors: `ValueError` where something is to be loaded all the same.
    """
    if source:
        raise ValueError(f"silence:{source}: silence takes nothing; write silence")
    return Silence()
