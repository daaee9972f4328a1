"""What is measured without pretrained weights, behind the same interface: events, onsets, flow peaks, loudness."""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np

from mmdiff.eval import sync
from mmdiff.eval.features.base import Extractor, InputRate
from mmdiff.eval.metrics import avalign, loudness
from mmdiff.eval.metrics.sound import LIBROSA_RATE
from mmdiff.media import Clip
from mmdiff.pretrained import Weights

NO_WEIGHTS = Weights(Path(), "none", "")


class Measure(Extractor):
    """An extractor without weights."""

    def __init__(self) -> None:
        super().__init__(NO_WEIGHTS)


class Events(Measure):
    """When sounds begin and pictures change, by mmdiff's own detectors (docs/sync.md), and the last frame's time."""

    name = "mmdiff-events"
    inputs = frozenset({"video", "audio"})
    outputs: ClassVar = {"audio": "k", "video": "k", "end": "1"}
    rate = InputRate()

    def extract(self, clips: Sequence[Clip]) -> list[dict[str, np.ndarray]]:
        """Return event times in seconds."""
        return [
            {
                "audio": sync.audio_onsets(clip.waveform, clip.sample_rate),
                "video": sync.video_onsets(clip.frames, clip.fps),
                "end": np.array([float((clip.num_frames - 1) / clip.fps)]),
            }
            for clip in clips
        ]


class OnsetsAndFlow(Measure):
    """What AV-Align compares: librosa's onset times, and the mean optical flow into each frame, at one size."""

    name = f"onsets-flow-{avalign.SHORT_SIDE}px"
    inputs = frozenset({"video", "audio"})
    outputs: ClassVar = {"onsets": "k", "flow": "f", "fps": "1"}
    rate = InputRate(size=(avalign.SHORT_SIDE, avalign.SHORT_SIDE), sample_rate=LIBROSA_RATE)

    def extract(self, clips: Sequence[Clip]) -> list[dict[str, np.ndarray]]:
        """Return onset times in seconds, flow in pixels, and the frames per second."""
        return [
            {
                "onsets": avalign.audio_peaks(clip.waveform, clip.sample_rate),
                "flow": avalign.flow_trajectory(clip.frames, avalign.SHORT_SIDE),
                "fps": np.array([float(clip.fps)]),
            }
            for clip in clips
        ]


class Loudness(Measure):
    """Integrated loudness in LUFS (BS.1770-4), and the largest sample; a silent sound has -inf."""

    name = "loudness"
    inputs = frozenset({"audio"})
    outputs: ClassVar = {"lufs": "1", "peak": "1"}
    rate = InputRate()

    def extract(self, clips: Sequence[Clip]) -> list[dict[str, np.ndarray]]:
        """Return loudness and peak."""
        return [
            {
                "lufs": np.array([loudness.integrated_loudness(clip.waveform, clip.sample_rate)]),
                "peak": np.array([float(np.abs(clip.waveform).max(initial=0.0))]),
            }
            for clip in clips
        ]
