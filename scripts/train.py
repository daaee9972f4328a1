"""Train under torchrun: `torchrun --standalone --nproc_per_node=2 scripts/train.py CONFIG key=value ...`."""

import sys

import torch

from mmdiff.cli import main

if __name__ == "__main__":
    status = main(["train", *sys.argv[1:]])
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    sys.exit(status)
