"""Files as other encoders make them: flashes and clicks at known times, any codec, container, time base and offset."""

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from mmdiff.media import Clip

TIMES = (0.52, 1.4, 2.6, 3.8, 4.44)  # multiples of 1/25 s
SECONDS = 6


def flashes(times, num_frames: int, fps: Fraction, size=(32, 48)) -> np.ndarray:
    """Return dark frames with two bright ones from each time on."""
    frames = np.full((num_frames, *size, 3), 20, np.uint8)
    for time in times:
        first = round(time * fps)
        frames[first : first + 2] = 235
    return frames


def clicks(times, num_samples: int, rate: int) -> np.ndarray:
    """Return silence with a 4 ms bump centred on each time."""
    wave = np.zeros((1, num_samples), np.float32)
    length = rate // 250
    for time in times:
        first = round(time * rate) - length // 2
        wave[:, first : first + length] = 0.8 * np.hanning(length)
    return wave


def clip_of(fps: Fraction, seconds: int, rate: int, times=None) -> tuple[Clip, list[Fraction]]:
    """Return a clip that flashes and clicks once a second, and when."""
    count = int(seconds * fps)
    times = times or [Fraction(round((second + 0.3) * fps)) / fps for second in range(1, seconds - 1)]
    num_samples = round(count / fps * rate)
    return Clip(flashes(times, count, fps), clicks(times, num_samples, rate), fps, rate), times


def flash_times(frames: np.ndarray, fps: Fraction) -> np.ndarray:
    """Return when the picture turns bright, in seconds."""
    light = frames.mean((1, 2, 3))
    return np.array([float(k / fps) for k in np.flatnonzero((light[1:] > 128) & (light[:-1] <= 128)) + 1])


def click_times(wave: np.ndarray, rate: int, times) -> np.ndarray:
    """Return the loudest moment near each time, in seconds."""
    found = []
    for time in times:
        low = max(round((time - 0.2) * rate), 0)
        found.append((low + np.abs(wave[0, low : round((time + 0.2) * rate)]).argmax()) / rate)
    return np.array(found)


def _audio_frame(stream, wave: np.ndarray, at: int, begin: Fraction, layout: str) -> av.AudioFrame:
    kind = stream.codec_context.format.name
    if kind.startswith("s16"):
        wave = (wave * 32767).round().astype(np.int16)
    elif kind.startswith("s32"):
        wave = (wave.astype(np.float64) * (2**31 - 1)).round().astype(np.int32)
    if not kind.endswith("p"):
        wave = wave.T.reshape(1, -1)
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(wave), format=kind, layout=layout)
    frame.sample_rate, frame.time_base = stream.rate, Fraction(1, stream.rate)
    frame.pts = at + round(begin * stream.rate)
    return frame


def write_foreign(
    path: Path, frames=None, stamps=(), wave=None, rate=48_000, *, video="libx264", audio="aac", layout="mono",
    audio_start=Fraction(0), tick=Fraction(1, 90_000), options=None,
) -> Path:  # fmt: skip
    """Write frames at their time stamps (B-frames and all) and sound from `audio_start` on."""
    with av.open(str(path), "w", options=options or {}) as container:
        streams, items, step = [], [], 4096
        if frames is not None:
            pictures = container.add_stream(video, rate=25)
            pictures.height, pictures.width, pictures.pix_fmt = *frames.shape[1:3], "yuv420p"
            pictures.codec_context.time_base = tick
            streams.append(pictures)
            items += [(stamp, 0, number) for number, stamp in enumerate(stamps)]
        if wave is not None:
            sounds = container.add_stream(audio, rate=rate, layout=layout)
            streams.append(sounds)
            items += [(audio_start + Fraction(at, rate), 1, at) for at in range(0, wave.shape[1], step)]
        for stamp, is_sound, number in sorted(items):
            if is_sound:
                frame = _audio_frame(sounds, wave[:, number : number + step], number, audio_start, layout)
                container.mux(sounds.encode(frame))
            else:
                frame = av.VideoFrame.from_ndarray(frames[number], format="rgb24")
                frame.pts, frame.time_base = round(stamp / tick), tick
                container.mux(pictures.encode(frame))
        for stream in streams:
            container.mux(stream.encode(None))
    return path


def turn(path: Path, degrees: int) -> Path:
    """Put a display matrix into the video track's header: show the picture turned clockwise."""
    cosine, sine = {0: (1, 0), 90: (0, 1), 180: (-1, 0), 270: (0, -1)}[degrees]
    data = bytearray(path.read_bytes())
    header = data.index(b"tkhd") + 4
    one = 1 << 16
    matrix = struct.pack(">9i", cosine * one, sine * one, 0, -sine * one, cosine * one, 0, 0, 0, 1 << 30)
    data[header + 40 : header + 76] = matrix
    path.write_bytes(data)
    return path
