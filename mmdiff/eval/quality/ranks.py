"""Several processes under torchrun: each measures its share of the clips, the first one reads what all have stored."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist

T = TypeVar("T")
PATIENCE = timedelta(hours=12)  # ranks wait for one another while one of them measures


@dataclass(frozen=True)
class Ranks:
    """This process's place among those that torchrun started; alone where it did not."""

    rank: int = 0
    world_size: int = 1

    @classmethod
    def start(cls) -> "Ranks":
        """Join the other processes, where there are some."""
        if int(os.environ.get("WORLD_SIZE", "1")) < 2:
            return cls()
        if not dist.is_initialized():
            dist.init_process_group("gloo", timeout=PATIENCE)
        return cls(dist.get_rank(), dist.get_world_size())

    @property
    def is_first(self) -> bool:
        """Whether this process makes the table."""
        return self.rank == 0

    def place(self, device: str) -> str:
        """Return this rank's device: each has a GPU of its own."""
        if device != "cuda" or self.world_size == 1:
            return device
        return f"cuda:{int(os.environ.get('LOCAL_RANK', '0')) % max(torch.cuda.device_count(), 1)}"

    def share(self, work: Callable[[Sequence[T]], object], items: Sequence[T]) -> None:
        """Do this rank's share of some work and wait for the others; nothing where it is alone."""
        if self.world_size > 1:
            work(items[self.rank :: self.world_size])
            dist.barrier()
