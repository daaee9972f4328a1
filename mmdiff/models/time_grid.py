"""One time grid: which latent steps of sound are heard during which latent step of picture, in exact fractions."""

from bisect import bisect_left, bisect_right
from dataclasses import astuple, dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class TimeGrid:
    """How long latent steps last, in seconds; the first ones may be shorter (causal codecs). Both streams begin at 0.

    Errors: `ValueError` where a step does not last longer than nothing.
    """

    video_step: Fraction
    first_video_step: Fraction
    audio_step: Fraction
    first_audio_step: Fraction

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            object.__setattr__(self, name, Fraction(value))
            if getattr(self, name) <= 0:
                raise ValueError(f"time grid: {name} is {value} s; it must be more than 0")

    @classmethod
    def of(cls, video_codec, audio_codec, fps: Fraction, sample_rate: int) -> "TimeGrid":
        """Return the grid of two codecs, from the rates that they state; sound without one (None) has steps of 1 s."""
        steps = []
        for codec, rate in ((video_codec, fps), (audio_codec, sample_rate)):
            step = Fraction(1) if codec is None else 1 / codec.latent_rate(rate)
            steps += [step, 1 / Fraction(rate) if codec is not None and codec.starts_with_one else step]
        return cls(*steps)

    def words(self) -> tuple[str, ...]:
        """Return the four lengths as text, of which `TimeGrid(*words)` is this grid again."""
        return tuple(str(value) for value in astuple(self))

    def video_bounds(self, count: int) -> list[Fraction]:
        """Return where `count` steps of the picture begin, and where the last ends: `count + 1` times in seconds."""
        return [_time(number, self.first_video_step, self.video_step) for number in range(count + 1)]

    def audio_bounds(self, count: int, factor: int = 1) -> list[Fraction]:
        """Return the same for `count` steps of the sound, each of `factor` latent steps made one."""
        return [_time(number * factor, self.first_audio_step, self.audio_step) for number in range(count + 1)]

    def heard(self, num_frames: int, num_steps: int, factor: int = 1) -> list[range]:
        """Return for each step of the picture the steps of the sound that sound during it, be it in part.

        What sounds after the picture's end is in none.

        Errors: `ValueError` where the sound ends before the last step of the picture begins.
        """
        video, audio = self.video_bounds(num_frames), self.audio_bounds(num_steps, factor)
        if audio[-1] <= video[-2]:
            raise ValueError(f"time grid: {num_steps} steps of sound last {float(audio[-1]):.3f} s, and the last of "
                             f"{num_frames} steps of picture begins at {float(video[-2]):.3f} s; give as much sound as "
                             f"picture")  # fmt: skip
        return [
            range(bisect_right(audio, begin) - 1, min(bisect_left(audio, end), num_steps))
            for begin, end in pairwise(video)
        ]

    def frames_of(self, num_frames: int, num_steps: int, factor: int = 1) -> list[int]:
        """Return for each step of the sound the step of the picture during which its middle sounds, or the last."""
        video, audio = self.video_bounds(num_frames), self.audio_bounds(num_steps, factor)
        middles = [(begin + end) / 2 for begin, end in pairwise(audio)]
        return [min(bisect_right(video, middle) - 1, num_frames - 1) for middle in middles]

    def places(self, num_frames: int, num_steps: int) -> list[float]:
        """Return where each step of the sound begins, in steps of the picture: 2.5 is in the middle of the third."""
        video = self.video_bounds(num_frames)
        frames = [min(bisect_right(video, begin) - 1, num_frames - 1) for begin in self.audio_bounds(num_steps)[:-1]]
        return [
            float(frame + (begin - video[frame]) / (video[frame + 1] - video[frame]))
            for frame, begin in zip(frames, self.audio_bounds(num_steps))
        ]

    def is_even(self, factors: tuple[int, ...] = (1,)) -> bool:
        """Say whether every step of the picture lasts the same whole number of the sound's, at every `factor`."""
        is_plain = self.first_video_step == self.video_step and self.first_audio_step == self.audio_step
        return is_plain and all((self.video_step / self.audio_step / factor).denominator == 1 for factor in factors)


