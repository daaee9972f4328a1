"""Media files in, clips out, and back: every frame and every sample at its presentation time.

What reads and writes files is imported when it is first asked for: a training on pictures or latents needs no PyAV.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from mmdiff.media.clip import Clip
from mmdiff.media.spec import ClipSpec, as_fps

if TYPE_CHECKING:
    from mmdiff.media.audio import Sound, read_audio
    from mmdiff.media.info import MediaInfo, probe
    from mmdiff.media.mux import read_clip, write_mp4
    from mmdiff.media.video import Picture, read_video

__all__ = [
    "Clip",
    "ClipSpec",
    "MediaInfo",
    "Picture",
    "Sound",
    "as_fps",
    "probe",
    "read_audio",
    "read_clip",
    "read_video",
    "write_mp4",
]
OF_FILES = {"MediaInfo": "info", "Picture": "video", "Sound": "audio", "probe": "info", "read_audio": "audio",
            "read_clip": "mux", "read_video": "video", "write_mp4": "mux"}  # fmt: skip


def __getattr__(name: str) -> Any:
    """Import what reads or writes files when it is first asked for."""
    if name not in OF_FILES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{OF_FILES[name]}"), name)
