#!/usr/bin/env bash
# Make the released codecs and measure them: their footage, both trainings, one folder (about half an hour on two CPU cores).
# checkpoints/README.md says what came out. Usage: scripts/train_codecs.sh [OUT], default checkpoints/codec-impacts.
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-checkpoints/codec-impacts}
bin=.venv/bin

$bin/mmdiff-data synthesize impacts runs/impacts -n 120 --seed 0 --workers 2
$bin/mmdiff-data synthesize impacts runs/held-out -n 8 --seed 777 --split-fractions 0.1,0.1,0.8 --workers 2
$bin/python scripts/fit_codecs.py runs/impacts runs/codec # what there is to beat

export OMP_NUM_THREADS=1
$bin/mmdiff train configs/autoencoder/video.yaml &
$bin/mmdiff train configs/autoencoder/audio.yaml
wait $!

$bin/python scripts/join_codecs.py runs/video-autoencoder/export runs/audio-autoencoder/export "$out"
$bin/python scripts/measure_codecs.py runs/held-out runs/codec "$out" | tee "$out/figures.txt"
