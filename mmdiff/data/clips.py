"""Windows: short stretches of long files, exactly as long in sound as in picture."""

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from torch.utils.data import IterableDataset, get_worker_info

from mmdiff.data.manifest import Entry, entry_path, read_manifest
from mmdiff.media import Clip, ClipSpec, read_audio, read_clip, read_video


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
    num_workers: int = 0
    flip_probability: float = 0.5
    cache_megabytes: int = 2048  # decoded files that each worker keeps in memory

    def __post_init__(self) -> None:
        if not 0 <= self.flip_probability <= 1:
            raise ValueError(f"data.flip_probability is {self.flip_probability}; it must lie between 0 and 1")


@dataclass(frozen=True)
class Window:
    """Where a training example comes from: an entry, the second at which it starts, and whether it is mirrored."""

    entry: Entry
    start: Fraction
    is_flipped: bool


def select_entries(folder: str | Path, split: str, spec: ClipSpec) -> list[Entry]:
    """Return a split's entries that can give windows of `spec`.

    Errors: `ValueError` where a source is in two splits, the split is empty, a file is too short, or its frame rate is
    lower than that of `spec`, so that frames would have to be repeated.
    """
    entries = read_manifest(Path(folder))
    splits: dict[str, str] = {}
    for entry in entries:
        if splits.setdefault(entry.source, entry.split) != entry.split:
            raise ValueError(f"{folder}: source '{entry.source}' is in two splits; each source belongs to one")
    chosen = [entry for entry in entries if entry.split == split]
    if not chosen:
        raise ValueError(f"{folder}: no clip in split '{split}'; it holds {sorted(set(splits.values()))}")
    slow = [entry.path for entry in chosen if entry.fps < spec.fps]
    if slow:
        raise ValueError(f"{slow[0]}: {chosen[0].fps} fps is below the {spec.fps} fps asked for; lower clip.fps")
    short = [entry.path for entry in chosen if entry.duration_seconds < spec.duration_seconds]
    if short:
        raise ValueError(f"{short[0]}: shorter than a window of {float(spec.duration_seconds)} s; lower num_frames")
    return chosen


class WindowReader:
    """Read windows, keeping decoded files in memory up to a number of bytes (the least recently used leave first)."""

    def __init__(self, folder: str | Path, spec: ClipSpec, cache_bytes: int):
        self.folder, self.spec, self.cache_bytes = Path(folder), spec, cache_bytes
        self.cache: OrderedDict[str, Clip] = OrderedDict()

    def read(self, window: Window) -> Clip:
        """Return the window as a clip of exactly `spec`."""
        spec, entry = self.spec, window.entry
        frame_bytes = spec.height * spec.width * 3
        if entry.num_frames * frame_bytes > self.cache_bytes // 4:
            clip = read_clip(entry_path(self.folder, entry), spec, start=window.start)
            frames, sound = clip.frames, clip.waveform
        else:
            whole = self._whole(entry)
            # Frames lie at k / fps: the one on screen at a time is the last that has begun.
            times = [window.start + time for time in spec.frame_times()]
            frames = whole.frames[[int(time * whole.fps) for time in times]]
            begin = round(window.start * spec.sample_rate)
            sound = whole.waveform[:, begin : begin + spec.num_samples]
            assert sound.shape[1] == spec.num_samples, f"{entry.path}: window {window.start} leaves the sound"
        if window.is_flipped:
            frames = frames[:, :, ::-1]
        return Clip(np.ascontiguousarray(frames), np.ascontiguousarray(sound), spec.fps, spec.sample_rate)

    def _whole(self, entry: Entry) -> Clip:
        if entry.key in self.cache:
            self.cache.move_to_end(entry.key)
            return self.cache[entry.key]
        path, spec = entry_path(self.folder, entry), self.spec
        picture = read_video(path, size=(spec.height, spec.width))
        sound = read_audio(path, sample_rate=spec.sample_rate, channels=spec.channels)
        clip = Clip(picture.frames, sound.waveform, picture.fps, spec.sample_rate)
        self.cache[entry.key] = clip
        while sum(c.frames.nbytes + c.waveform.nbytes for c in self.cache.values()) > self.cache_bytes:
            self.cache.popitem(last=False)
        return clip


def fixed_windows(entries: list[Entry], spec: ClipSpec) -> list[Window]:
    """Return consecutive windows, side by side from every file's start: what is measured and evaluated on."""
    windows = []
    for entry in entries:
        count = int(entry.duration_seconds / spec.duration_seconds)
        windows += [Window(entry, n * spec.duration_seconds, False) for n in range(count)]
    return windows


class WindowDataset(IterableDataset):
    """An endless stream of batches, of which this rank and worker yields its own; its state is one number.

    Batch k of a rank depends on (seed, rank, world size, k) alone, whatever the number of workers. Every epoch takes
    each window once, in a new order; in training each starts at a random frame and is mirrored with `flip_probability`.
    """

    def __init__(self, config: DataConfig, spec: ClipSpec, *, split: str, batch_size: int, seed: int,
                 rank: int = 0, world_size: int = 1):  # fmt: skip
        self.config, self.spec, self.batch_size = config, spec, batch_size
        self.seed, self.rank, self.world_size = seed, rank, world_size
        self.is_training = split == "train"
        self.windows = fixed_windows(select_entries(config.path, split, spec), spec)
        self.reader = WindowReader(config.path, spec, config.cache_megabytes * 2**20)
        self.next_batch = 0

    def __iter__(self) -> Iterator[dict[str, Any]]:
        worker = get_worker_info()
        first, step = (worker.id, worker.num_workers) if worker else (0, 1)
        if self.next_batch % step != first:
            self.next_batch = first
        while True:
            number = self.next_batch
            self.next_batch = number + step
            yield self.batch(number)

    def batch(self, number: int) -> dict[str, Any]:
        """Return batch `number` of this rank: video `b c f h w` and audio `b c n` in [-1, 1], keys and starts."""
        base = (number * self.world_size + self.rank) * self.batch_size
        windows = [self.window(base + offset) for offset in range(self.batch_size)]
        clips = [self.reader.read(window) for window in windows]
        video = torch.from_numpy(np.stack([clip.frames for clip in clips]))
        return {
            "video": rearrange(video, "b f h w c -> b c f h w").float() / 127.5 - 1,
            "audio": torch.from_numpy(np.stack([clip.waveform for clip in clips])),
            "key": [window.entry.key for window in windows],
            "start": [float(window.start) for window in windows],
        }

    def window(self, position: int) -> Window:
        """Return the window at a position of the endless stream that all ranks share."""
        epoch, index = divmod(position, len(self.windows))
        order = np.random.default_rng((self.seed, epoch)).permutation(len(self.windows))
        window = self.windows[order[index]]
        if not self.is_training:
            return window
        chance = np.random.default_rng((self.seed, epoch, index, 1))
        last = int((window.entry.duration_seconds - self.spec.duration_seconds) * window.entry.fps)
        start = Fraction(int(chance.integers(last + 1)), 1) / window.entry.fps
        return replace(window, start=start, is_flipped=bool(chance.random() < self.config.flip_probability))

    def state_dict(self) -> dict[str, int]:
        """Return where the stream stands."""
        return {"next_batch": self.next_batch}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on where a stream stood."""
        self.next_batch = state["next_batch"]
