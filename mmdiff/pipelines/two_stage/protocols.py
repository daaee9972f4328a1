"""What the two stages are, what they hand to each other, and what is checked of whatever a backend returns."""

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Protocol, runtime_checkable

import numpy as np

from mmdiff.log import get_logger
from mmdiff.media import Sound, as_fps
from mmdiff.pipelines.load_options import LoadOptions

__all__ = ["BackendInfo", "LoadOptions", "Progress", "TextToVideo", "Video", "VideoToAudio"]
Progress = Callable[[int, int], None]  # steps done, steps in all
# How far a sound's length may lie from its picture's: what is more comes from a wrong sample rate or the wrong file.
LENGTH_TOLERANCE = Fraction(1, 10)
LEAST_TOLERANCE_SECONDS = Fraction(1, 2)


@dataclass(frozen=True)
class Video:
    """Frames uint8 `f h w 3` (RGB) at `fps`, and the sound that a joint model made with them."""

    frames: np.ndarray
    fps: Fraction
    sound: Sound | None = None

    @property
    def num_frames(self) -> int:
        """Number of frames."""
        return self.frames.shape[0]

    @property
    def duration_seconds(self) -> Fraction:
        """Exact duration, in seconds."""
        return self.num_frames / self.fps


@dataclass(frozen=True)
class BackendInfo:
    """What a backend is: these facts go into the record beside every clip.

    `source` is what the user called the model; `revision` is a hub's commit or a program's version, `sha256` of all
    bytes of a local model. `sample_rate` (Hz) and `channels`, where given, are what its sound must have; a clip longer
    than `max_seconds` is made in windows. `needs_text`: an empty prompt is refused.
    """

    name: str
    source: str = ""
    revision: str | None = None
    sha256: str | None = None
    licence: str | None = None
    sample_rate: int | None = None
    channels: int | None = None
    max_seconds: Fraction | None = None
    needs_text: bool = True


@runtime_checkable
class TextToVideo(Protocol):
    """Stage 1. Where an argument is None the backend takes its model's own; `size` is (width, height).

    What it cannot make exactly (a size, a number of frames, a frame rate) it brings to the nearest that it can, and
    says so in the log. The same seed gives the same video. `callback` hears steps done and steps in all.
    """

    info: BackendInfo

    def __call__(
        self, prompt: str, *, negative_prompt: str | None = None, seconds: Fraction | None = None,
        fps: Fraction | None = None, size: tuple[int, int] | None = None, seed: int = 0,
        num_inference_steps: int | None = None, guidance_scale: float | None = None, callback: Progress | None = None,
    ) -> Video:  # fmt: skip
        """Return the video of a prompt."""


@runtime_checkable
class VideoToAudio(Protocol):
    """Stage 2: a sound as long as the video, which is never longer than `info.max_seconds`."""

    info: BackendInfo

    def __call__(
        self, video: Video, prompt: str, *, negative_prompt: str | None = None, seed: int = 0,
        num_inference_steps: int | None = None, guidance_scale: float | None = None, callback: Progress | None = None,
    ) -> Sound:  # fmt: skip
        """Return the sound of a video."""


def check_prompt(prompt: str, *backends: BackendInfo) -> None:
    """Refuse an empty prompt where a backend needs one.

    Errors: `ValueError` that names the backend.
    """
    needy = [info.name for info in backends if info.needs_text]
    if not prompt.strip() and needy:
        raise ValueError(f"the prompt is empty, and {needy[0]} needs one; say what is to be seen and heard")


def check_video(video: Any, info: BackendInfo) -> Video:
    """Return a backend's video, checked and cut to even sizes, which H.264 needs.

    Errors: `ValueError` that names the backend and what it returned instead.
    """
    who = f"text-to-video backend {info.name}"
    if not isinstance(video, Video):
        raise ValueError(f"{who} returned {type(video).__name__}; it must return a Video of frames and fps")
    frames = video.frames
    if not isinstance(frames, np.ndarray) or frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3:
        raise ValueError(f"{who} returned frames {_described(frames)}; they must be uint8 frames, height, width, 3")
    if not len(frames):
        raise ValueError(f"{who} returned a video without frames; ask for more seconds, or for another model")
    fps = _checked_fps(video.fps, who)
    height, width = (length // 2 * 2 for length in frames.shape[1:3])
    if not height or not width:
        raise ValueError(f"{who} returned frames of {frames.shape[2]}x{frames.shape[1]} pixels; the least is 2x2")
    if (height, width) != frames.shape[1:3]:
        get_logger().warning("%s: %dx%d is cut to %dx%d, as H.264 needs even sizes", info.name, frames.shape[2],
                             frames.shape[1], width, height)  # fmt: skip
    video = Video(np.ascontiguousarray(frames[:, :height, :width]), fps, video.sound)
    if video.sound is not None:
        _check_wave(video.sound, who, None, None)
        _check_length(video.sound, video, who)
    return video


def check_sound(sound: Any, info: BackendInfo, video: Video) -> Sound:
    """Return a backend's sound of a video, checked.

    Errors: `ValueError` that names the backend and what it returned instead.
    """
    who = f"video-to-audio backend {info.name}"
    _check_wave(sound, who, info.sample_rate, info.channels)
    _check_length(sound, video, who)
    return sound


def _check_wave(sound: Any, who: str, sample_rate: int | None, channels: int | None) -> None:
    if not isinstance(sound, Sound):
        raise ValueError(f"{who} returned {type(sound).__name__}; it must return a Sound of waveform and sample_rate")
    wave, rate = sound.waveform, sound.sample_rate
    if not isinstance(wave, np.ndarray) or wave.dtype != np.float32 or wave.ndim != 2 or not wave.size:
        raise ValueError(f"{who} returned a waveform {_described(wave)}; it must be float32 channels, samples")
    if wave.shape[0] not in (1, 2) or (channels is not None and wave.shape[0] != channels):
        raise ValueError(f"{who} returned {wave.shape[0]} channels of sound; it must return {channels or '1 or 2'}")
    if not isinstance(rate, int | np.integer) or rate < 1 or (sample_rate is not None and rate != sample_rate):
        raise ValueError(f"{who} returned sound at {rate} Hz; it must be at {sample_rate or 'a whole number of'} Hz")
    if not np.isfinite(wave).all():
        raise ValueError(f"{who} returned sound that holds values which are not numbers (NaN or infinity)")


def _check_length(sound: Sound, video: Video, who: str) -> None:
    lasts, wanted = Fraction(sound.waveform.shape[1], int(sound.sample_rate)), video.duration_seconds
    if abs(lasts - wanted) > max(LENGTH_TOLERANCE * wanted, LEAST_TOLERANCE_SECONDS):
        raise ValueError(f"{who} returned {float(lasts):.3f} s of sound for a picture of {float(wanted):.3f} s; is the "
                         f"sample rate, {sound.sample_rate} Hz, wrong?")  # fmt: skip


def _checked_fps(fps: Any, who: str) -> Fraction:
    try:
        return as_fps(fps)
    except ValueError as error:
        raise ValueError(f"{who} returned a wrong frame rate: {error}") from error


def _described(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {value.shape}"
    return f"of type {type(value).__name__}"
