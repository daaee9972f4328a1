"""Start one or more ranks of a toy run in processes of their own, and read what they wrote."""

import json
import multiprocessing
import os
import socket
import sys
from pathlib import Path
from typing import Any
from unittest import mock

from toy import ToyRecipe, run_toy

TIMES = ("examples_per_second", "elapsed_seconds")
LIMIT_SECONDS = 200


def run_ranks(recipe: ToyRecipe, num_ranks: int = 1, dying_rank: int = 0, **how: Any) -> list[int]:
    """Run the toy in `num_ranks` processes (gloo); return their exit statuses, negative for a signal.

    `how` says when `dying_rank` dies, as `run_toy` takes it. The processes are forked from one that has imported torch.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["launch", "torch._dynamo"])  # which optimizers import at their first step
    port = _free_port()
    ranks = []
    for rank in range(num_ranks):
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": num_ranks, "LOCAL_WORLD_SIZE": num_ranks,
                 "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port} if num_ranks > 1 else {}  # fmt: skip
        ranks.append(context.Process(target=_run_rank, args=(recipe, place, how if rank == dying_rank else {})))
    with mock.patch.dict(os.environ, PYTHONPATH=os.pathsep.join(filter(None, sys.path))):  # for the preloading server
        for rank in ranks:
            rank.start()
    ranks[dying_rank].join(LIMIT_SECONDS)
    for rank in ranks:
        if ranks[dying_rank].exitcode:
            rank.kill()  # as torchrun ends the others when one has died
        rank.join(LIMIT_SECONDS)
        if rank.exitcode is None:
            rank.kill()
    return [rank.exitcode for rank in ranks]


def read_metrics(folder: Path) -> list[dict[str, float]]:
    """Return every line of a run's metrics, without what a clock decides."""
    lines = (Path(folder) / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [{name: value for name, value in json.loads(line).items() if name not in TIMES} for line in lines]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _run_rank(recipe: ToyRecipe, place: dict[str, Any], how: dict[str, Any]) -> None:
    os.environ.update({name: str(value) for name, value in place.items()})
    raise SystemExit(run_toy(recipe, **how))
