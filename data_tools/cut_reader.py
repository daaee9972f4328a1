"""Reading a recording once, from front to back: what its packets say, and the frames that clips need of it."""

import math
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from mmdiff.media.audio import require_audio
from mmdiff.media.container import native_fps, open_media, presentation_zero
from mmdiff.media.info import steadiness
from mmdiff.media.spec import as_fps
from mmdiff.media.video import require_video

MIN_JUMP = 1  # seconds: over shorter gaps decoding on is as fast as a seek
MAX_PIXELS = 2**26  # a larger picture is a damaged or hostile file
MAX_FAULTS = 200  # then the rest of a recording is given up
LATE = 16  # frames after which a threaded decoder has told of every fault before them
MPEG_CLOCKS = ("mpegts", "mpeg")  # containers whose first key frame is found only from before the beginning


@dataclass(frozen=True)
class Recording:
    """What a file's packets say; times in seconds from presentation zero, `stamps` and `keys` in ticks of the stream.

    stamps: when each frame is due, in order, or None where the container does not say. keys: those of key frames.
    """

    path: Path
    fps: Fraction
    is_variable_frame_rate: bool
    height: int
    width: int
    sample_rate: int
    channels: int
    video_begin: Fraction
    video_end: Fraction
    audio_begin: Fraction
    audio_end: Fraction
    time_base: Fraction
    zero: Fraction
    stamps: np.ndarray | None
    keys: np.ndarray

    @property
    def begin(self) -> Fraction:
        """When both streams have begun."""
        return max(self.video_begin, self.audio_begin, Fraction(0))

    def ticks(self, seconds: Fraction) -> int:
        """Return the latest stamp of a frame that is on the screen at a time."""
        return math.floor(self.exact_tick(seconds))

    def exact_tick(self, seconds: Fraction) -> Fraction:
        """Return a time in ticks, the tolerance included."""
        return (seconds + self.zero) / self.time_base + self.tolerance

    @property
    def tolerance(self) -> Fraction:
        """Ticks by which a stamp may be late.

        Containers that count milliseconds round a frame's stamp, and the start of a clip that lies on one, by half a
        tick each. Where ticks are hardly finer than frames nothing is rounded.
        """
        return Fraction(1) if self.fps * self.time_base <= Fraction(1, 8) else Fraction(1, 100)

    def seconds(self, stamp: int) -> Fraction:
        """Return when a stamp is due."""
        return stamp * self.time_base - self.zero


@dataclass(frozen=True)
class Shown:
    """A decoded frame, when it appears and when its successor does, in ticks."""

    frame: VideoFrame
    begin: int
    end: int


@dataclass
class Damage:
    """Where decoding failed: spans of ticks, each to the next key frame, and what the decoder said first."""

    spans: list[tuple[int, int]]
    reason: str = ""

    def touches(self, begin: int, end: int) -> bool:
        """Whether a span of ticks holds anything damaged."""
        return any(first < end and last > begin for first, last in self.spans)


def scan(path: Path) -> Recording:
    """Read a recording's packets, without decoding them.

    Errors: `ValueError` where the file is damaged, or lacks a picture or sound.
    """
    with open_media(path) as container:
        video, audio = require_video(container, path), require_audio(container, path)
        if video.width * video.height > MAX_PIXELS:
            raise ValueError(f"{path}: {video.width}x{video.height} pixels; damaged, or no video that can be cut")
        zero = presentation_zero(container)
        stamps, keys, ends, first_sound, is_complete = [], [], {}, None, True
        for packet in container.demux(video, audio):
            if packet.pts is None:
                is_complete &= not packet.size or packet.stream_index != video.index
                continue
            end = packet.pts + (packet.duration or 0)
            ends[packet.stream_index] = max(ends.get(packet.stream_index, end), end)
            if packet.stream_index == video.index:
                stamps.append(packet.pts)
                keys.extend([packet.pts] if packet.is_keyframe else [])
            elif first_sound is None or packet.pts < first_sound:
                first_sound = packet.pts
        if not stamps or first_sound is None:
            raise ValueError(f"{path}: no {'sound' if stamps else 'picture'} in it; the file is truncated or damaged")
        known = sorted(set(stamps))
        fps, is_variable = steadiness(video, known)
        if not Fraction(1, 10) <= fps <= 1000:
            raise ValueError(f"{path}: {float(fps):g} frames a second; damaged, or no video that can be cut")
        usual = native_fps(video)
        last = max(Fraction(ends[video.index]), known[-1] + Fraction(1) / (usual * video.time_base))
        return Recording(
            path=path, fps=as_fps(fps), is_variable_frame_rate=is_variable, height=video.height, width=video.width,
            sample_rate=audio.sample_rate, channels=max(audio.channels, 1), time_base=video.time_base, zero=zero,
            video_begin=known[0] * video.time_base - zero, video_end=last * video.time_base - zero,
            audio_begin=first_sound * audio.time_base - zero, audio_end=ends[audio.index] * audio.time_base - zero,
            stamps=np.array(known, np.int64) if is_complete else None, keys=np.array(sorted(keys), np.int64),
        )  # fmt: skip


