#!/usr/bin/env bash
# Make the released model and measure it: its footage, codecs, training and sync (about 50 minutes on two CPU cores).
# checkpoints/README.md says what came out. Usage: scripts/train_released.sh [OUT], default checkpoints/impacts.
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-checkpoints/impacts}
bin=.venv/bin

$bin/mmdiff-data synthesize impacts runs/impacts -n 120 --seed 0 --workers 2
$bin/python scripts/fit_codecs.py runs/impacts runs/codec
$bin/mmdiff train configs/joint/impacts.yaml

rm -rf "$out"
mkdir -p "$(dirname "$out")"
cp -r runs/joint/export "$out"
cp runs/joint/metrics.jsonl runs/joint/recipe.yaml "$out"

# Seeds that training never saw: 6 test files of 34 seconds hold 126 windows.
$bin/mmdiff-data synthesize impacts runs/held-out -n 8 --seed 777 --split-fractions 0.1,0.1,0.8 --workers 2
rm -rf runs/generated
$bin/mmdiff sample "$out" -n 126 -o runs/generated/joint
$bin/mmdiff sample "$out" -n 126 -o runs/generated/video-to-audio --video runs/held-out
$bin/mmdiff sample "$out" -n 126 -o runs/generated/audio-to-video --audio runs/held-out
$bin/mmdiff evaluate sync runs/held-out runs/generated/* -o runs/sync | tee "$out/sync.txt"
cp runs/sync/sync.json "$out"
