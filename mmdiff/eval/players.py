"""Players for the report: a clip's file -> data URIs of its MP4, spectrogram and film strip, and its marks."""

import base64
import io
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

from mmdiff.media import Clip, ClipSpec, probe, read_clip, write_mp4

MAX_SECONDS = 12  # longer files are shown from their start only
FLOOR_DB = -70
COLOURS = ((6, 6, 16), (46, 16, 92), (120, 28, 109), (188, 55, 84), (237, 105, 37), (251, 180, 26), (252, 250, 190))


@dataclass(frozen=True)
class Player:
    """What a page shows of one clip: data URIs (the poster is its first frame), size, duration, event times in s."""

    name: str
    mp4: str
    spectrogram: str
    strip: str
    poster: str
    duration_seconds: float
    height: int
    width: int
    audio_events: tuple[float, ...]
    video_events: tuple[float, ...]
    num_bytes: int


def make_player(
    path: Path, *, start: float, duration_seconds: float | None, fps: Fraction,
    audio_events: Sequence[float] = (), video_events: Sequence[float] = (), most_pixels: int | None = None,
) -> Player:  # fmt: skip
    """Read a clip's file and make its player.

    A file that lasts longer than `duration_seconds` is cut: `start` (seconds) is where the cut begins, and event times
    count from there. A picture of more than `most_pixels` either way is made smaller.

    Errors: `ValueError` where the file cannot be read.
    """
    info = probe(path)
    lasts = float(info.duration_seconds)
    wanted = min(duration_seconds or lasts, lasts - start, MAX_SECONDS)
    num_frames = max(round(wanted * fps), 1)
    is_cut = start > 0 or lasts > wanted + 1.5 / float(fps)
    scale = min(1, most_pixels / max(info.height, info.width)) if most_pixels else 1
    clip = _read_window(path, info, num_frames, fps, start, scale)
    data = _written(clip) if is_cut or scale < 1 else Path(path).read_bytes()
    seconds = num_frames / float(fps)
    spectrogram, strip = png(spectrogram_image(clip)), jpeg(film_strip(clip))
    poster = jpeg(Image.fromarray(clip.frames[0]))
    return Player(
        name=Path(path).stem if not is_cut else f"{Path(path).stem} from {start:.1f} s",
        mp4=data_uri("video/mp4", data),
        spectrogram=data_uri("image/png", spectrogram),
        strip=data_uri("image/jpeg", strip),
        poster=data_uri("image/jpeg", poster),
        duration_seconds=seconds,
        height=clip.frames.shape[1],
        width=clip.frames.shape[2],
        audio_events=tuple(t for t in audio_events if 0 <= t <= seconds),
        video_events=tuple(t for t in video_events if 0 <= t <= seconds),
        num_bytes=4 * (len(data) + len(spectrogram) + len(strip) + len(poster)) // 3,
    )


def _read_window(path: Path, info, num_frames: int, fps: Fraction, start: float, scale: float) -> Clip:
    """Read the frames that the page shows, with sound at a rate that they last a whole number of samples of."""
    sample_rate = info.sample_rate
    while (num_frames / fps * sample_rate).denominator != 1:
        num_frames -= 1
        if num_frames < 1:
            raise ValueError(f"{path}: no whole number of frames at {fps} fps fits its sample rate {sample_rate}")
    height, width = (max(int(size * scale) // 2 * 2, 2) for size in (info.height, info.width))  # what H.264 can write
    spec = ClipSpec(num_frames, fps, height, width, sample_rate, 1)
    return read_clip(path, spec, start=start)


def _written(clip: Clip) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        return write_mp4(Path(folder) / "cut.mp4", clip, crf=20, audio_bitrate=96_000).read_bytes()


def spectrogram_image(clip: Clip, *, num_columns: int = 320, num_rows: int = 72, n_fft: int = 512) -> Image.Image:
    """Draw a clip's sound: time to the right over exactly the picture's duration, pitch upwards on the mel scale.

    Column k shows the sound centred at (k + 1/2) / num_columns of the duration. Bright is loud; 70 dB below the
    loudest moment is black.
    """
    num_samples = int(clip.duration_seconds * clip.sample_rate)
    sound = np.zeros(num_samples, np.float64)
    mixed = clip.waveform.mean(axis=0)[:num_samples]
    sound[: len(mixed)] = mixed
    centres = ((np.arange(num_columns) + 0.5) / num_columns * num_samples).astype(int)
    windows = np.pad(sound, n_fft // 2)[centres[:, None] + np.arange(n_fft)]
    power = np.abs(np.fft.rfft(windows * np.hanning(n_fft), axis=1)) ** 2
    mel = np.linspace(0, 2595 * np.log10(1 + clip.sample_rate / 2 / 700), num_rows)
    bins = (10 ** (mel / 2595) - 1) * 700 / clip.sample_rate * n_fft
    loud = np.stack([np.interp(bins, np.arange(power.shape[1]), column) for column in power], axis=1)
    reference = max(loud.max(), (0.003 * n_fft / 4) ** 2)  # near silence stays dark instead of being amplified
    decibels = 10 * np.log10(np.maximum(loud / reference, 1e-9))
    levels = (np.clip(1 - decibels / FLOOR_DB, 0, 1) * 255).astype(np.uint8)[::-1]
    image = Image.fromarray(levels, "P")
    image.putpalette(_palette())
    return image


def _palette() -> list[int]:
    places = np.linspace(0, len(COLOURS) - 1, 256)
    columns = [np.interp(places, np.arange(len(COLOURS)), channel) for channel in zip(*COLOURS)]
    return np.stack(columns, axis=1).astype(np.uint8).ravel().tolist()


def film_strip(clip: Clip, *, most: int = 16, height: int = 64) -> Image.Image:
    """Put at most `most` frames side by side, each as wide as the time that it stands for."""
    count = min(most, clip.num_frames)
    chosen = [int((k + 0.5) * clip.num_frames / count) for k in range(count)]
    frames = clip.frames[chosen]
    width = max(round(height * frames.shape[2] / frames.shape[1]), 1)
    sampling = Image.Resampling.NEAREST if frames.shape[1] <= height else Image.Resampling.BOX
    small = [np.asarray(Image.fromarray(frame).resize((width, height), sampling)) for frame in frames]
    return Image.fromarray(np.concatenate(small, axis=1))


def png(image: Image.Image) -> bytes:
    """Return an image as a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def jpeg(image: Image.Image) -> bytes:
    """Return an image as a JPEG file."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def data_uri(kind: str, data: bytes) -> str:
    """Return a file as a URI that holds all of it."""
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"
