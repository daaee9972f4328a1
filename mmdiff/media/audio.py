"""Reading sound: samples are placed by their presentation time, then resampled by soxr."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
import numpy as np
import soxr
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer

from mmdiff.media.container import as_start, find_audio, frames_from, open_media, presentation_zero

LEAD_SECONDS = Fraction(1, 4)  # decoded before a window, for codecs that need to warm up and for the resampler's filter
# How loud each loudspeaker is heard on the left and on the right (ITU-R BS.775); the low-frequency one is left out.
DOWN_MIX = {
    "FL": (1.0, 0.0), "FR": (0.0, 1.0), "FC": (0.7071, 0.7071), "LFE": (0.0, 0.0), "BL": (0.7071, 0.0),
    "BR": (0.0, 0.7071), "SL": (0.7071, 0.0), "SR": (0.0, 0.7071), "BC": (0.5, 0.5), "FLC": (1.0, 0.0),
    "FRC": (0.0, 1.0),
}  # fmt: skip
USUAL = {3: "FL FR FC", 4: "FL FR BL BR", 5: "FL FR FC BL BR", 6: "FL FR FC LFE BL BR", 8: "FL FR FC LFE BL BR SL SR"}
AUDIO_SUFFIXES = (".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a", ".aac", ".aif", ".aiff", ".wma")


@dataclass(frozen=True)
class Sound:
    """Waveform float32 `c n` in [-1, 1] at `sample_rate` Hz."""

    waveform: np.ndarray
    sample_rate: int


@dataclass(frozen=True)
class _Grid:
    """Where a stream's packets lie, in samples from presentation zero: at `origin` and every `step` from there."""

    origin: int
    step: int


def read_audio(
    path: str | Path,
    *,
    sample_rate: int | None = None,
    channels: int | None = None,
    start: Fraction | float = 0,
    num_samples: int | None = None,
) -> Sound:
    """Read a file's sound: from `start` seconds to its end, or `num_samples` (at the rate asked for).

    Sample 0 is what is heard at `start` seconds after presentation zero; the encoder's delay is taken off; a gap before
    the sound begins is silence. More than two channels are mixed to stereo. What a codec overshoots is clipped to
    [-1, 1]. The file needs no picture.

    Errors: `ValueError` where the file is damaged, has no sound, or ends before the window does.
    """
    start = as_start(path, start)
    for name, value in (("sample_rate", sample_rate), ("channels", channels), ("num_samples", num_samples)):
        if value is not None and value < 1:
            raise ValueError(f"{path}: {name} is {value}; it must be at least 1")
    with open_media(path) as container:
        stream = require_audio(container, path)
        native = stream.sample_rate
        rate = sample_rate or native
        step = native // math.gcd(native, rate)  # native samples after which both grids meet
        first = max(math.floor((start - LEAD_SECONDS) * native), 0) // step * step
        last = None
        if num_samples is not None:
            last = math.ceil((start + Fraction(num_samples, rate) + LEAD_SECONDS) * native)
        wave, end = _decode(container, stream, first, last)
        shortest = Fraction(max(stream.codec_context.frame_size or 0, 1024), native)
    if end is None:
        raise ValueError(f"{path}: not one sound sample can be decoded; the file is truncated or damaged")
    wave = to_channels(wave, channels) if channels else wave
    if rate != native and wave.shape[1]:
        wave = soxr.resample(wave.T, native, rate, quality="HQ").T
    offset = round(start * rate) - first * rate // native
    count = max(wave.shape[1] - offset, 0) if num_samples is None else num_samples
    missing = offset + count - wave.shape[1]
    if missing > shortest * rate or (num_samples is None and not count):
        raise ValueError(
            f"{path}: the sound ends at {end / native:.3f} s, before the window {float(start):.3f} to "
            f"{float(start + Fraction(count, rate)):.3f} s does; choose an earlier start or a shorter window"
        )
    wave = np.pad(wave, ((0, 0), (0, max(missing, 0))))[:, offset : offset + count]
    return Sound(np.ascontiguousarray(wave.clip(-1, 1), dtype=np.float32), rate)


