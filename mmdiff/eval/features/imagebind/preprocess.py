"""What ImageBind's networks are fed: normalised frames, and Kaldi's log-mel pictures of two seconds of sound."""

import math
from fractions import Fraction

import numpy as np
import torch
from einops import rearrange
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from mmdiff.eval.features.imagebind.network import IMAGE_SIZE, N_MELS, NUM_MEL_FRAMES
from mmdiff.eval.features.logmel import htk_filters

IMAGE_MEAN = (0.48145466, 0.4578275, 0.40821073)  # of CLIP's training pictures
IMAGE_STD = (0.26862954, 0.26130258, 0.27577711)
SAMPLE_RATE = 16_000
FRAME_LENGTH = 400  # 25 ms
HOP_LENGTH = 160  # 10 ms
N_FFT = 512
LOWEST_HZ = 20.0
PREEMPHASIS = 0.97
LOG_FLOOR = float(np.finfo(np.float32).eps)
MEL_MEAN = -4.268
MEL_STD = 9.138
VIEW_SECONDS = 2
NUM_AUDIO_VIEWS = 3
NUM_VIDEO_VIEWS = 5
NUM_CROPS = 3


def kaldi_fbank(waveform: Tensor) -> Tensor:
    """Return Kaldi's log filter-bank energies `l m` of a waveform `n` at 16 kHz in [-1, 1], m = 1 + (n - 400) // 160.

    Frames that fit wholly; of each the mean is taken off, then pre-emphasis of 0.97 (the first sample against itself),
    a symmetric Hann window, the power of a 512-point Fourier transform, 128 triangles of height 1 from 20 Hz to 8 kHz
    with straight sides in mels, and the natural logarithm, floored at float32's epsilon. No dither.
    Source: Kaldi, feature-fbank.cc and mel-computations.cc; the settings are ImageBind's waveform2melspec.
    """
    frames = waveform.to(torch.float64).unfold(-1, FRAME_LENGTH, HOP_LENGTH)
    frames = frames - frames.mean(-1, keepdim=True)
    before = F.pad(frames[:, None], (1, 0), mode="replicate")[:, 0, :-1]
    window = torch.hann_window(FRAME_LENGTH, periodic=False, dtype=torch.float64)
    power = torch.fft.rfft((frames - PREEMPHASIS * before) * window, n=N_FFT).abs() ** 2
    mel = power @ htk_filters(SAMPLE_RATE, N_FFT, N_MELS, LOWEST_HZ, SAMPLE_RATE / 2)
    return rearrange(mel.clamp(min=LOG_FLOOR).log().to(torch.float32), "m l -> l m")


def mel_views(waveform: np.ndarray) -> Tensor:
    """Return pictures `v 1 128 204` of the first, middle and last two seconds of a waveform `n` at 16 kHz.

    Views that are the same (a waveform of up to two seconds has one) come once: their mean is the same. What a view
    lacks in length is zero in the log-mel picture, before it is normalised, as the published code has it.

    Errors: `ValueError` below 25 ms.
    """
    if len(waveform) < FRAME_LENGTH:
        raise ValueError(f"imagebind: {len(waveform)} samples at 16 kHz are no sound of 25 ms; give a longer clip")
    spare = max(Fraction(len(waveform), SAMPLE_RATE) - VIEW_SECONDS, Fraction(0))
    pictures = []
    for start in sorted({spare * i / (NUM_AUDIO_VIEWS - 1) for i in range(NUM_AUDIO_VIEWS)}):
        begin, end = int(start * SAMPLE_RATE), int((start + VIEW_SECONDS) * SAMPLE_RATE)
        mel = kaldi_fbank(torch.from_numpy(waveform[begin:end]))[:, :NUM_MEL_FRAMES]
        pictures.append(F.pad(mel, (0, NUM_MEL_FRAMES - mel.shape[1])))
    return (torch.stack(pictures)[:, None] - MEL_MEAN) / MEL_STD


def normalise(video: Tensor) -> Tensor:
    """Return pictures `... h w 3` in 0 .. 255 as `... 3 h w` with CLIP's mean and deviation taken out."""
    mean, std = torch.tensor(IMAGE_MEAN), torch.tensor(IMAGE_STD)
    return rearrange((video.to(torch.float32) / 255 - mean) / std, "... h w c -> ... c h w")


