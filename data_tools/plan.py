"""Where clips lie in a recording: their starts, and for every frame of a clip the tick at which it is on the screen."""

import math
import uuid
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from data_tools.cut_config import CutConfig
from data_tools.cut_reader import Recording

NAMESPACE = uuid.UUID("0d9bb0f1-5a3c-5c39-9c55-3f1d5b1c2a6e")  # of clip names; never to be changed
AAC_FRAME = 1024  # samples that an encoder may leave out at the end


@dataclass(frozen=True)
class Span:
    """One clip of a recording: `num_frames` frames at `fps` from `start` seconds on, and as many seconds of sound.

    ticks: for every frame, the latest stamp of a frame that is on the screen then.
    """

    start: Fraction
    seconds: Fraction
    fps: Fraction
    ticks: tuple[int, ...]

    @property
    def num_frames(self) -> int:
        """Number of frames."""
        return len(self.ticks)

    def num_samples(self, sample_rate: int) -> int:
        """Return how many samples the clip's sound has."""
        return round(self.seconds * sample_rate)

    def key(self, digest: str) -> str:
        """Return the clip's name: the same for the same contents of the recording, start and end."""
        return str(uuid.uuid5(NAMESPACE, f"{digest} {self.start} {self.start + self.seconds}"))


def make_span(recording: Recording, config: CutConfig, start: Fraction, seconds: Fraction) -> Span:
    """Return the span that begins at `start`."""
    fps = config.rate_for(recording.fps)
    first, step = recording.exact_tick(start), 1 / (fps * recording.time_base)
    whole = math.lcm(first.denominator, step.denominator)  # in whole numbers, as there are many frames
    begin, by = int(first * whole), int(step * whole)
    return Span(start, seconds, fps, tuple((begin + i * by) // whole for i in range(max(round(seconds * fps), 1))))


def fits(recording: Recording, start: Fraction, seconds: Fraction) -> bool:
    """Whether picture and sound last to a clip's end; half a frame or one packet of sound may lack, as files end so."""
    end = start + seconds
    return (
        end <= recording.video_end + 1 / (2 * recording.fps)
        and end <= recording.audio_end + Fraction(AAC_FRAME, recording.sample_rate)
    )  # fmt: skip


def plan_fixed(recording: Recording, config: CutConfig) -> list[Span]:
    """Return spans every `config.every` seconds from `config.skip` on (or from where both streams have begun)."""
    spans = list(plan_shot(recording, config, max(Fraction(config.skip), recording.begin)))
    if config.keep_tail:
        begin = spans[-1].start + config.stride if spans else max(Fraction(config.skip), recording.begin)
        begin = snap(recording, begin)
        left = min(recording.video_end, recording.audio_end) - begin
        if Fraction(config.min_tail) <= left < config.clip_seconds:
            fps = config.rate_for(recording.fps)
            frames = int(left * fps)
            if frames:
                spans.append(make_span(recording, config, begin, frames / fps))
    return spans


def plan_shot(recording: Recording, config: CutConfig, begin: Fraction) -> Iterator[Span]:
    """Yield the spans from `begin` to the recording's end, one behind the other."""
    number = 0
    while True:
        start = snap(recording, begin + number * config.stride)
        if not fits(recording, start, config.clip_seconds):
            return
        yield make_span(recording, config, start, config.clip_seconds)
        number += 1


def snap(recording: Recording, start: Fraction) -> Fraction:
    """Return the moment at which the next frame appears, less than a frame later, where frames come evenly.

    So the first frame of a clip is as old as its first sample. Where frames come unevenly, the start stays.
    """
    if recording.stamps is None or recording.is_variable_frame_rate:
        return start
    exact = (start + recording.zero) / recording.time_base
    place = bisect_left(recording.stamps, math.ceil(exact - recording.tolerance))
    if place == len(recording.stamps):
        return start
    moment = recording.seconds(int(recording.stamps[place]))
    return moment if abs(moment - start) < 1 / recording.fps else start


def wanted_stamps(recording: Recording, spans: list[Span]) -> np.ndarray:
    """Return the stamps of the frames that the spans show, in order."""
    ticks = np.unique(np.array([tick for span in spans for tick in span.ticks], np.int64))
    places = np.searchsorted(recording.stamps, ticks, side="right") - 1
    return np.unique(recording.stamps[np.maximum(places, 0)])


def short_reason(recording: Recording, config: CutConfig) -> str:
    """Say why a recording gives no clip."""
    have = float(min(recording.video_end, recording.audio_end))
    need = float(max(Fraction(config.skip), recording.begin) + config.clip_seconds)
    return f"{have:.2f} s long in picture and sound; {need:.2f} s are needed for a clip"
