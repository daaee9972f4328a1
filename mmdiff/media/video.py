"""Reading pictures: frames are chosen by their presentation time, never by their number."""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation
from av.video.stream import VideoStream
from PIL import Image

from mmdiff.media.container import as_start, find_video, frames_from, native_fps, open_media, presentation_zero
from mmdiff.media.spec import ClipSpec, as_fps

TURNS = {0: 0, 90: 1, 180: 2, 270: 3}  # counter-clockwise quarter turns that a display matrix asks for
# Without the last two swscale rounds all colours down, by 1.3 of 255 on the average.
EXACT_COLOURS = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
UNSPECIFIED = 2
HD_LINES = 576  # above this many lines untagged video is BT.709, as players take it


@dataclass(frozen=True)
class Picture:
    """Frames uint8 `f h w 3` (RGB) at `fps`."""

    frames: np.ndarray
    fps: Fraction


@dataclass(frozen=True)
class _Stamped:
    """A decoded frame, when it appears and when its successor is due, in seconds from presentation zero."""

    frame: VideoFrame
    start: Fraction
    end: Fraction


def read_video(
    path: str | Path,
    spec: ClipSpec | None = None,
    *,
    start: Fraction | float = 0,
    size: tuple[int, int] | None = None,
) -> Picture:
    """Read a file's picture: all of it at its own rate, or the window of `spec` that begins at `start` seconds.

    The whole file keeps its size, unless `size` (height, width) asks for another.

    Frame i of a window is the one on the screen at start + i / fps, resized and cropped about the centre to the size of
    `spec`. A gap before the first frame shows the first frame. The file needs no sound.

    Errors: `ValueError` where the file is damaged, has no picture or ends before the window does.
    """
    start = as_start(path, start)
    with open_media(path) as container:
        stream = require_video(container, path)
        zero = presentation_zero(container)
        if spec is None:
            return _read_whole(container, stream, zero, path, size)
        tolerance = stream.time_base / 2
        stamped = _stamped(container, stream, zero, start + tolerance)
        frames = _pick(stamped, spec, start, tolerance, path)
    return Picture(np.stack(frames), spec.fps)


def require_video(container: InputContainer, path: str | Path) -> VideoStream:
    """Return the file's picture stream.

    Errors: `ValueError` where it has none.
    """
    stream = find_video(container)
    if stream is None:
        raise ValueError(f"{path}: no picture in this file (no video stream); use read_audio, or give a video")
    if stream.codec_context is None:
        raise ValueError(f"{path}: its picture's codec is not known here; the file is damaged, or convert it to H.264")
    if not stream.width or not stream.height:
        raise ValueError(f"{path}: the video stream states no size; the file is truncated or damaged")
    stream.thread_type = "NONE"
    return stream


def to_rgb(frame: VideoFrame) -> np.ndarray:
    """Return a decoded frame as uint8 `h w 3`, turned as its display matrix asks."""
    is_untagged_hd = frame.colorspace == UNSPECIFIED and frame.height > HD_LINES
    source = "ITU709" if is_untagged_hd else None
    array = frame.reformat(format="rgb24", src_colorspace=source, interpolation=EXACT_COLOURS).to_ndarray()
    turns = TURNS.get(round(frame.rotation) % 360, 0)
    return np.ascontiguousarray(np.rot90(array, turns)) if turns else array


def fit(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize an image `h w 3`, keeping its aspect, and crop it about the centre to `height width 3`."""
    h, w = image.shape[:2]
    if (h, w) == (height, width):
        return image
    scale = max(Fraction(height, h), Fraction(width, w))
    box_h, box_w = float(height / scale), float(width / scale)
    left, top = (w - box_w) / 2, (h - box_h) / 2
    picture = Image.fromarray(image).resize(
        (width, height), Image.Resampling.BICUBIC, box=(left, top, left + box_w, top + box_h)
    )
    return np.asarray(picture)


def _stamped(container, stream, zero: Fraction, start: Fraction) -> Iterator[_Stamped]:
    """Decode frames in presentation order from the one on screen at `start`, and say until when each stays."""
    usual = 1 / native_fps(stream)
    held: _Stamped | None = None
    for frame in frames_from(container, stream, start + zero):
        begins = frame.pts * stream.time_base - zero
        lasts = frame.duration * stream.time_base if frame.duration else usual
        if held is not None:
            yield _Stamped(held.frame, held.start, begins)
        held = _Stamped(frame, begins, begins + lasts)
    if held is not None:
        yield held


def _pick(
    stamped: Iterator[_Stamped], spec: ClipSpec, start: Fraction, tolerance: Fraction, path: str | Path
) -> list[np.ndarray]:
    """Return the frames on screen at the window's times."""
    times = [start + time for time in spec.frame_times()]
    frames: list[np.ndarray] = []
    last_end, shown, image = Fraction(0), None, None
    for item in stamped:
        last_end = item.end
        while len(frames) < len(times) and times[len(frames)] + tolerance < item.end:
            if shown is not item:
                shown, image = item, fit(to_rgb(item.frame), spec.height, spec.width)
            frames.append(image)
        if len(frames) == len(times):
            return frames
    raise ValueError(
        f"{path}: the picture ends at {float(last_end):.3f} s, before the window {float(start):.3f} to "
        f"{float(start + spec.duration_seconds):.3f} s does; choose an earlier start or a shorter window"
    )


def _read_whole(container, stream, zero: Fraction, path: str | Path, size: tuple[int, int] | None) -> Picture:
    items = []
    for item in _stamped(container, stream, zero, Fraction(0)):
        image = to_rgb(item.frame)
        items.append((fit(image, *size) if size else image, item.end))
    if not items or items[-1][1] <= 0:
        raise ValueError(f"{path}: not one frame can be decoded; the file is truncated or damaged")
    fps = as_fps(native_fps(stream))
    count = max(round(items[-1][1] * fps), 1)
    frames, position = [], 0
    for number in range(count):
        time = number / fps + stream.time_base / 2
        while position < len(items) - 1 and items[position][1] <= time:
            position += 1
        frames.append(items[position][0])
    return Picture(np.stack(frames), fps)
