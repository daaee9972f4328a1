"""One clip, measured in one pass over its file: a row of the audit, a fingerprint, and thumbnails."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from data_tools.audit_content import Fingerprint, PictureEvents, SoundEvents, compare_onsets
from data_tools.audit_decode import AudioFacts, Decoded, VideoFacts, Watcher, decode_file
from data_tools.audit_picture import PictureMeter, join_hashes
from data_tools.audit_sound import SoundMeter
from data_tools.dataset import file_sha256
from mmdiff.media import as_fps

SIDEWAYS = {90, 270}  # degrees


@dataclass(frozen=True)
class ClipMeasures:
    """A clip's columns, its frames' hashes with their times, its sound's landmarks, and thumbnails as JPEG."""

    columns: dict[str, Any]
    picture: Fingerprint
    sound: Fingerprint
    strip: bytes


def measure_clip(path: Path, tell: Callable[[dict], None] = lambda message: None) -> ClipMeasures:
    """Measure a file; a damaged one gives columns that hold `error` and little else.

    tell: takes signs of life (see `data_tools.engine`).
    """
    meters, measures = _Meters(tell), None
    try:
        decoded = decode_file(path, meters)
    except ValueError as error:
        measures = failed_measures(str(error).removeprefix(f"{path}: "))
    told = {}
    if path.is_file():
        told = {"bytes": path.stat().st_size, "sha256": file_sha256(path, lambda: tell({}))}
    if measures is not None:
        return replace(measures, columns=measures.columns | told)
    return meters.result(decoded, told | stream_columns(decoded))


def failed_measures(reason: str) -> ClipMeasures:
    """Return what is known of a file that cannot be measured."""
    columns = {"error": reason, "is_truncated": "truncated" in reason, "decodes": False}
    return ClipMeasures(columns, _no_fingerprint(np.uint64), _no_fingerprint(np.uint32), b"")


def stream_columns(decoded: Decoded) -> dict[str, Any]:
    """Return the columns on containers, streams and timing."""
    video, audio = decoded.video, decoded.audio
    has_video, has_audio = bool(video and video.num_frames), bool(audio and audio.num_samples)
    columns: dict[str, Any] = {
        "container": decoded.container,
        "has_video": has_video,
        "has_audio": has_audio,
        "num_faults": decoded.num_faults + (video.num_corrupt if video else 0),
        "is_truncated": decoded.missing_seconds > 0,
        "decodes": not decoded.num_faults and not decoded.missing_seconds,
        "missing_seconds": float(decoded.missing_seconds),
        "error": decoded.first_fault,
    }
    if video:
        columns |= _video_columns(video)
    if audio:
        columns |= {
            "audio_codec": audio.codec,
            "sample_rate": audio.sample_rate,
            "channels": len(audio.channel_names),
            "num_samples": audio.num_samples,
            "audio_start_seconds": float(audio.start_seconds),
            "audio_seconds": float(audio.seconds),
            "sound_holes_ms": 1000 * audio.num_missing / (audio.sample_rate or 1),
        }
    if has_video and has_audio:
        columns |= {
            "start_gap_ms": 1000 * float(video.start - audio.start_seconds),
            "duration_gap_ms": 1000 * float(video.seconds - audio.seconds),
        }
    return columns


def _video_columns(video: VideoFacts) -> dict[str, Any]:
    width, height = (video.height, video.width) if video.rotation in SIDEWAYS else (video.width, video.height)
    fps = as_fps(video.mean_fps)
    return {
        "video_codec": video.codec,
        "fps": str(fps),
        "frames_per_second": float(fps),
        "num_frames": video.num_frames,
        "width": width,
        "height": height,
        "rotation": video.rotation,
        "video_start_seconds": float(video.start or 0),
        "video_seconds": float(video.seconds),
        "hidden_ms": 1000 * float(video.hidden),
        "is_variable_frame_rate": video.is_variable,
        "longest_frame_ms": 1000 * float(max(video.gaps, default=0) * video.tick),
    }


class _Meters(Watcher):
    """Every meter at once; each is made when its stream begins."""

    def __init__(self, tell: Callable[[dict], None]):
        self.tell = tell
        self.picture = PictureMeter()
        self.seen: PictureEvents | None = None
        self.sound: SoundMeter | None = None
        self.heard: SoundEvents | None = None

    def see(self, frame, start: Fraction, end: Fraction, facts: VideoFacts) -> None:
        if self.seen is None:
            self.seen = PictureEvents()
        if facts.num_frames % max(round(facts.fps), 1) == 1:
            self.tell({})
        self.seen.push(self.picture.push(frame, float(start), float(end)), float(start))

    def hear(self, block: np.ndarray, facts: AudioFacts) -> None:
        if self.sound is None:
            self.sound = SoundMeter(facts.sample_rate, facts.channel_names)
            self.heard = SoundEvents(facts.sample_rate, float(facts.start_seconds))
        self.tell({})  # once a second of sound, or of picture
        self.sound.push(block)
        self.heard.push(block)

    def result(self, decoded: Decoded, columns: dict[str, Any]) -> ClipMeasures:
        """Return everything measured."""
        heard = seen = None
        fingerprint = _no_fingerprint(np.uint32)
        if self.seen is not None:
            columns |= self.picture.result(float(decoded.video.seconds))
            seen = self.seen.result()
        if self.heard is not None:
            columns |= self.sound.result()
            heard, fingerprint = self.heard.result()
        if seen is not None and heard is not None:
            columns |= compare_onsets(heard, seen, decoded.video.mean_fps)
        return ClipMeasures(columns, Fingerprint(*join_hashes(self.picture.hashes)), fingerprint, self.picture.strip())


def _no_fingerprint(kind: type) -> Fingerprint:
    return Fingerprint(np.zeros(0, np.float32), np.zeros(0, kind))