def require_audio(container: InputContainer, path: str | Path) -> AudioStream:
    """Return the file's sound stream.

    Errors: `ValueError` where it has none.
    """
    stream = find_audio(container)
    if stream is None:
        raise ValueError(f"{path}: no sound in this file (no audio stream); use read_video, or give a file with sound")
    if stream.codec_context is None:
        raise ValueError(f"{path}: its sound's codec is not known here; the file is damaged, or convert it to AAC")
    if not stream.sample_rate:
        raise ValueError(f"{path}: the audio stream states no sample rate; the file is truncated or damaged")
    return stream


def to_channels(wave: np.ndarray, channels: int) -> np.ndarray:
    """Mix mono or stereo `c n` to one or two channels, or repeat mono to any number.

    Errors: `ValueError` where it cannot be done.
    """
    if wave.shape[0] == channels:
        return wave
    if channels == 1:
        return wave.mean(0, keepdims=True)
    if wave.shape[0] == 1:
        return np.repeat(wave, channels, axis=0)
    raise ValueError(f"audio: {wave.shape[0]} channels cannot become {channels}; ask for 1 or 2")


def _decode(container, stream, first: int, last: int | None) -> tuple[np.ndarray, int | None]:
    """Return native samples `first` to `last` as mono or stereo `c n`, and where the decoded sound ends."""
    zero, pieces, end = presentation_zero(container), [], None
    begin = Fraction(first, stream.sample_rate) - LEAD_SECONDS + zero
    grid = None
    if first and stream.time_base * stream.sample_rate > 1 and begin > (stream.start_time or 0) * stream.time_base:
        opening = list(islice(_placed(frames_from(container, stream, Fraction(-1)), stream, zero, None), 3))
        grid = _Grid(opening[-1][0], opening[-1][1].samples) if opening else None
    resampler = av.AudioResampler(format="fltp")
    for begins, frame in _placed(frames_from(container, stream, begin), stream, zero, grid):
        at, end = begins, begins + frame.samples
        for converted in resampler.resample(frame):
            data = _down_mix(converted.to_ndarray(), [channel.name for channel in converted.layout.channels])
            if at + data.shape[1] > first and (last is None or at < last):
                pieces.append((max(at, first), data[:, max(first - at, 0) :]))
            at += converted.samples
        if last is not None and end >= last:
            break
    stop = max((at + piece.shape[1] for at, piece in pieces), default=first)
    wave = np.zeros((max((p.shape[0] for _, p in pieces), default=1), stop - first), np.float32)
    for at, piece in pieces:
        wave[:, at - first : at - first + piece.shape[1]] = piece
    return wave, end


def _placed(
    frames: Iterable[AudioFrame], stream, zero: Fraction, grid: _Grid | None
) -> Iterator[tuple[int, AudioFrame]]:
    """Give every frame its place, in samples from presentation zero.

    Time stamps coarser than a sample (Matroska's milliseconds) only say where frames lie approximately: a frame follows
    its predecessor where its stamp agrees to one tick; the first one lies on the grid of the stream's packets.
    """
    tick = stream.time_base * stream.sample_rate
    expected = None
    for frame in frames:
        exact = (frame.pts * stream.time_base - zero) * stream.sample_rate
        if expected is None and grid is not None:
            expected = grid.origin + round((exact - grid.origin) / grid.step) * grid.step
        is_near = expected is not None and abs(exact - expected) <= tick
        at = expected if is_near else round(exact)
        expected = at + frame.samples
        yield at, frame


def _down_mix(wave: np.ndarray, names: list[str]) -> np.ndarray:
    """Mix more than two channels to stereo, no louder than full scale."""
    if len(names) <= 2:
        return wave
    if not set(names) & set(DOWN_MIX):
        names = USUAL.get(len(names), "").split() or ["FC"] * len(names)
    weights = np.array([DOWN_MIX.get(name, (0.0, 0.0)) for name in names], np.float32)
    return (weights / weights.sum(0).max()).T @ wave
