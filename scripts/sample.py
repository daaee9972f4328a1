"""Sample under torchrun: `torchrun --standalone --nproc_per_node=2 scripts/sample.py MODEL -n 64 -o OUT ...`."""

import sys

from mmdiff.cli import main

if __name__ == "__main__":
    sys.exit(main(["sample", *sys.argv[1:]]))
