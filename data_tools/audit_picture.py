"""Measuring picture as it streams by: black and frozen spans, bars, hashes of frames, thumbnails; memory stays bounded.

Every frame is averaged down to 32 x 32 once; what needs more detail looks at one frame a second.
"""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter
from PIL import Image
from scipy.fft import dctn

from mmdiff.media.video import TURNS

SMALL = 32
LUMA = np.array([0.2126, 0.7152, 0.0722], np.float32)
BLACK_LUMA, BLACK_SHARE = 0.1, 0.98  # black: so much of the picture is darker than that
FROZEN_STEPS = 2  # of 255: no block of the picture differs by more from the frame at which the span began
FROZEN_SECONDS = 1.0  # shorter standstills are no fault
MAX_SPANS = 20  # that a row lists
BAR_LUMA = 26  # of 255: a row or column that is darker in every frame is a bar
BAR_SHARE = 0.02  # of the picture's height or width: narrower bars are an encoder's edge
LOOK_SECONDS = 1.0
HASH_SECONDS = 0.25
HASH_SIDE = 8
FLAT_STEPS = 4.0  # standard deviation of 255 below which a frame has no hash: flat frames are all alike
NUM_THUMBNAILS = 4
THUMBNAIL_HEIGHT = 72


class PictureMeter:
    """All meters of one picture; frames come in order of presentation, times in seconds from presentation zero."""

    def __init__(self):
        self.reformatter = VideoReformatter()
        self.black, self.frozen = SpanMeter(), SpanMeter(FROZEN_SECONDS)
        self.hashes: list[tuple[float, int]] = []
        self.brightest: dict[str, np.ndarray] = {}
        self.thumbnails: list[np.ndarray] = []
        self.thumbnail_step, self.next_thumbnail = 0.5, 0.0
        self.next_look = self.next_hash = 0.0
        self.anchor: np.ndarray | None = None
        self.anchor_start = 0.0

    def push(self, frame: VideoFrame, start: float, end: float) -> np.ndarray:
        """Take the frame that is shown from `start` to `end`; return it as uint8 `32 32 3`."""
        small = self.reformatter.reformat(frame, SMALL, SMALL, "rgb24", interpolation=Interpolation.AREA).to_ndarray()
        small = np.rot90(small, TURNS.get(round(frame.rotation) % 360, 0))
        luma = small @ LUMA
        self.black.push(float((luma < 255 * BLACK_LUMA).mean()) >= BLACK_SHARE, start, end)
        is_still = self.anchor is not None and int(np.abs(small.astype(np.int16) - self.anchor).max()) <= FROZEN_STEPS
        if not is_still:
            self.anchor, self.anchor_start = small.astype(np.int16), start
        self.frozen.push(is_still, self.anchor_start, end)
        if start >= self.next_hash:
            self.next_hash = start - start % HASH_SECONDS + HASH_SECONDS
            if luma.std() >= FLAT_STEPS:
                self.hashes.append((start, hash_picture(luma)))
        if start >= self.next_look:
            self.next_look = start + LOOK_SECONDS
            self._look_for_bars(frame)
        if start >= self.next_thumbnail:
            self._keep_thumbnail(frame, start)
        return small

    def result(self, seconds: float) -> dict[str, Any]:
        """Return the columns of an audit that tell of the picture alone; shares are of `seconds`, its duration."""
        top, bottom, left, right = self._bars()
        black_spans, frozen_spans = self.black.spans(), self.frozen.spans()
        return {
            "black_ratio": min(self.black.seconds / seconds, 1.0) if seconds else None,
            "black_spans": black_spans,
            "frozen_ratio": min(self.frozen.seconds / seconds, 1.0) if seconds else None,
            "frozen_spans": frozen_spans,
            "bars_ratio": 1 - (1 - top - bottom) * (1 - left - right),
            "bars": [round(side, 4) for side in (top, bottom, left, right)],
        }

    def strip(self) -> bytes:
        """Return a JPEG of thumbnails side by side; empty where there was no frame."""
        if not self.thumbnails:
            return b""
        count = min(NUM_THUMBNAILS, len(self.thumbnails))
        chosen = [self.thumbnails[int((k + 0.5) * len(self.thumbnails) / count)] for k in range(count)]
        shape = min(image.shape[:2] for image in chosen)
        buffer = io.BytesIO()
        joined = np.concatenate([image[: shape[0], : shape[1]] for image in chosen], 1)
        Image.fromarray(joined).save(buffer, "JPEG", quality=70)
        return buffer.getvalue()

    def _look_for_bars(self, frame: VideoFrame) -> None:
        gray = frame.to_ndarray(format="gray8")
        gray = np.rot90(gray, TURNS.get(round(frame.rotation) % 360, 0))
        for name, axis in (("rows", 1), ("columns", 0)):
            level = gray.mean(axis)
            known = self.brightest.get(name)
            if known is None or known.shape != level.shape:
                self.brightest[name] = level
            else:
                np.maximum(known, level, out=known)

    def _bars(self) -> tuple[float, float, float, float]:
        """Return how much of the picture the bars at the top, bottom, left and right take; nothing in a dark clip."""
        sides: list[float] = []
        for name in ("rows", "columns"):
            lit = np.flatnonzero(self.brightest.get(name, np.zeros(1)) > BAR_LUMA)
            size = len(self.brightest.get(name, " "))
            if not len(lit):
                return 0.0, 0.0, 0.0, 0.0
            pair = [float(lit[0] / size), float((size - 1 - lit[-1]) / size)]
            sides += pair if min(pair) >= BAR_SHARE else [0.0, 0.0]  # one dark side alone is a ceiling or the night
        return tuple(sides)

    def _keep_thumbnail(self, frame: VideoFrame, start: float) -> None:
        self.thumbnails.append(thumbnail(frame))
        if len(self.thumbnails) >= 4 * NUM_THUMBNAILS:  # of a long file every second one stays
            self.thumbnails = self.thumbnails[::2]
            self.thumbnail_step *= 2
        self.next_thumbnail = start + self.thumbnail_step


