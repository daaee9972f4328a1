"""Clips from files and files from clips: picture and sound on one clock."""

import uuid
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import soxr

from mmdiff.log import get_logger
from mmdiff.media.audio import read_audio, require_audio
from mmdiff.media.clip import Clip
from mmdiff.media.container import open_media
from mmdiff.media.spec import ClipSpec
from mmdiff.media.video import EXACT_COLOURS, read_video, require_video

AAC_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000)
LAYOUTS = {1: "mono", 2: "stereo"}
BT709 = 1


def read_clip(path: str | Path, spec: ClipSpec | None = None, *, start: Fraction | float = 0) -> Clip:
    """Read picture and sound: the whole file as it is, or the window of `spec` from `start` seconds on.

    The sound lasts exactly as long as the picture.

    Errors: `ValueError` where the file is damaged, lacks a stream, or ends before the window does.
    """
    with open_media(path) as container:
        require_video(container, path)
        require_audio(container, path)
    picture = read_video(path, spec, start=start)
    if spec is not None:
        sound = read_audio(
            path, sample_rate=spec.sample_rate, channels=spec.channels, start=start, num_samples=spec.num_samples
        )
        return Clip(picture.frames, sound.waveform, spec.fps, spec.sample_rate)
    sound = read_audio(path, start=start)
    length = round(len(picture.frames) / picture.fps * sound.sample_rate)
    wave = np.pad(sound.waveform, ((0, 0), (0, max(length - sound.waveform.shape[1], 0))))[:, :length]
    return Clip(picture.frames, wave, picture.fps, sound.sample_rate)


def write_mp4(
    path: str | Path, clip: Clip, *, crf: int = 18, audio_bitrate: int = 192_000, keyframe_seconds: float = 1.0
) -> Path:
    """Write a clip as H.264 and AAC in MP4, the index first; aside, then renamed.

    Both streams start at 0; the sound is cut or filled with silence to the picture's end. Sizes must be even; sample
    rates that AAC lacks are resampled to the next higher one; what exceeds [-1, 1] is clipped, with a warning.

    Errors: `ValueError` where the clip cannot be written.
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path}: this is a folder; name the file to write in it")
    height, width = clip.frames.shape[1:3]
    if not clip.num_frames:
        raise ValueError(f"{path}: the clip has no frames")
    if height % 2 or width % 2:
        raise ValueError(f"{path}: H.264 needs even sizes, not {width}x{height}; crop or pad the frames by one pixel")
    if clip.waveform.shape[0] not in LAYOUTS:
        raise ValueError(f"{path}: {clip.waveform.shape[0]} audio channels; write 1 or 2")
    if path.parent.exists() and not path.parent.is_dir():
        raise ValueError(f"{path}: {path.parent} is a file, not a folder; choose another place")
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.stem}.{uuid.uuid4().hex}.partial.mp4")
    try:
        with av.open(str(aside), "w", format="mp4", options={"movflags": "+faststart"}) as container:
            video = _video_stream(container, clip, crf, keyframe_seconds)
            rate = next((r for r in AAC_RATES if r >= clip.sample_rate), AAC_RATES[-1])
            audio = container.add_stream("aac", rate=rate, layout=LAYOUTS[clip.waveform.shape[0]])
            audio.bit_rate = audio_bitrate
            _mux(container, video, audio, clip, _sound_for(clip, rate, path))
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
    return path


def _video_stream(container, clip: Clip, crf: int, keyframe_seconds: float):
    height, width = clip.frames.shape[1:3]
    stream = container.add_stream("libx264", rate=clip.fps, options={"crf": str(crf), "preset": "medium", "bf": "0"})
    stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
    context = stream.codec_context
    context.time_base = 1 / clip.fps
    context.gop_size = max(round(keyframe_seconds * clip.fps), 1)
    context.thread_count = 1  # the same bytes on every machine
    context.color_primaries = context.color_trc = context.colorspace = BT709
    context.color_range = 1
    return stream


def _sound_for(clip: Clip, rate: int, path: Path) -> np.ndarray:
    """Return the clip's sound at `rate`, as long as its picture, within full scale."""
    wave = clip.waveform
    if not np.isfinite(wave).all():
        raise ValueError(f"{path}: the sound holds values that are not numbers")
    if np.abs(wave).max(initial=0) > 1:
        get_logger().warning("%s: sound beyond full scale is clipped", path.name)
        wave = wave.clip(-1, 1)
    if rate != clip.sample_rate:
        wave = soxr.resample(wave.T, clip.sample_rate, rate, quality="HQ").T.clip(-1, 1)
    length = round(clip.duration_seconds * rate)
    return np.pad(wave, ((0, 0), (0, max(length - wave.shape[1], 0))))[:, :length].astype(np.float32)


def _mux(container, video, audio, clip: Clip, wave: np.ndarray) -> None:
    """Encode second by second, so that the streams lie interleaved."""
    per_block = max(round(clip.fps), 1)
    heard = 0
    for begin in range(0, clip.num_frames, per_block):
        frames = clip.frames[begin : begin + per_block]
        for number, image in enumerate(frames, start=begin):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            frame = frame.reformat(
                format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG", interpolation=EXACT_COLOURS
            )
            frame.pts, frame.time_base = number, 1 / clip.fps
            container.mux(video.encode(frame))
        until = round((begin + len(frames)) / clip.fps * audio.rate)
        sound = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(wave[:, heard:until]), format="fltp", layout=audio.layout.name
        )
        sound.sample_rate, sound.pts, sound.time_base = audio.rate, heard, Fraction(1, audio.rate)
        if until > heard:
            container.mux(audio.encode(sound))
        heard = until
    container.mux(video.encode(None))
    container.mux(audio.encode(None))
