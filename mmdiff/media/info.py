"""What is in a media file, without decoding all of it."""

from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

from av.stream import Stream

from mmdiff.media.container import find_audio, find_video, native_fps, open_media, presentation_zero
from mmdiff.media.spec import as_fps


@dataclass(frozen=True)
class MediaInfo:
    """Facts of a file; times in seconds from presentation zero, the picture's size after rotation.

    Where a stream is missing its numbers are 0 and its names empty.
    """

    duration_seconds: Fraction
    has_video: bool
    has_audio: bool
    fps: Fraction
    num_frames: int
    height: int
    width: int
    rotation: int
    video_codec: str
    video_start: Fraction
    is_variable_frame_rate: bool
    sample_rate: int
    channels: int
    audio_codec: str
    audio_start: Fraction


def probe(path: str | Path) -> MediaInfo:
    """Read a file's packets and first frames, and say what it holds.

    Errors: `ValueError` where it is no readable media file.
    """
    with open_media(path) as container:
        video, audio = find_video(container), find_audio(container)
        if video is None and audio is None:
            raise ValueError(f"{path}: neither picture nor sound in this file; give a video or a sound file")
        zero = presentation_zero(container)
        ends, facts = [Fraction(0)], {}
        stamps, lasts = _read_stamps(container, [s for s in (video, audio) if s is not None])
        for stream in (video, audio):
            if stream is not None and stamps[stream.index]:
                last = max(stamps[stream.index])
                ends.append((last + lasts[stream.index]) * stream.time_base - zero)
        if video is not None:
            facts |= _video_facts(container, video, sorted(stamps[video.index]), zero)
        if audio is not None:
            start = min(stamps[audio.index], default=0) * audio.time_base - zero
            facts |= {
                "sample_rate": audio.sample_rate or 0,
                "channels": audio.channels,
                "audio_codec": audio.codec_context.name,
                "audio_start": max(start, Fraction(0)),
            }
    empty = {
        "fps": Fraction(0), "num_frames": 0, "height": 0, "width": 0, "rotation": 0, "video_codec": "",
        "video_start": Fraction(0), "is_variable_frame_rate": False, "sample_rate": 0, "channels": 0,
        "audio_codec": "", "audio_start": Fraction(0),
    }  # fmt: skip
    return MediaInfo(
        duration_seconds=max(ends), has_video=video is not None, has_audio=audio is not None, **(empty | facts)
    )


def _read_stamps(container, streams: list) -> tuple[dict[int, list[int]], dict[int, int]]:
    """Return every packet's presentation stamp by stream, and the last packet's duration."""
    stamps: dict[int, list[int]] = {stream.index: [] for stream in streams}
    lasts: dict[int, int] = dict.fromkeys(stamps, 0)
    for packet in container.demux(streams):
        if packet.pts is not None:
            known = stamps[packet.stream_index]
            if not known or packet.pts >= max(known[-1], lasts.get(-1, packet.pts)):
                lasts[packet.stream_index] = packet.duration or 0
            known.append(packet.pts)
    return stamps, lasts


def _video_facts(container, video, stamps: list[int], zero: Fraction) -> dict:
    rotation = 0
    container.seek(0)
    for frame in container.decode(video):
        rotation = round(frame.rotation) % 360
        break
    width, height = video.width, video.height
    if rotation in (90, 270):
        width, height = height, width
    rate, is_variable = steadiness(video, stamps)
    start = (stamps[0] if stamps else 0) * video.time_base - zero
    return {
        "fps": as_fps(rate),
        "num_frames": len(stamps),
        "height": height,
        "width": width,
        "rotation": rotation,
        "video_codec": video.codec_context.name,
        "video_start": max(start, Fraction(0)),
        "is_variable_frame_rate": is_variable,
    }


def steadiness(video: Stream, stamps: list[int]) -> tuple[Fraction, bool]:
    """Return a video stream's frame rate, given all its presentation stamps in order, and whether the rate varies."""
    gaps = [b - a for a, b in pairwise(stamps)]
    rate = native_fps(video)
    if gaps:
        mean = Fraction(stamps[-1] - stamps[0], len(gaps)) * video.time_base
        exact = 1 / mean if mean else rate
        rate = rate if abs(exact / rate - 1) < Fraction(1, 50) else exact
    return rate, bool(gaps) and max(gaps) - min(gaps) > max(2, max(gaps) // 20)