def still(frame: np.ndarray) -> Tensor:
    """Return a frame uint8 `h w 3` as a normalised still picture `3 224 224`, squared by `square`."""
    return normalise(torch.from_numpy(square(frame, IMAGE_SIZE)))


def square(frame: np.ndarray, size: int) -> np.ndarray:
    """Return a frame uint8 `h w 3` as `size size 3`: the short side scaled (bicubic, in 8 bits), the centre cut out."""
    picture = shortened(frame, size)
    top, left = (round((side - size) / 2) for side in picture.shape[:2])  # halves to even, as torchvision has it
    return picture[top : top + size, left : left + size].copy()


def shortened(frame: np.ndarray, size: int) -> np.ndarray:
    """Return a frame uint8 `h w 3` with a short side of `size` (bicubic, antialiased, in 8 bits)."""
    short = min(frame.shape[:2])
    height, width = (int(size * side / short) for side in frame.shape[:2])
    return np.array(Image.fromarray(frame).resize((width, height), Image.Resampling.BICUBIC))


def video_views(frames: np.ndarray, fps: Fraction) -> Tensor:
    """Return a video uint8 `f h w 3` as views `v 3 2 224 224`: five pieces of two seconds, three crops of each.

    The pieces are evenly spread; of each the first and the last frame are taken, scaled to a short side of 224
    (bilinear, no antialiasing), and cut at both ends and in the middle of the long side. Views that are the same (up to
    two seconds, or of a square picture) come once: their mean is the same.
    """
    spare = max(Fraction(len(frames)) / fps - VIEW_SECONDS, Fraction(0))
    views = []
    for start in sorted({spare * i / (NUM_VIDEO_VIEWS - 1) for i in range(NUM_VIDEO_VIEWS)}):
        first = min(math.ceil(start * fps), len(frames) - 1)
        last = max(min(math.ceil((start + VIEW_SECONDS) * fps), len(frames)) - 1, first)
        views += crops(scaled(frames[[first, last]]))
    return torch.stack(views)


def half_fps_views(frames: np.ndarray, fps: Fraction) -> Tensor:
    """Return a video uint8 `f h w 3` as views `v 3 2 224 224`: neighbours at 0.5 fps in 8 s, three crops of each.

    Frame i is the last one before 2 i + 1 s, as ffmpeg's filter fps=0.5 picks them. A clip of less than 3 s has only
    one (the published code takes none of these) and is seen as a still. Source: av-benchmark, video_dataset.py.
    """
    count = min(max(math.floor(len(frames) / fps / 2 + Fraction(1, 2)), 1), 4)
    picked = [min(math.ceil((2 * i + 1) * fps), len(frames)) - 1 for i in range(count)]
    small = normalise(torch.from_numpy(np.stack([shortened(frames[i], IMAGE_SIZE) for i in picked])))
    video = rearrange(small, "f c h w -> c f h w")
    pairs = [(i, min(i + 1, count - 1)) for i in range(max(count - 1, 1))]
    return torch.stack([crop for pair in pairs for crop in crops(video[:, list(pair)])])


def scaled(frames: np.ndarray) -> Tensor:
    """Return frames uint8 `f h w 3` as normalised `3 f h w` whose short side is 224 (bilinear, no antialiasing)."""
    height, width = frames.shape[1:3]
    if width < height:
        size = (math.floor(height / width * IMAGE_SIZE), IMAGE_SIZE)
    else:
        size = (IMAGE_SIZE, math.floor(width / height * IMAGE_SIZE))
    video = F.interpolate(normalise(torch.from_numpy(frames)), size=size, mode="bilinear", align_corners=False)
    return rearrange(video, "f c h w -> c f h w")


def crops(video: Tensor) -> list[Tensor]:
    """Return the first, middle and last square `... 224 224` along the long side of `... h w`; one of a square."""
    height, width = video.shape[-2:]
    top, left = (math.ceil((side - IMAGE_SIZE) / 2) for side in (height, width))
    if height > width:
        corners = [(0, left), (top, left), (height - IMAGE_SIZE, left)]
    else:
        corners = [(top, 0), (top, left), (top, width - IMAGE_SIZE)]
    return [video[..., y : y + IMAGE_SIZE, x : x + IMAGE_SIZE] for y, x in dict.fromkeys(corners)]
