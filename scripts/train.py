"""Train under torchrun: `torchrun --standalone --nproc_per_node=2 scripts/train.py CONFIG key=value ...`.

torchrun ends with status 1 whatever the status of its ranks: one that a signal stopped leaves the file that the
environment variable MMDIFF_STOPPED names, for scripts/train_several_nodes.sh.
"""

import os
import sys
from pathlib import Path

import torch

from mmdiff.cli import main
from mmdiff.train.stop import STOPPED_STATUS

if __name__ == "__main__":
    status = main(["train", *sys.argv[1:]])
    if status == STOPPED_STATUS and "MMDIFF_STOPPED" in os.environ:
        Path(os.environ["MMDIFF_STOPPED"]).touch()
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    sys.exit(status)
