"""Clips for training: what a recipe says of them, and the endless stream of batches."""

from abc import abstractmethod
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from einops import rearrange

from mmdiff.data.stream import BatchStream
from mmdiff.data.windows import Window, WindowReader, fixed_windows, jittered_start, select_entries
from mmdiff.media import ClipSpec


@dataclass(frozen=True)
class ClipConfig:
    """The clip that a model is trained on, as a recipe writes it; `fps` may be "30000/1001"."""

    num_frames: int = 16
    fps: str = "10"
    height: int = 64
    width: int = 64
    sample_rate: int = 16_000
    channels: int = 1

    def spec(self) -> ClipSpec:
        """Return the exact specification."""
        return ClipSpec(**{**vars(self), "fps": Fraction(self.fps)})


@dataclass(frozen=True)
class DataConfig:
    """Where the clips lie, and how they are read.

    Errors: `ValueError` where a value is impossible.
    """

    path: str = "out/clips"
    latents: str | None = None  # what `mmdiff-data encode` made of the clips: read instead of them
    num_workers: int = 0
    flip_probability: float = 0.5
    cache_megabytes: int = 2048  # decoded files kept in memory, by all workers together

    def __post_init__(self) -> None:
        if not 0 <= self.flip_probability <= 1:
            raise ValueError(f"data.flip_probability is {self.flip_probability}; it must lie between 0 and 1")
        for name in ("num_workers", "cache_megabytes"):
            if getattr(self, name) < 0:
                raise ValueError(f"data.{name} is {getattr(self, name)}; it must be 0 or more")


class WindowStream(BatchStream):
    """Batches of windows: every epoch of the split "train" takes each once, in a new order, and `varied`.

    Other splits give their windows as they are and in order, again and again.
    """

    def __init__(self, windows: list[Any], *, split: str, batch_size: int, seed: int, rank: int = 0,
                 world_size: int = 1):  # fmt: skip
        super().__init__(batch_size=batch_size, seed=seed, rank=rank, world_size=world_size)
        self.windows = windows
        self.is_training = split == "train"
        self.order: tuple[int, np.ndarray] = (-1, np.empty(0, np.int64))

    @abstractmethod
    def varied(self, window: Any, chances: tuple[float, float]) -> Any:
        """Return a window as one epoch takes it, for chances in [0, 1)."""

    @abstractmethod
    def read(self, windows: list[Any]) -> dict[str, Any]:
        """Return the batch of these windows."""

    def batch(self, number: int) -> dict[str, Any]:
        """Return batch `number` of this rank."""
        base = (number * self.world_size + self.rank) * self.batch_size
        return self.read([self.window(base + offset) for offset in range(self.batch_size)])

    def window(self, position: int) -> Any:
        """Return the window at a position of the endless stream that all ranks share."""
        epoch, index = divmod(position, len(self.windows))
        if not self.is_training:
            return self.windows[index]
        if self.order[0] != epoch:
            self.order = epoch, np.random.default_rng((self.seed, epoch)).permutation(len(self.windows))
        window = self.windows[self.order[1][index]]
        return self.varied(window, tuple(np.random.default_rng((self.seed, epoch, index, 1)).random(2)))


class WindowDataset(WindowStream):
    """A stream of windows of clips: in training each starts at a random frame nearby, and may be mirrored.

    Errors: `ValueError` where the data cannot give such windows.
    """

    def __init__(self, config: DataConfig, spec: ClipSpec, *, split: str, **settings: Any):
        if config.latents is not None:
            raise ValueError("data.latents: pictures and sounds are needed here, and only the task joint trains on "
                             "latents; leave it out, and name the clips with data.path")  # fmt: skip
        entries = select_entries(config.path, split, spec)
        super().__init__(fixed_windows(entries, spec), split=split, **settings)
        self.config, self.spec = config, spec
        cache_bytes = config.cache_megabytes * 2**20 // max(config.num_workers, 1)
        self.reader = WindowReader(config.path, spec, entries, cache_bytes)

    def read(self, windows: list[Window]) -> dict[str, Any]:
        """Return video `b c f h w` and audio `b c n` in [-1, 1], keys, starts and captions ("" for none)."""
        clips = [self.reader.read(window) for window in windows]
        video = torch.from_numpy(np.stack([clip.frames for clip in clips]))
        return {
            "video": rearrange(video, "b f h w c -> b c f h w").float() / 127.5 - 1,
            "audio": torch.from_numpy(np.stack([clip.waveform for clip in clips])),
            "key": [window.entry.key for window in windows],
            "start": [float(window.start) for window in windows],
            "caption": [str(window.entry.caption or "") for window in windows],
        }

    def varied(self, window: Window, chances: tuple[float, float]) -> Window:
        """Return the window at a start nearby, mirrored with `flip_probability`."""
        start = jittered_start(window, self.spec, chances[0])
        return replace(window, start=start, is_flipped=bool(chances[1] < self.config.flip_probability))
