"""Train under torchrun: `torchrun --standalone --nproc_per_node=2 scripts/train.py CONFIG key=value ...`."""

import sys

from mmdiff.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