class SpanMeter:
    """Spans of time during which something holds, and their sum in seconds; spans shorter than `least` do not count."""

    def __init__(self, least: float = 0.0):
        self.least, self.seconds = least, 0.0
        self.closed: list[list[float]] = []
        self.open: list[float] | None = None

    def push(self, holds: bool, start: float, end: float) -> None:
        """Say whether it holds from `start` to `end`."""
        if holds:
            self.open = [self.open[0] if self.open else start, end]
        elif self.open:
            self._close()

    def spans(self) -> list[list[float]]:
        """Return the first spans as [start, end]; ends the measuring."""
        self._close()
        return self.closed[:MAX_SPANS]

    def _close(self) -> None:
        if self.open and self.open[1] - self.open[0] >= self.least:
            self.seconds += self.open[1] - self.open[0]
            if len(self.closed) <= MAX_SPANS:
                self.closed.append([round(time, 3) for time in self.open])
        self.open = None


def hash_picture(luma: np.ndarray) -> int:
    """Return a 64-bit perceptual hash: which of the lowest 8 x 8 cosine coefficients exceed their median.

    Zauner (2010), "Implementation and benchmarking of perceptual image hash functions", section 3.2.1. Hashes of the
    same picture, scaled or encoded again, differ in a few bits.
    """
    low = dctn(luma, norm="ortho")[:HASH_SIDE, :HASH_SIDE].ravel()
    bits = low > np.median(low[1:])
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def thumbnail(frame: VideoFrame, height: int = THUMBNAIL_HEIGHT) -> np.ndarray:
    """Return a decoded frame as uint8 `h w 3`, `height` lines high after its rotation."""
    turns = TURNS.get(round(frame.rotation) % 360, 0)
    across, along = (frame.height, frame.width) if turns % 2 == 0 else (frame.width, frame.height)
    width = max(min(round(height * along / across), 4 * height), 2)
    size = (width, height) if turns % 2 == 0 else (height, width)
    image = frame.reformat(*size, "rgb24", interpolation=Interpolation.AREA).to_ndarray()
    return np.ascontiguousarray(np.rot90(image, turns))


def join_hashes(hashes: Sequence[tuple[float, int]]) -> tuple[np.ndarray, np.ndarray]:
    """Return times (float32, seconds) and hashes (uint64) as arrays."""
    times = np.array([time for time, _ in hashes], np.float32)
    return times, np.array([value for _, value in hashes], np.uint64)
