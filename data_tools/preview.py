"""`mmdiff-data preview`: a contact sheet of a set, from a few frames of each file; nothing is measured."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from PIL import Image
from tqdm import tqdm

from data_tools.audit_page import data_uri, relative_link, render_page
from data_tools.audit_picture import NUM_THUMBNAILS, thumbnail
from data_tools.dataset import DataSet, Row, open_set
from data_tools.engine import Crash, run_pool
from mmdiff.media.container import find_audio, find_video, frames_from, native_fps, open_media, presentation_zero

PAGE_NAME = "preview.html"
MAX_FRAMES = 300  # that are decoded for one thumbnail
COLUMNS = (
    ("video_seconds", "seconds", 3),
    ("frames_per_second", "frames a second", 3),
    ("sample_rate", "sound, Hz", 0),
)


@dataclass(frozen=True)
class Glance:
    """Thumbnails of a clip side by side as JPEG, and what its header says."""

    strip: bytes
    size: str
    values: dict[str, float | None]
    fault: str = ""


def write_preview(folder: Path, output: Path, *, most: int, workers: int = 1) -> Path:
    """Write `preview.html` with at most so many clips, spread evenly over the set; return its path.

    Errors: `ValueError` where the folder holds no set.
    """
    data = open_set(folder)
    count = min(most, len(data.rows))
    rows = [data.rows[int((k + 0.5) * len(data.rows) / count)] for k in range(count)]
    output.mkdir(parents=True, exist_ok=True)
    glances: dict[int, Glance] = {}
    files = [data.file(row) for row in rows]
    for number, found in tqdm(run_pool(glance_at, files, workers), total=count, desc="preview", unit="clip"):
        glances[number] = found if isinstance(found, Glance) else _failed(found)
    cards = [_card(data, row, glances[number], output, number) for number, row in enumerate(rows)]
    shown = f"{count} of {len(data.rows)}, spread evenly." if count < len(data.rows) else f"All {count}."
    told = f"{len(data.rows)} clips. Nothing was measured here; mmdiff-data audit measures."
    return render_page(output / PAGE_NAME, f"Clips of {data.folder}", told, shown, cards, COLUMNS, {}, {})


def glance_at(path: Path, tell: Callable[[dict], None] = lambda message: None) -> Glance:
    """Return a few frames of a file, each found by seeking; a damaged file gives its fault instead."""
    try:
        with open_media(path) as container:
            video, audio = find_video(container), find_audio(container)
            if video is None:
                return Glance(b"", "", {}, "no picture")
            video.thread_type = "NONE"
            seconds = Fraction(container.duration or 0, 1_000_000)
            images = []
            for number in range(NUM_THUMBNAILS):
                tell({})
                at = presentation_zero(container) + (number + Fraction(1, 2)) * seconds / NUM_THUMBNAILS
                frame = _frame_at(container, video, at)
                images += [thumbnail(frame)] if frame is not None else []
            values = {
                "video_seconds": float(seconds), "frames_per_second": float(native_fps(video)),
                "sample_rate": audio.sample_rate if audio is not None else None,
            }  # fmt: skip
            fault = "" if images else "no frame can be decoded"
            return Glance(_join(images), f"{video.width}×{video.height}", values, fault)
    except ValueError as error:
        return Glance(b"", "", {}, str(error).removeprefix(f"{path}: "))


def _frame_at(container: InputContainer, video: VideoStream, seconds: Fraction) -> VideoFrame | None:
    """Return the first frame from a time on, or the last of so many after a key frame."""
    frame = None
    for frame in islice(frames_from(container, video, seconds), MAX_FRAMES):
        if frame.pts * video.time_base >= seconds:
            break
    return frame


def _join(images: list[np.ndarray]) -> bytes:
    if not images:
        return b""
    buffer = io.BytesIO()
    Image.fromarray(np.concatenate(images, 1)).save(buffer, "JPEG", quality=70)
    return buffer.getvalue()


def _failed(crash: Crash) -> Glance:
    return Glance(b"", "", {}, f"it crashes or hangs the decoder: {crash.reason}")


def _card(data: DataSet, row: Row, glance: Glance, output: Path, number: int) -> dict[str, Any]:
    caption = row.values.get("caption") or row.values.get("text")
    return {
        "key": row.key, "split": row.split, "order": number, "severity": 0, "names": [], "caption": caption or "",
        "told": [glance.fault] if glance.fault else [], "strip": data_uri(glance.strip),
        "link": relative_link(data.file(row), output), "has_video": bool(glance.strip), "size": glance.size,
        "fps": glance.values.get("frames_per_second"),
        "values": {name: glance.values.get(name) for name, _, _ in COLUMNS},
    }  # fmt: skip
