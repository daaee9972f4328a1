"""Media made on the spot for the tests of the data tools: files with faults of known size."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

SHARED = Path("../shared/media")
SAMPLE_RATE = 48_000


def write_source(
    path: Path,
    *,
    seconds: float = 12,
    fps: Fraction | int = 25,
    keyframe_seconds: float = 5,
    size: tuple[int, int] = (96, 64),
    seed: int = 0,
    frame_pts: list[int] | None = None,
    layout: str = "stereo",
    codecs: tuple[str, str] = ("libx264", "aac"),
    shift_seconds: float = 0.0,
    picture=None,
    sound=None,
) -> Path:
    """Write a picture that flashes and a sound that clicks at the same irregular times; return the path.

    frame_pts: times of the frames in tenths of 1 / fps, for a variable frame rate. shift_seconds: by which the
    sound comes late. picture, sound: functions of the frame's number and of the times (seconds), instead of those.
    """
    fps, rng = Fraction(fps), np.random.default_rng(seed)
    count, total = round(seconds * fps), round(seconds * SAMPLE_RATE)
    events = np.cumsum(rng.uniform(0.4, 1.1, round(2 * seconds)))
    events = events[events < seconds - 0.3]
    scene = rng.integers(30, 120, (size[1] // 8, size[0] // 8, 3)).repeat(8, 0).repeat(8, 1)
    with av.open(str(path), "w") as container:
        options = {"crf": "20", "preset": "ultrafast", "sc_threshold": "0"} if codecs[0] == "libx264" else {}
        video = container.add_stream(codecs[0], rate=fps, options=options)
        video.width, video.height, video.pix_fmt = *size, "yuv420p"
        video.codec_context.gop_size = round(keyframe_seconds * fps)
        base = 1 / (10 * fps) if frame_pts else 1 / fps
        video.codec_context.time_base = base
        audio = container.add_stream(codecs[1], rate=SAMPLE_RATE, layout=layout)
        for number in range(count):
            time = (frame_pts[number] if frame_pts else 10 * number) / (10 * fps)
            lit = 110 * np.exp(-10 * np.clip(float(time) - events, 0, None)) * (float(time) >= events)
            image = picture(number) if picture else np.roll(scene, 2 * number, 1) + lit.max(initial=0)
            frame = av.VideoFrame.from_ndarray(
                np.broadcast_to(image, (size[1], size[0], 3)).clip(0, 255).astype(np.uint8).copy()
            )
            frame.pts, frame.time_base = round(time / base), base
            container.mux(video.encode(frame))
        times = np.arange(total) / SAMPLE_RATE
        wave = sound(times) if sound else _clicks(times, events + shift_seconds, rng)
        channels = audio.codec_context.layout.nb_channels
        data = np.repeat(np.atleast_2d(wave).astype(np.float32), channels if np.ndim(wave) == 1 else 1, axis=0)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(data), format="fltp", layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = SAMPLE_RATE, 0, Fraction(1, SAMPLE_RATE)
        container.mux(audio.encode(frame))
        container.mux(video.encode(None))
        container.mux(audio.encode(None))
    return path


def _clicks(times: np.ndarray, events: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    wave = 0.002 * rng.standard_normal(len(times))
    for event in events:
        since = times - event
        begun = (since >= 0) & (since < 0.4)
        pitch = rng.uniform(200, 3000)
        wave[begun] += 0.4 * np.exp(-25 * since[begun]) * np.sin(2 * np.pi * pitch * since[begun])
    return wave


def copy_packets(source: Path, target: Path, start: float, seconds: float, *, with_lead: bool = False) -> Path:
    """Cut as `ffmpeg -i source -ss start -t seconds -c copy` does: packets as they are, from a key frame on.

    with_lead: as with `-ss` before `-i`, from the key frame before the start, hidden by an edit list.
    """
    with av.open(str(source)) as read, av.open(str(target), "w") as write:
        streams = {stream.index: write.add_stream_from_template(stream) for stream in read.streams}
        begins = {stream.index: start for stream in read.streams}
        if with_lead:
            packets = [packet for packet in read.demux(video=0) if packet.is_keyframe and packet.pts is not None]
            times = [float(packet.pts * packet.time_base) for packet in packets]
            begins[packets[0].stream_index] = max(time for time in times if time <= start)
            read.seek(0)
        has_begun: set[int] = set()
        for packet in read.demux():
            if packet.dts is None:
                continue
            time = float(packet.pts * packet.time_base)
            number = packet.stream_index
            is_ready = packet.stream.type == "audio" or packet.is_keyframe or number in has_begun
            if begins[number] <= time < start + seconds and is_ready:
                has_begun.add(number)
                shift = round(start / packet.time_base)
                packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
                packet.stream = streams[number]
                write.mux(packet)
    return target
