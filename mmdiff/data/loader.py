"""The loader: an endless stream of batches whose position is part of the checkpoint."""

import signal
import warnings

from torchdata.stateful_dataloader import StatefulDataLoader

from mmdiff.data.clips import DataConfig, WindowDataset, WindowStream
from mmdiff.media import ClipSpec


def build_loader(
    config: DataConfig,
    spec: ClipSpec,
    *,
    split: str,
    batch_size: int,
    seed: int,
    rank: int = 0,
    world_size: int = 1,
) -> StatefulDataLoader:
    """Return an endless loader of this rank's batches; `state_dict` and `load_state_dict` are exact.

    A batch holds video `b c f h w` and audio `b c n`, float32 in [-1, 1], and lists of keys, starts and captions.
    """
    dataset = WindowDataset(
        config, spec, split=split, batch_size=batch_size, seed=seed, rank=rank, world_size=world_size
    )
    return as_loader(dataset, config.num_workers)


def as_loader(dataset: WindowStream, num_workers: int) -> StatefulDataLoader:
    """Return the loader of a stream, whose worker processes let a run stop in order."""
    warnings.filterwarnings("ignore", message="'set_vital' is deprecated")  # torchdata's, on newer torch
    return StatefulDataLoader(dataset, batch_size=None, num_workers=num_workers, worker_init_fn=outlive_one_signal)


def outlive_one_signal(worker: int) -> None:
    """Let this process ignore its first SIGTERM: schedulers send it to all processes of a run, which then saves.

    The run's own process ends its workers when it has done so, and with a second one where they do not listen.
    """
    signal.signal(signal.SIGTERM, lambda number, frame: signal.signal(number, signal.SIG_DFL))
