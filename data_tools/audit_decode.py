"""Decoding a file once, from beginning to end: every frame and sample with its exact time, and what went wrong."""

from collections import Counter
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.container import InputContainer
from av.stream import Stream
from av.video.frame import VideoFrame

from mmdiff.media.container import find_audio, find_video, native_fps, open_media, presentation_zero

BLOCK_SECONDS = 1
MAX_HOLE_SECONDS = 60  # missing sound is filled with silence up to here: a clock that jumps by hours fills no memory
MAX_FAULTS = 1000  # of decoding: after so many the rest of the file is given up
HEADER_TELLS = ("mov", "matroska", "avi", "flv")  # containers whose header states the duration
SHORTFALL_SECONDS = Fraction(1, 2)


@dataclass
class VideoFacts:
    """A file's picture: what its header says, and when the presented frames are shown, in seconds from zero."""

    codec: str
    fps: Fraction
    width: int
    height: int
    rotation: int = 0
    start: Fraction | None = None
    end: Fraction = Fraction(0)
    last_start: Fraction = Fraction(0)
    num_frames: int = 0
    num_corrupt: int = 0
    hidden: Fraction = Fraction(0)  # seconds of picture that lie in the file before what is presented first
    tick: Fraction = Fraction(1, 1000)
    gaps: Counter = field(default_factory=Counter)  # from one frame to the next, in ticks

    @property
    def seconds(self) -> Fraction:
        """From the first frame to the end of the last."""
        return self.end - self.start if self.start is not None else Fraction(0)

    @property
    def mean_fps(self) -> Fraction:
        """The nominal frame rate, or the average where they differ by more than 2 %, as `mmdiff.media.probe` has it."""
        if self.num_frames < 2 or self.last_start == self.start:
            return self.fps
        exact = (self.num_frames - 1) / (self.last_start - self.start)
        return self.fps if abs(exact / self.fps - 1) < Fraction(1, 50) else exact.limit_denominator(1001)

    @property
    def is_variable(self) -> bool:
        """Say whether frames come at unequal intervals, as `mmdiff.media.probe` does."""
        return bool(self.gaps) and max(self.gaps) - min(self.gaps) > max(2, max(self.gaps) // 20)


@dataclass
class AudioFacts:
    """A file's sound: what its header says, and where the presented samples lie, in samples from presentation zero."""

    codec: str
    sample_rate: int
    channel_names: tuple[str, ...] = ()
    frame_size: int = 0  # samples that the codec encodes together
    start: int | None = None
    end: int = 0
    num_samples: int = 0
    num_missing: int = 0  # inside holes

    @property
    def start_seconds(self) -> Fraction:
        """When the first sample is heard."""
        return Fraction(self.start or 0, self.sample_rate or 1)

    @property
    def seconds(self) -> Fraction:
        """From the first sample to the end of the last."""
        return Fraction(self.end - (self.start or 0), self.sample_rate or 1)


@dataclass
class Decoded:
    """What one pass over a file found; `video` or `audio` is None where the file has no such stream."""

    container: str
    video: VideoFacts | None
    audio: AudioFacts | None
    num_faults: int = 0
    first_fault: str = ""
    missing_seconds: Fraction = Fraction(0)  # by which the file ends earlier than its header says


class Watcher:
    """What is told of a file while it is decoded; this one looks away."""

    def see(self, frame: VideoFrame, start: Fraction, end: Fraction, facts: VideoFacts) -> None:
        """Take a frame that is shown from `start` to `end`, in seconds from presentation zero."""

    def hear(self, block: np.ndarray, facts: AudioFacts) -> None:
        """Take the next samples float32 `c n`; the first one of all is heard at `facts.start`."""


def decode_file(path: Path, watcher: Watcher) -> Decoded:
    """Decode both streams of a file side by side; what cannot be decoded is counted, and not fatal.

    Errors: `ValueError` where the file cannot be opened, is cut short by its own account, or has neither stream.
    """
    with open_media(path) as container:
        streams = [s for s in (find_video(container), find_audio(container)) if s is not None]
        if not streams:
            raise ValueError(f"{path}: neither picture nor sound in this file; give a video")
        for stream in streams:
            if stream.codec_context is None:
                raise ValueError(
                    f"{path}: nothing here can decode its {stream.type} stream; it is damaged, or convert it"
                )
        return _Reader(container, watcher).read()


class _Reader:
    def __init__(self, container: InputContainer, watcher: Watcher):
        video, audio = find_video(container), find_audio(container)
        self.container, self.watcher, self.zero = container, watcher, presentation_zero(container)
        self.streams = [stream for stream in (video, audio) if stream is not None]
        self.video, self.audio = _video_facts(video), _audio_facts(audio)
        self.faults: Counter[str] = Counter()
        self.resampler = av.AudioResampler(format="fltp")
        self.held: tuple[VideoFrame, Fraction] | None = None
        self.block: list[np.ndarray] = []
        self.num_held = 0

    def read(self) -> Decoded:
        for packet in self.container.demux(self.streams):
            if packet.stream.type == "video" and packet.pts is not None:
                self.video.hidden = max(self.video.hidden, self.zero - packet.pts * packet.time_base)
            try:
                frames = packet.decode()
            except av.error.EOFError:
                continue
            except av.error.FFmpegError as error:
                self.faults[f"{packet.stream.type}: {error.strerror}"] += 1
                if sum(self.faults.values()) >= MAX_FAULTS:
                    break
                continue
            for frame in frames:
                if frame.pts is not None:
                    (self._show if isinstance(frame, VideoFrame) else self._sound)(frame, packet.stream)
        if self.held:
            self._close(None)
        self._hand_on()
        return Decoded(
            self.container.format.name, self.video, self.audio, sum(self.faults.values()),
            next(iter(self.faults), ""), self._shortfall(),
        )  # fmt: skip

    def _show(self, frame: VideoFrame, stream: Stream) -> None:
        start = frame.pts * stream.time_base - self.zero
        if self.held:
            self._close(start)
        self.held = frame, start

    def _close(self, following: Fraction | None) -> None:
        """Hand on the frame that was held until its end was known."""
        (frame, start), facts = self.held, self.video
        end = following if following is not None and following > start else start + self._last_duration(frame)
        if end <= 0:
            return
        if facts.start is None:
            facts.start, facts.rotation = max(start, Fraction(0)), round(frame.rotation) % 360
        else:
            facts.gaps[round((start - facts.last_start) / facts.tick)] += 1
        facts.last_start, facts.end = start, max(facts.end, end)
        facts.num_frames += 1
        facts.num_corrupt += bool(frame.is_corrupt)
        self.watcher.see(frame, max(start, Fraction(0)), end, facts)

    def _last_duration(self, frame: VideoFrame) -> Fraction:
        """Return how long a frame stays that none follows; only MP4 writes it down, elsewhere it is a guess."""
        facts = self.video
        if facts.gaps and "mov" not in self.container.format.name:
            return facts.gaps.most_common(1)[0][0] * facts.tick
        return frame.duration * frame.time_base if frame.duration else 1 / facts.fps

    def _sound(self, frame: AudioFrame, stream: Stream) -> None:
        facts = self.audio
        names = tuple(channel.name for channel in frame.layout.channels)
        if facts.start is None:
            facts.sample_rate, facts.channel_names = frame.sample_rate, names
        if (frame.sample_rate, len(names)) != (facts.sample_rate, len(facts.channel_names)):
            self.faults["audio: its rate or channels change on the way"] += 1
            return
        data = np.concatenate([f.to_ndarray() for f in self.resampler.resample(frame)], axis=1)
        exact = (frame.pts * stream.time_base - self.zero) * facts.sample_rate
        # Stamps coarser than a sample (Matroska's milliseconds) say only to one tick where a frame lies.
        is_next = facts.start is not None and abs(exact - facts.end) <= max(stream.time_base * facts.sample_rate, 1)
        begin = facts.end if is_next else round(exact)
        data = data[:, max(-begin, 0) :]  # what comes before zero is the encoder's delay
        if data.shape[1]:
            self._place(np.nan_to_num(data), max(begin, 0))

    def _place(self, data: np.ndarray, begin: int) -> None:
        facts = self.audio
        facts.num_samples += data.shape[1]
        if facts.start is None:
            facts.start = facts.end = begin
        hole = max(begin - facts.end, 0)
        facts.num_missing += hole
        if hole:
            silence = min(hole, MAX_HOLE_SECONDS * facts.sample_rate)
            data = np.concatenate([np.zeros((len(data), silence), np.float32), data], 1)
        facts.end = max(facts.end, begin + data.shape[1] - (silence if hole else 0))
        self.block.append(data)
        self.num_held += data.shape[1]
        if self.num_held >= BLOCK_SECONDS * facts.sample_rate:
            self._hand_on()

    def _hand_on(self) -> None:
        if self.block:
            self.watcher.hear(np.concatenate(self.block, axis=1), self.audio)
        self.block, self.num_held = [], 0

    def _shortfall(self) -> Fraction:
        """Return by how much the file ends earlier than its header says; 0 where the header does not say."""
        ends = [facts.end for facts in (self.video,) if facts]
        ends += [Fraction(self.audio.end, self.audio.sample_rate or 1)] if self.audio else []
        if not self.container.duration or not any(name in self.container.format.name for name in HEADER_TELLS):
            return Fraction(0)
        stated = Fraction(self.container.duration, av.time_base)
        missing = stated - max(ends)
        return missing if missing > max(SHORTFALL_SECONDS, stated / 50) else Fraction(0)


def _video_facts(stream: Stream | None) -> VideoFacts | None:
    if stream is None:
        return None
    stream.thread_type = "NONE"  # the pool has a process for every core
    return VideoFacts(stream.codec_context.name, native_fps(stream), stream.width, stream.height, tick=stream.time_base)


def _audio_facts(stream: Stream | None) -> AudioFacts | None:
    if stream is None:
        return None
    context = stream.codec_context
    return AudioFacts(context.name, stream.sample_rate or 0, frame_size=context.frame_size or 0)
