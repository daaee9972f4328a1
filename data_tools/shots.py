"""Shots: PySceneDetect watches the frames go by, and every frame is told apart that begins a new shot."""

from collections import deque
from collections.abc import Iterator
from fractions import Fraction

import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter

from data_tools.cut_reader import Shown

WIDTH = 256  # the detectors look at pictures about this wide
LATE_FRAMES = {"adaptive": 2, "content": 0}  # by which a detector tells of a cut


class ShotFinder:
    """Finds the frames that begin a shot, with a detector of PySceneDetect.

    min_seconds: a cut sooner after the last one is none. Errors: `ValueError` where PySceneDetect is not installed.
    """

    def __init__(self, detector: str, threshold: float, min_seconds: Fraction, fps: Fraction):
        try:
            from scenedetect import AdaptiveDetector, ContentDetector, FrameTimecode
            from scenedetect.detector import FlashFilter
        except ImportError as error:
            raise ValueError("PySceneDetect is missing; install it with `pip install 'mmdiff[data]'`") from error
        shortest = max(round(min_seconds * fps), 1)
        if detector == "adaptive":
            self.detector = AdaptiveDetector(adaptive_threshold=threshold, min_scene_len=shortest)
        else:
            mode = FlashFilter.Mode.SUPPRESS  # tells of a cut at once
            self.detector = ContentDetector(threshold=threshold, min_scene_len=shortest, filter_mode=mode)
        self.late = LATE_FRAMES[detector]
        self._timecode = FrameTimecode(0, fps=float(fps))
        self._reformatter = VideoReformatter()

    def watch(self, frames: Iterator[Shown]) -> Iterator[tuple[Shown, bool]]:
        """Pass frames on, a few late, each with whether it begins a new shot; the first does not."""
        waiting: deque[Shown] = deque()
        cuts: set[int] = set()
        passed = 0
        for number, shown in enumerate(frames):
            found = self.detector.process_frame(self._timecode + number, self._small(shown))
            cuts.update(cut.frame_num for cut in found)
            waiting.append(shown)
            if len(waiting) > self.late:
                yield waiting.popleft(), passed in cuts
                passed += 1
        while waiting:
            yield waiting.popleft(), passed in cuts
            passed += 1

    def _small(self, shown: Shown) -> np.ndarray:
        frame = shown.frame
        width = min(WIDTH, frame.width)
        height = max(frame.height * width // frame.width, 1)
        small = self._reformatter.reformat(frame, width, height, "bgr24", interpolation=Interpolation.AREA)
        return small.to_ndarray()
