"""What every feature extractor is: a name, what it takes, what it gives, and the hash of its weights."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar

import numpy as np
import soxr
import torch
from torch import Tensor

from mmdiff.media import Clip
from mmdiff.pretrained import Weights

RESAMPLER = "soxr HQ"


@dataclass(frozen=True)
class InputRate:
    """What an extractor feeds its network: frames per second and height x width, samples per second and channels."""

    fps: Fraction | None = None  # None: every frame as it is
    size: tuple[int, int] | None = None
    sample_rate: int | None = None
    channels: int = 1


class Extractor(ABC):
    """Turns clips into named float32 arrays whose first axis counts what was taken from the clip (1 for a whole clip).

    `name` goes into every number made from it. `inputs` says which of video, audio and text it looks at. `outputs` maps
    each array's name to its axes. `version` rises when code changes what comes out: cached features are then made anew.
    """

    name: ClassVar[str]
    inputs: ClassVar[frozenset[str]]
    outputs: ClassVar[Mapping[str, str]]
    rate: ClassVar[InputRate]
    licence: ClassVar[str] = ""  # of the published weights, where it binds what users may do
    version: ClassVar[int] = 1

    def __init__(self, weights: Weights, device: torch.device | str = "cpu") -> None:
        self.weights = weights
        self.device = torch.device(device)

    @abstractmethod
    def extract(self, clips: Sequence[Clip]) -> list[dict[str, np.ndarray]]:
        """Return every clip's arrays.

        Errors: `ValueError` that says why, for a clip that is too short, silent where that matters, or lacks a side.
        """

    def embed_text(self, prompts: Sequence[str]) -> np.ndarray:
        """Return text embeddings `s d` in the space of the clips' embeddings; only with text among `inputs`."""
        raise ValueError(f"{self.name}: has no text encoder")


def sound_at(clip: Clip, sample_rate: int) -> np.ndarray:
    """Return a clip's sound as mono float32 `n` at a rate: channels are averaged, then soxr HQ resamples."""
    mono = clip.waveform.mean(0, dtype=np.float64).astype(np.float32)
    if clip.sample_rate == sample_rate:
        return mono
    return soxr.resample(mono, clip.sample_rate, sample_rate, quality="HQ")


def frames_at(clip: Clip, fps: Fraction | None, num_frames: int | None = None) -> np.ndarray:
    """Return uint8 frames `f h w 3` at a rate: each is the frame shown at i / fps; all of them where `fps` is None.

    With `num_frames`, that many from the start, the last one repeated where the clip ends before.
    """
    if fps is None:
        indices = np.arange(clip.num_frames)
    else:
        count = max(int(clip.duration_seconds * fps), 1)
        indices = np.array([int(Fraction(i) / fps * clip.fps) for i in range(count)])
    if num_frames is not None:
        indices = np.pad(indices[:num_frames], (0, max(num_frames - len(indices), 0)), mode="edge")
    return clip.frames[np.minimum(indices, clip.num_frames - 1)]


def to_array(x: Tensor) -> np.ndarray:
    """Return a tensor as a float32 array on the CPU."""
    return x.detach().to("cpu", torch.float32).numpy()
