"""Reading sound: samples are placed by their presentation time, then resampled by soxr."""

import math
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import soxr

from mmdiff.media.container import open_media, presentation_zero, seek_before

LEAD_SECONDS = Fraction(1, 4)  # decoded before a window, for codecs that need to warm up and for the resampler's filter
# How loud each loudspeaker is heard on the left and on the right (ITU-R BS.775); the low-frequency one is left out.
DOWN_MIX = {
    "FL": (1.0, 0.0), "FR": (0.0, 1.0), "FC": (0.7071, 0.7071), "LFE": (0.0, 0.0), "BL": (0.7071, 0.0),
    "BR": (0.0, 0.7071), "SL": (0.7071, 0.0), "SR": (0.0, 0.7071), "BC": (0.5, 0.5), "FLC": (1.0, 0.0),
    "FRC": (0.0, 1.0),
}  # fmt: skip


@dataclass(frozen=True)
class Sound:
    """Waveform float32 `c n` at `sample_rate` Hz."""

    waveform: np.ndarray
    sample_rate: int


def read_audio(
    path: str | Path,
    *,
    sample_rate: int | None = None,
    channels: int | None = None,
    start: Fraction | float = 0,
    num_samples: int | None = None,
) -> Sound:
    """Read a file's sound: all of it, or `num_samples` (at the rate asked for) from `start` seconds on.

    Sample 0 is what is heard at `start` seconds after presentation zero; the encoder's delay is taken off; a gap before
    the sound begins is silence. The file needs no picture.

    Errors: `ValueError` where the file is damaged, has no sound, or ends before the window does.
    """
    start = Fraction(start)
    with open_media(path) as container:
        if not container.streams.audio:
            raise ValueError(f"{path}: no sound in this file (no audio stream)")
        stream = container.streams.audio[0]
        zero = presentation_zero(container)
        native = stream.sample_rate
        if not native:
            raise ValueError(f"{path}: the audio stream states no sample rate; the file is truncated or damaged")
        rate = sample_rate or native
        step = native // math.gcd(native, rate)  # native samples after which both grids meet
        first = max(math.floor((start - LEAD_SECONDS) * native), 0) // step * step
        last = None
        if num_samples is not None:
            last = math.ceil((start + Fraction(num_samples, rate) + LEAD_SECONDS) * native)
        seek_before(container, stream, Fraction(first, native) - LEAD_SECONDS + zero)
        wave, end = _decode(container, stream, zero, first, last)
    if end == 0:
        raise ValueError(f"{path}: not one sound sample can be decoded; the file is truncated or damaged")
    wave = to_channels(wave, channels) if channels else wave
    if rate != native:
        wave = soxr.resample(wave.T, native, rate, quality="HQ").T
    offset = round(start * rate) - first * rate // native
    if num_samples is None:
        return Sound(np.ascontiguousarray(wave[:, offset:], dtype=np.float32), rate)
    missing = offset + num_samples - wave.shape[1]
    if missing > rate // 20:
        raise ValueError(
            f"{path}: the sound ends at {end / native:.3f} s, before the window {float(start):.3f} to "
            f"{float(start + Fraction(num_samples, rate)):.3f} s does; choose an earlier start or a shorter window"
        )
    wave = np.pad(wave, ((0, 0), (0, max(missing, 0))))
    return Sound(np.ascontiguousarray(wave[:, offset : offset + num_samples], dtype=np.float32), rate)


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


def _decode(container, stream, zero: Fraction, first: int, last: int | None) -> tuple[np.ndarray, int]:
    """Return native samples `first` to `last` as mono or stereo `c n`, and where the decoded sound ends."""
    rate, pieces, end = stream.sample_rate, [], 0
    resampler = av.AudioResampler(format="fltp")
    for frame in container.decode(stream):
        if frame.pts is None:
            continue
        at = round((frame.pts * frame.time_base - zero) * rate)
        for converted in resampler.resample(frame):
            data = _down_mix(converted.to_ndarray(), [channel.name for channel in converted.layout.channels])
            if at < first:
                data, at = data[:, max(first - at, 0) :], first
            if data.shape[1]:
                pieces.append((at - first, data))
                end = max(end, at + data.shape[1])
        if last is not None and end >= last:
            break
    channels = max((piece.shape[0] for _, piece in pieces), default=1)
    stop = end if last is None else min(end, last)
    wave = np.zeros((channels, max(stop - first, 0)), np.float32)
    for at, piece in pieces:
        length = min(piece.shape[1], wave.shape[1] - at)
        if length > 0:
            wave[:, at : at + length] = piece[:, :length]
    return wave, end


def _down_mix(wave: np.ndarray, names: list[str]) -> np.ndarray:
    """Mix more than two channels to stereo, no louder than full scale."""
    if len(names) <= 2:
        return wave
    weights = np.array([DOWN_MIX.get(name, (0.0, 0.0)) for name in names], np.float32)
    return (weights / weights.sum(0).max()).T @ wave
