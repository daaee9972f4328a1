"""What a sampling command asks for, and which process makes what of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from mmdiff.media import ClipSpec
from mmdiff.pipelines.prompt import Guidance


@dataclass(frozen=True)
class Place:
    """This process among those that torchrun started: generation i is made by rank i % world_size.

    Errors: `ValueError` where the numbers cannot be.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.world_size or self.local_rank < 0:
            raise ValueError(f"rank {self.rank} of {self.world_size} (local {self.local_rank}): no such place; "
                             "RANK, WORLD_SIZE and LOCAL_RANK are torchrun's to set")  # fmt: skip

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "Place":
        """Read torchrun's RANK, WORLD_SIZE and LOCAL_RANK; without them there is one process."""
        rank = int(environment.get("RANK", 0))
        return cls(rank, int(environment.get("WORLD_SIZE", 1)), int(environment.get("LOCAL_RANK", rank)))


@dataclass(frozen=True)
class Condition:
    """What a generation is made for: a window of a file's picture or sound; `shown` is the path as it was typed."""

    modality: str
    path: Path
    shown: str
    start: Fraction


@dataclass(frozen=True)
class Request:
    """The clip to make, that part of it which a file gives, and the spans of seconds to make again all the same."""

    spec: ClipSpec
    given: ClipSpec
    regenerate: dict[str, tuple[Fraction, Fraction]]
    overlap: int | None = None  # frames
    prompts: tuple[str, ...] = ()  # of generations 0, 1, ... and so on again
    guidance: Guidance = None

    def prompts_of(self, indices: range) -> list[str] | None:
        """Return the prompts of some generations, None where there are none."""
        return [self.prompts[index % len(self.prompts)] for index in indices] if self.prompts else None
