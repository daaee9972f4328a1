"""The endless stream of batches that trainings read, whose state is one number."""

from abc import abstractmethod
from collections.abc import Iterator
from typing import Any

from torch.utils.data import IterableDataset, get_worker_info


class BatchStream(IterableDataset):
    """An endless stream of batches, of which this rank and worker yields its own; its state is one number.

    Batch k of a rank depends on (seed, rank, world size, k) alone, whatever the number of workers.

    Errors: `ValueError` where there can be no such batches.
    """

    def __init__(self, *, batch_size: int, seed: int, rank: int = 0, world_size: int = 1):
        if batch_size < 1 or not 0 <= rank < world_size:
            raise ValueError(f"loader: batch size {batch_size}, rank {rank} of {world_size}; give at least 1 of each")
        self.batch_size, self.seed = batch_size, seed
        self.rank, self.world_size = rank, world_size
        self.next_batch = 0

    @abstractmethod
    def batch(self, number: int) -> dict[str, Any]:
        """Return batch `number` of this rank."""

    def __iter__(self) -> Iterator[dict[str, Any]]:
        worker = get_worker_info()
        first, step = (worker.id, worker.num_workers) if worker else (0, 1)
        if self.next_batch % step != first:
            self.next_batch = first
        while True:
            number = self.next_batch
            self.next_batch = number + step
            yield self.batch(number)

    def state_dict(self) -> dict[str, int]:
        """Return where the stream stands."""
        return {"next_batch": self.next_batch}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on where a stream stood."""
        self.next_batch = state["next_batch"]
