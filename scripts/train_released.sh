#!/usr/bin/env bash
# Make the released model: its footage, its codecs, and its training (about 50 minutes on two CPU cores).
set -euo pipefail
cd "$(dirname "$0")/.."
.venv/bin/mmdiff-data synthesize impacts runs/impacts -n 120 --seed 0 --workers 2
.venv/bin/python scripts/fit_codecs.py runs/impacts runs/codec
OMP_NUM_THREADS=2 .venv/bin/mmdiff train configs/joint/impacts.yaml
