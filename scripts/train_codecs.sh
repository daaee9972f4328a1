#!/usr/bin/env bash
# Make released codecs and measure them: footage, both trainings, one folder (about half an hour on two CPU cores).
# checkpoints/README.md says what came out. Usage: scripts/train_codecs.sh impacts|freedoom [OUT], default
# checkpoints/codec-NAME.
set -euo pipefail
cd "$(dirname "$0")/.."
name=${1:?"usage: scripts/train_codecs.sh impacts|freedoom [OUT]"}
out=${2:-checkpoints/codec-$name}
bin=.venv/bin

scripts/make_footage.sh "$name"
$bin/python scripts/fit_codecs.py "runs/$name" "runs/codec-fitted-$name" # what there is to beat

export OMP_NUM_THREADS=1
for modality in video audio; do
  $bin/mmdiff train configs/autoencoder/$modality.yaml data.path="runs/$name" output_dir="runs/$modality-$name" &
done
wait

$bin/python scripts/join_codecs.py "runs/video-$name/export" "runs/audio-$name/export" "$out"
$bin/python scripts/measure_codecs.py "runs/$name-held-out" "runs/codec-fitted-$name" "$out" | tee "$out/figures.txt"