@dataclass(frozen=True)
class Hearing:
    """What frames `f` with a window read of the sound: the places `f m` of its steps, of which `is_heard` are meant."""

    index: Tensor
    is_heard: Tensor


@dataclass(frozen=True)
class Seeing:
    """The steps of the sound in groups, one a frame: `index` is `f m`, filled up; `place` says where each step went."""

    index: Tensor
    place: Tensor


@torch.compiler.disable  # plain arithmetic on sizes: nothing for a compiler
@lru_cache(maxsize=256)
@torch.inference_mode(False)  # what is kept must serve training too
def hearing(grid: TimeGrid, num_frames: int, num_steps: int, factor: int, window: int) -> Hearing:
    """Return what each frame and the `window - 1` after it, around the circle, hear together; each step once."""
    heard = grid.heard(num_frames, num_steps, factor)
    windows = [
        sorted({step for offset in range(window) for step in heard[(frame + offset) % num_frames]})
        for frame in range(num_frames)
    ]
    return Hearing(*_filled(windows))


@torch.compiler.disable  # plain arithmetic on sizes: nothing for a compiler
@lru_cache(maxsize=256)
@torch.inference_mode(False)
def seeing(grid: TimeGrid, num_frames: int, num_steps: int, factor: int) -> Seeing:
    """Return the steps of the sound by the frame during which they sound."""
    groups: list[list[int]] = [[] for _ in range(num_frames)]
    for step, frame in enumerate(grid.frames_of(num_frames, num_steps, factor)):
        groups[frame].append(step)
    index, is_meant = _filled(groups)
    places = is_meant.flatten().nonzero()[:, 0]
    return Seeing(index, places[index.flatten()[places].argsort()])


@torch.compiler.disable  # plain arithmetic on sizes: nothing for a compiler
@lru_cache(maxsize=256)
def num_heard(grid: TimeGrid, num_frames: int, num_steps: int, factor: int) -> int:
    """Return how many steps of the sound begin before the picture ends."""
    return grid.heard(num_frames, num_steps, factor)[-1].stop


@torch.compiler.disable  # plain arithmetic on sizes: nothing for a compiler
@lru_cache(maxsize=16)
@torch.inference_mode(False)
def places(grid: TimeGrid, num_frames: int, num_steps: int) -> Tensor:
    """Return `TimeGrid.places` as a tensor."""
    return torch.tensor(grid.places(num_frames, num_steps))


def denoised(
    network: nn.Module, noisy: dict[str, Tensor], timesteps: dict[str, Tensor], **options
) -> dict[str, Tensor]:
    """Return what a network predicts for sound of any length, where the network has a time grid.

    The sound is filled up with zeros, the mean of latents, to what the levels divide, and what is predicted there is
    cut off: noise and loss know nothing of it.
    """
    length = noisy["audio"].shape[-1] if "audio" in noisy else 0
    missing = -length % network.settings.audio_divisor if network.config.get("time_grid") else 0
    if not missing:
        return network(noisy, timesteps, **options)
    if "audio" in (given := options.get("given") or {}):
        options["given"] = {**given, "audio": F.pad(given["audio"], (0, missing))}
    output = network({**noisy, "audio": F.pad(noisy["audio"], (0, missing))}, timesteps, **options)
    return {**output, "audio": output["audio"][..., :length]}


def _filled(rows: list[list[int]]) -> tuple[Tensor, Tensor]:
    """Return rows as one array, filled up with 0, and which of its values are the rows' own."""
    length = max(len(row) for row in rows)
    index = torch.tensor([row + [0] * (length - len(row)) for row in rows])
    return index, torch.arange(length) < torch.tensor([len(row) for row in rows])[:, None]


def _time(number: int, first: Fraction, step: Fraction) -> Fraction:
    return first + (number - 1) * step if number else Fraction(0)
