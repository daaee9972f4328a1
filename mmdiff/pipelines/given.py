"""What a caller gives of a clip: checked, brought to the clip's length, with a mark on every frame and sample kept."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from einops import repeat
from torch import Tensor

from mmdiff.media import ClipSpec

Span = tuple[Fraction | float, Fraction | float]


@dataclass(frozen=True)
class Content:
    """One modality, given: uint8 `b f h w 3` or float32 `b c n` of the clip's length, zeros where nothing is given.

    `kept` says of every frame or sample whether it is to come back as it is.
    """

    values: np.ndarray
    kept: np.ndarray

    @property
    def is_whole(self) -> bool:
        """Whether nothing is to be generated."""
        return bool(self.kept.all())


def check_given(
    values: Mapping[str, Any], count: int | None, spec: ClipSpec, regenerate: Mapping[str, Span] | None
) -> tuple[dict[str, Content], int]:
    """Return what is given, each with `count` clips, and that number: as many as are given, else 1.

    `values` names every modality that there is, None where nothing of it is given. What is shorter than the clip is its
    beginning. `regenerate` names a span of seconds in a modality that is given.

    Errors: `ValueError` where the type, size or number is wrong, or nothing is left to generate.
    """
    if count is not None and count < 1:
        raise ValueError(f"num_generations is {count}; ask for at least 1")
    arrays = {name: _batched(name, value, spec) for name, value in values.items() if value is not None}
    stray = [name for name in regenerate or {} if name not in arrays]
    if stray:
        raise ValueError(f"regenerate: no {stray[0]} is given, so all of it is generated; "
                         "regenerate names a span of video or audio that is given")  # fmt: skip
    num_given = max((len(value) for value in arrays.values()), default=1)
    count = count or num_given
    if any(len(value) not in (1, count) for value in arrays.values()):
        raise ValueError(f"{num_given} clips are given for {count} generations; give one, or one for each")
    contents = {
        name: _fitted(name, repeat(array, "1 ... -> b ...", b=count) if len(array) == 1 else array, spec,
                      (regenerate or {}).get(name))
        for name, array in arrays.items()
    }  # fmt: skip
    if len(contents) == len(values) and all(content.is_whole for content in contents.values()):
        raise ValueError(f"{' and '.join(values)} given whole: there is nothing to generate; give less, or say with "
                         "regenerate or num_frames what is missing")  # fmt: skip
    return contents, count


def _fitted(name: str, array: np.ndarray, spec: ClipSpec, span: Span | None) -> Content:
    """Bring an array to the clip's length, and mark what of it is kept."""
    axis, rate, length = (1, spec.fps, spec.num_frames) if name == "video" else (2, spec.sample_rate, spec.num_samples)
    kept = np.arange(length) < array.shape[axis]
    padding = [(0, 0)] * array.ndim
    padding[axis] = (0, length - array.shape[axis])
    if span is not None:
        start, end = (_seconds(value) for value in span)
        if not 0 <= start < end <= spec.duration_seconds:
            raise ValueError(f"regenerate: {float(start)} to {float(end)} s of {name} is no span of a clip of "
                             f"{float(spec.duration_seconds)} s")  # fmt: skip
        kept[math.floor(start * rate) : math.ceil(end * rate)] = False
    return Content(np.pad(array, padding) if padding[axis][1] else array, kept)


def _seconds(value: Any) -> Fraction:
    """Return seconds exactly: 0.8 means 4/5."""
    try:
        return Fraction(str(value)) if isinstance(value, float) else Fraction(value)
    except (ValueError, TypeError, ZeroDivisionError) as error:
        raise ValueError(f"regenerate: {value!r} is not a time in seconds; give a span such as (0.4, 0.8)") from error


def _batched(name: str, value: Any, spec: ClipSpec) -> np.ndarray:
    """Return a given modality as an array with a batch axis, checked against the size of the clip."""
    array = value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)
    if name == "video":
        shape, letters, kind = (spec.num_frames, spec.height, spec.width, 3), "frames height width 3", "uint8"
        is_right_kind, axis, hint = array.dtype == np.uint8, -4, "read_video(path, pipe.clip).frames gives it"
    else:
        shape, letters, kind = (spec.channels, spec.num_samples), "channels samples", "float"
        is_right_kind, axis = np.issubdtype(array.dtype, np.floating), -1
        hint = "read_audio(path, sample_rate=..., channels=..., num_samples=...).waveform gives it"
    is_right = is_right_kind and array.ndim - len(shape) in (0, 1)
    if is_right:
        expected = list(shape)
        expected[axis] = min(array.shape[axis], shape[axis])
        is_right = list(array.shape[-len(shape) :]) == expected
    if not is_right:
        raise ValueError(
            f"{name}: {array.dtype} {array.shape} is given; this clip takes {kind} {shape} ({letters}) or a shorter "
            f"beginning of it, with or without a batch axis; {hint}"
        )
    if name == "audio" and not np.isfinite(array).all():
        raise ValueError("audio: holds values that are not numbers")
    array = array if array.ndim > len(shape) else array[None]
    if not array.size:
        raise ValueError(f"{name}: an empty batch is given")
    return array if name == "video" else array.astype(np.float32, copy=False)
