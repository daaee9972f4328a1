"""A clip longer than its backend's limit: overlapping windows of sound, joined by an equal-power cross-fade."""

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from mmdiff.media import Sound
from mmdiff.pipelines.two_stage.protocols import Progress, Video, VideoToAudio, check_sound
from mmdiff.pipelines.two_stage.sound import cross_fade, fit_sound, num_samples_of

MAX_OVERLAP_SHARE = 4  # windows overlap by at most a quarter of their length


@dataclass(frozen=True)
class Window:
    """Frames `start` to `stop` of a clip."""

    start: int
    stop: int


def plan_windows(
    num_frames: int, fps: Fraction, max_seconds: Fraction | None, overlap_seconds: Fraction
) -> list[Window]:
    """Return windows no longer than `max_seconds` that cover a clip and overlap by about `overlap_seconds` or more.

    All are equally long; the last one ends with the clip, and may overlap by more.

    Errors: `ValueError` where the limit is less than two frames.
    """
    length = num_frames if max_seconds is None else math.floor(max_seconds * fps)
    if num_frames <= length:
        return [Window(0, num_frames)]
    if length < 2:
        raise ValueError(f"this backend makes at most {float(max_seconds)} s of sound, less than two frames at {fps} "
                         "fps; use another backend")  # fmt: skip
    overlap = min(max(round(overlap_seconds * fps), 1), max(length // MAX_OVERLAP_SHARE, 1))
    starts = [*range(0, num_frames - length, length - overlap), num_frames - length]
    return [Window(start, start + length) for start in starts]


def sound_of(
    backend: VideoToAudio, video: Video, prompt: str, *, overlap_seconds: Fraction = Fraction(1), seed: int = 0,
    callback: Progress | None = None, **settings,
) -> Sound:  # fmt: skip
    """Return a backend's sound of a whole video, exactly as long as it, in as many windows as its limit asks for.

    The first window has the seed itself; each other one has a seed that is drawn from it, as the same noise would make
    all windows alike.

    Errors: `ValueError` where the backend returns anything but sound of that length and of the rate it states.
    """
    windows = plan_windows(video.num_frames, video.fps, backend.info.max_seconds, overlap_seconds)
    wave, rate, ends = None, None, 0
    for number, window in enumerate(windows):
        part = video if len(windows) == 1 else Video(video.frames[window.start : window.stop], video.fps)
        sound = backend(
            part, prompt, seed=window_seed(seed, number), callback=_scaled(callback, number, len(windows)), **settings
        )
        sound = check_sound(sound, backend.info, part)
        if rate is not None and (sound.sample_rate, sound.waveform.shape[0]) != (rate, wave.shape[0]):
            raise ValueError(f"video-to-audio backend {backend.info.name} returned windows of different rates or "
                             "numbers of channels")  # fmt: skip
        rate = int(sound.sample_rate)
        fitted = fit_sound(sound, part.duration_seconds).waveform
        if wave is None:
            wave = fitted
        else:
            begins = num_samples_of(window.start / video.fps, rate)
            fade = min(wave.shape[1] - begins, num_samples_of(overlap_seconds, rate))
            wave = cross_fade(wave, fitted[:, wave.shape[1] - fade - begins :], fade)
        ends = window.stop
    assert ends == video.num_frames
    return fit_sound(Sound(wave, rate), video.duration_seconds)


def window_seed(seed: int, number: int) -> int:
    """Return the seed of a window."""
    return seed if not number else int(np.random.SeedSequence([seed, number]).generate_state(1)[0])


def _scaled(callback: Progress | None, number: int, count: int) -> Progress | None:
    """Let one window of several count its own steps."""
    if callback is None:
        return None
    return lambda done, total: callback(number * total + done, count * total)