def read_frames(
    container: InputContainer, stream: VideoStream, recording: Recording, wanted: np.ndarray | None,
    first: int, last: int, damage: Damage,
) -> Iterator[Shown]:  # fmt: skip
    """Decode the frames on the screen from tick `first` to tick `last`, each once, in order.

    wanted: sorted stamps of the frames that are needed, None for all. What lies between is not decoded where it can be
    left out: gaps that hold a key frame are jumped over, and pictures that no other one refers to are dropped before
    decoding. Faults go to `damage`; the frame before one stays on.
    """
    is_lean = wanted is not None and recording.stamps is not None
    for begin, end in _stretches(recording, wanted) if is_lean else [(first, last)]:
        skips = set(wanted.tolist()) if is_lean and stream.codec_context.name == "h264" else None
        held = None
        for frame in _decode(container, stream, recording, begin, skips, damage):
            if held is not None and frame.pts > held.pts:
                yield Shown(held, held.pts, frame.pts)
            if frame.pts > end and held is not None:
                break
            held = frame
        else:
            if held is not None:
                usual = max(round(1 / (recording.fps * recording.time_base)), 1)
                yield Shown(held, held.pts, held.pts + (held.duration or usual))


def _stretches(recording: Recording, wanted: np.ndarray) -> list[tuple[int, int]]:
    """Return spans of ticks to decode: from one wanted frame to another, with a jump where key frames allow one."""
    gap = MIN_JUMP / recording.time_base
    spans, begin = [], int(wanted[0])
    for one, other in pairwise(wanted.tolist()):
        if other - one > gap:
            key = bisect_right(recording.keys, other) - 1
            if key >= 0 and recording.keys[key] - one > gap:
                spans.append((begin, one))
                begin = other
    return [*spans, (begin, int(wanted[-1]))]


def _decode(container, stream, recording: Recording, begin: int, skips, damage: Damage) -> Iterator[VideoFrame]:
    """Decode from the frame on screen at tick `begin` on."""
    for lead in (0, 1, 5, 25, None):
        is_first = not _seek(container, stream, recording, begin, lead)
        frames = _packets_to_frames(container, stream, recording, skips, damage, begin)
        head = next((frame for frame in frames), None)
        if head is not None and (head.pts <= begin or is_first):
            yield head
            yield from frames
            return
        if is_first:
            return


def _seek(container, stream, recording: Recording, begin: int, lead: int | None) -> bool:
    """Go to a key frame at or before a tick, `lead` seconds early; to the file's beginning for None: return False."""
    key = bisect_right(recording.keys, begin) - 1
    if lead is not None and key >= 0:
        target = math.floor(int(recording.keys[key]) - lead / recording.time_base)
        if recording.keys[0] < target:
            container.seek(target, stream=stream, backward=True, any_frame=False)
            return True
    early = 10 if container.format.name in MPEG_CLOCKS else 0
    start = stream.start_time or 0
    container.seek(math.floor(start - early / stream.time_base), stream=stream, backward=True, any_frame=False)
    return False


def _packets_to_frames(container, stream, recording, skips, damage: Damage, begin: int) -> Iterator[VideoFrame]:
    """Decode packet by packet; a fault is noted and decoding goes on."""
    context, skipping = stream.codec_context, "DEFAULT"
    context.skip_frame = skipping
    faults = 0
    for packet in container.demux(stream):
        if skips is not None:
            mode = "DEFAULT" if packet.pts is None or packet.pts in skips else "NONREF"
            if mode != skipping:
                context.skip_frame = skipping = mode
        try:
            decoded = packet.decode()
        except av.error.FFmpegError as error:
            faults += 1
            at = packet.pts if packet.pts is not None else packet.dts
            if (at is not None and at >= begin) or faults >= MAX_FAULTS:
                _note(recording, damage, begin if at is None else at, str(error.strerror or error))
            if faults >= MAX_FAULTS:
                damage.spans.append((begin, 2**62))
                return
            continue
        for frame in decoded:
            if frame.pts is None:
                continue
            if frame.is_corrupt and frame.pts >= begin:
                _note(recording, damage, frame.pts, "a picture that cannot be decoded whole")
            yield frame


def _note(recording: Recording, damage: Damage, at: int, reason: str) -> None:
    """Note a fault at a tick: a threaded decoder tells of it some frames late, and it lasts to the next key frame."""
    frame_ticks = 1 / (recording.fps * recording.time_base)
    later = bisect_right(recording.keys, at)
    until = int(recording.keys[later]) if later < len(recording.keys) else 2**62
    damage.spans.append((math.floor(at - LATE * frame_ticks), until))
    damage.reason = damage.reason or f"{reason} at {float(recording.seconds(at)):.2f} s"
