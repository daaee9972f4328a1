"""Writing a clip as its frames come, and proving by decoding it that it holds exactly what it should."""

import uuid
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.frame import VideoFrame

from mmdiff.media.mux import LAYOUTS

AUDIO_BLOCK = 4096  # samples handed to the encoder at a time
AAC_FRAME = 1024
KEYFRAME_SECONDS = 1
GLOBAL_HEADER = 1 << 22


class ClipWriter:
    """An MP4 in the making: H.264 and FLAC (or AAC), both from 0 on; nothing is at `path` before `finish`.

    The frames' packets are kept until the sound is there, so that both lie interleaved in the file. The same frames and
    sound give the same bytes on every machine.
    """

    def __init__(self, path: Path, fps: Fraction, size: tuple[int, int], tags: tuple[int, int, int], crf: int):
        self.path, self.fps, self.num_frames = path, fps, 0
        path.parent.mkdir(parents=True, exist_ok=True)
        self._aside = path.with_name(f".{path.stem}.{uuid.uuid4().hex}.partial.mp4")
        self._container = av.open(str(self._aside), "w", format="mp4", options={"movflags": "+faststart"})
        options = {"crf": str(crf), "preset": "medium", "bf": "0", "a53cc": "0"}
        self._video = self._container.add_stream("libx264", rate=fps, options=options)
        self._video.width, self._video.height, self._video.pix_fmt = *size, "yuv420p"
        context = self._video.codec_context
        context.time_base, context.gop_size = 1 / fps, max(round(KEYFRAME_SECONDS * fps), 1)
        context.thread_count = 1  # the same bytes on every machine
        context.color_primaries, context.color_trc, context.colorspace = tags
        context.color_range = 1
        self._packets: list[av.Packet] = []
        self._time_base = context.time_base

    def add(self, frame: VideoFrame) -> None:
        """Encode one frame, of the size announced."""
        frame.pts, frame.time_base = self.num_frames, self._time_base
        self._packets.extend(self._video.encode(frame))
        self.num_frames += 1

    def finish(self, wave: np.ndarray, sample_rate: int, codec: str) -> Path:
        """Add the sound, float32 `c n` in [-1, 1], and put the file in its place."""
        try:
            audio = self._container.add_stream(codec, rate=sample_rate, layout=LAYOUTS[wave.shape[0]])
            if codec == "aac":
                audio.bit_rate = 192_000
            self._packets.extend(self._video.encode(None))
            placed = [(packet.dts * float(self._time_base), 0, packet) for packet in self._packets]
            placed += [(packet.dts / sample_rate, 1, packet) for packet in _encode_sound(audio, wave, sample_rate)]
            for _, _, packet in sorted(placed, key=lambda item: item[:2]):
                self._container.mux(packet)
            self._container.close()
            self._aside.replace(self.path)
        finally:
            self.discard()
        return self.path

    def discard(self) -> None:
        """Give the clip up; without effect on a finished one."""
        self._packets.clear()
        self._container.close()
        self._aside.unlink(missing_ok=True)


def check_clip(path: Path, num_frames: int, num_samples: int, fps: Fraction) -> None:
    """Decode a written clip and count.

    Errors: `ValueError` that says what is not as it should be: the number of frames or samples, their times, or when
    the streams start.
    """
    with av.open(str(path)) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        tick = fps * video.time_base
        video.codec_context.options = {"skip_loop_filter": "all"}  # the frames are counted, not looked at
        times, heard, last = [], 0, 0
        for packet in container.demux(video, audio):
            for frame in packet.decode():
                if isinstance(frame, VideoFrame):
                    times.append(frame.pts)
                else:
                    heard += frame.samples if heard else frame.samples + round(frame.pts * audio.time_base * audio.rate)
                    last = round((frame.pts + frame.duration) * audio.time_base * audio.rate)
        # AAC comes in whole packets: how much of the last is presented the container says.
        excess = AAC_FRAME if audio.codec_context.name == "aac" else 1
    if times != [number * tick.denominator // tick.numerator for number in range(num_frames)]:
        raise ValueError(f"{path}: {len(times)} frames, or not evenly from 0 on, where {num_frames} were written")
    if last != num_samples or not 0 <= heard - num_samples < excess:
        raise ValueError(f"{path}: {last} samples from 0 on where {num_samples} were written")


def _encode_sound(stream, wave: np.ndarray, sample_rate: int) -> list[av.Packet]:
    """Encode a whole waveform."""
    packets, context = [], stream.codec_context
    is_whole = context.format.name.startswith("s16") if context.format else stream.name == "flac"
    data = np.round(wave * 32767).astype(np.int16) if is_whole else wave.astype(np.float32)
    layout = LAYOUTS[wave.shape[0]]
    for begin in range(0, wave.shape[1], AUDIO_BLOCK):
        block = data[:, begin : begin + AUDIO_BLOCK]
        if is_whole:
            frame = av.AudioFrame.from_ndarray(
                np.ascontiguousarray(block.T).reshape(1, -1), format="s16", layout=layout
            )
        else:
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(block), format="fltp", layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = sample_rate, begin, Fraction(1, sample_rate)
        packets.extend(stream.encode(frame))
    return [*packets, *stream.encode(None)]
