"""Opening media files: one place where what libav says of a bad file becomes a sentence, and where time 0 is fixed."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from itertools import chain
from pathlib import Path

import av
from av.container import InputContainer
from av.frame import Frame
from av.stream import Disposition, Stream

from mmdiff.media.intact import check_intact
from mmdiff.media.member import Member

PRIMING_SAMPLES = 2112  # the longest delay that AAC and MP3 encoders usually put before the sound
RETRIES = (0, 1, 5, 25)  # seconds by which a seek that landed too late is repeated earlier


@contextmanager
def open_media(path: str | Path | Member) -> Iterator[InputContainer]:
    """Open a file, or a member of a tar, for reading.

    Errors: `ValueError` that names the file and the fault, for whatever cannot be opened or decoded inside the block.
    """
    path = path if isinstance(path, Member) else _existing(path)
    source = path.open("rb") if isinstance(path, Member) else str(path)
    try:
        check_intact(path)
        with av.open(source, metadata_errors="replace") as container:
            yield container
    except av.error.FFmpegError as error:
        raise ValueError(
            f"{path}: damaged or not a media file ({error.strerror}); give a file that a media player plays"
        ) from error
    except IndexError as error:  # what PyAV raises for a packet of a stream that the file never announced
        raise ValueError(f"{path}: damaged: it holds parts of a stream that it does not announce") from error
    except PermissionError as error:
        raise ValueError(f"{path}: may not be read; change its permissions") from error


def _existing(path: str | Path) -> Path:
    path = Path(path)
    if not path.exists():
        raise ValueError(f"{path}: no such file; check the path")
    if path.is_dir():
        raise ValueError(f"{path}: this is a folder; name a media file in it")
    if path.stat().st_size == 0:
        raise ValueError(f"{path}: the file is empty; make or fetch it again")
    return path


def find_video(container: InputContainer) -> Stream | None:
    """Return the first stream of moving pictures; a cover image is none."""
    moving = (s for s in container.streams.video if not s.disposition & Disposition.attached_pic)
    return next(moving, None)


def find_audio(container: InputContainer) -> Stream | None:
    """Return the first stream of sound."""
    return next(iter(container.streams.audio), None)


def presentation_zero(container: InputContainer) -> Fraction:
    """Return the time stamp, in seconds, of what is presented at 0.

    A transport stream's clock begins anywhere: the first picture or sound is at 0. Where a container without edit lists
    lets the sound begin just before the picture, that is the encoder's delay, and the picture is at 0. What lies before
    a clock's own 0 is not presented.
    """
    starts = {}
    for stream in (find_video(container), find_audio(container)):
        if stream is not None and stream.start_time is not None:
            starts[stream.type] = stream.start_time * stream.time_base
    if len(starts) == 2 and "mov" not in container.format.name:
        lead = starts["video"] - starts["audio"]
        if 0 < lead <= Fraction(PRIMING_SAMPLES, find_audio(container).sample_rate or 48_000) + Fraction(1, 1000):
            return max(starts["video"], Fraction(0))
    return max(min(starts.values(), default=Fraction(0)), Fraction(0))


def native_fps(stream: Stream) -> Fraction:
    """Return a video stream's frame rate: the nominal one, or the average where the two differ by more than 2 %."""
    average, nominal = stream.average_rate or stream.guessed_rate, stream.base_rate
    if average and nominal and abs(nominal / average - 1) < Fraction(1, 50):
        return Fraction(nominal)
    return Fraction(average or nominal or 25)


def frames_from(container: InputContainer, stream: Stream, seconds: Fraction) -> Iterator[Frame]:
    """Decode, in order of presentation, from a frame that begins at or before a time stamp in seconds.

    A seek may land after its target (key frames that are stamped by decoding time, open groups of pictures); then it is
    repeated earlier, at last from the beginning. The container must not have been read before, unless it has to seek.
    """
    beginning = (stream.start_time or 0) * stream.time_base
    for lead in RETRIES:
        if seconds - lead <= beginning:
            break
        ticks = math.floor((seconds - lead) / stream.time_base)
        container.seek(ticks, stream=stream, backward=True, any_frame=False)
        frames = _decode_sought(container, stream)
        first = next(frames, None)
        if first is not None and first.pts * stream.time_base <= seconds:
            yield from chain([first], frames)
            return
    if seconds > beginning:
        # Without an index a seek to the beginning lands after it; before the beginning there is nothing to land on.
        early = 10 if container.format.name in ("mpegts", "mpeg") else 0
        ticks = math.floor((beginning - early) / stream.time_base)
        container.seek(ticks, stream=stream, backward=True, any_frame=False)
    yield from (frame for frame in container.decode(stream) if frame.pts is not None)


def _decode_sought(container: InputContainer, stream: Stream) -> Iterator[Frame]:
    """Decode after a seek; program streams let one land within a packet, whose rest is taken for something else."""
    has_begun = False
    for packet in container.demux(stream):
        try:
            frames = packet.decode()
        except av.error.InvalidDataError:
            if has_begun:
                raise
            continue
        for frame in frames:
            if not has_begun and stream.type == "audio" and frame.sample_rate != stream.sample_rate:
                continue
            has_begun = True
            if frame.pts is not None:
                yield frame


def as_start(path: str | Path, start: Fraction | float) -> Fraction:
    """Return a window's start in seconds as an exact number.

    Errors: `ValueError` where it is negative or not a number.
    """
    if not math.isfinite(start) or start < 0:
        raise ValueError(f"{path}: start is {start} s; give a number of seconds from 0 on")
    return Fraction(start)
