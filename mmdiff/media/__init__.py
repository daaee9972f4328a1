"""Media files in, clips out, and back: every frame and every sample at its presentation time."""

from mmdiff.media.audio import Sound, read_audio
from mmdiff.media.clip import Clip
from mmdiff.media.mux import read_clip, write_mp4
from mmdiff.media.probe import MediaInfo, probe
from mmdiff.media.spec import ClipSpec, as_fps
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
