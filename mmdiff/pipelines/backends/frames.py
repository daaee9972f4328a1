"""What pipelines return as frames, PIL, NumPy or tensors, batched or not, becomes uint8 `f h w 3`."""

import math
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mmdiff.media.video import fit
from mmdiff.pipelines.two_stage.protocols import Video

ROUNDING = 1e-2  # how far beyond [0, 1] a float may lie


def to_uint8_frames(output: Any, who: str) -> np.ndarray:
    """Return the first video of a pipeline's output as uint8 `f h w 3`.

    Taken are images of PIL, arrays `f h w c` and tensors `f c h w` (or `c f h w`), alone, in a list, or with a batch
    axis; floats lie in [0, 1].

    Errors: `ValueError` that says what was returned instead.
    """
    frames = output
    if isinstance(frames, list | tuple):
        frames = list(frames)
        if frames and isinstance(frames[0], list | tuple):
            frames = list(frames[0])  # a batch of lists
        if not frames:
            raise ValueError(f"{who} returned a video without frames")
        if all(isinstance(frame, Image.Image) for frame in frames):
            return np.stack([np.asarray(frame.convert("RGB")) for frame in frames])
        frames = _stacked(frames, who)
    is_tensor = isinstance(frames, Tensor)
    if is_tensor:
        frames = frames.detach().cpu()
        frames = (frames.float() if frames.is_floating_point() else frames).numpy()
    if not isinstance(frames, np.ndarray) or frames.ndim not in (4, 5):
        shape = getattr(frames, "shape", "")
        raise ValueError(f"{who} returned frames as {type(output).__name__} {shape}; known are images of PIL, arrays "
                         "b f h w c and tensors b f c h w")  # fmt: skip
    if frames.ndim == 5:
        frames = frames[0] if len(frames) else frames.reshape(0, *frames.shape[2:])
    return _to_bytes(_channels_last(frames, who, is_tensor=is_tensor), who)


def _stacked(items: list, who: str) -> np.ndarray | Tensor:
    """Return a list of frames `f ...`, or of videos `b f ...`, as one."""
    try:
        if all(isinstance(item, Tensor) for item in items):
            return items[0] if items[0].ndim == 4 else torch.stack(items)
        if all(isinstance(item, np.ndarray) for item in items):
            return items[0] if items[0].ndim == 4 else np.stack(items)
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"{who} returned frames of different sizes ({error})") from error
    raise ValueError(f"{who} returned frames as a list of {type(items[0]).__name__}")


def _channels_last(frames: np.ndarray, who: str, *, is_tensor: bool) -> np.ndarray:
    """Find the axis of colours: tensors have it before the picture, arrays after it."""
    for axis in (1, 0, 3) if is_tensor else (3, 1, 0):
        if frames.shape[axis] == 3:
            return np.moveaxis(frames, axis, 3)
    raise ValueError(f"{who} returned frames of shape {frames.shape}, none of whose axes holds red, green and blue")


def _to_bytes(frames: np.ndarray, who: str) -> np.ndarray:
    if frames.dtype == np.uint8:
        return frames
    if not np.issubdtype(frames.dtype, np.floating):
        raise ValueError(f"{who} returned frames of type {frames.dtype}; known are uint8, and floats in [0, 1]")
    if not np.isfinite(frames).all():
        raise ValueError(f"{who} returned frames that hold values which are not numbers (NaN or infinity); where the "
                         "model was loaded in float16, try --dtype bfloat16 or float32")  # fmt: skip
    if frames.size and (frames.min() < -ROUNDING or frames.max() > 1 + ROUNDING):
        raise ValueError(f"{who} returned frames from {frames.min():.3g} to {frames.max():.3g}; floats must lie in "
                         "[0, 1]")  # fmt: skip
    return (frames.clip(0, 1) * 255).round().astype(np.uint8)


def frames_at(video: Video, fps: Fraction, size: tuple[int, int]) -> np.ndarray:
    """Return the frames on screen at i / fps, as long as the video lasts, resized and cropped to (height, width)."""
    count = math.ceil(video.duration_seconds * fps)
    shown = [min(math.floor(number / fps * video.fps), video.num_frames - 1) for number in range(count)]
    fitted = {number: fit(video.frames[number], *size) for number in sorted(set(shown))}
    return np.stack([fitted[number] for number in shown])
