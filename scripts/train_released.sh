#!/usr/bin/env bash
# Make a released model and measure it: footage, latents, training, sync and drift (about two hours on two CPU cores).
# checkpoints/README.md says what came out. Usage: scripts/train_released.sh impacts|freedoom [OUT], default
# checkpoints/NAME. Codecs are those that lie there; docs/latent.md says how such a folder is made from nothing.
set -euo pipefail
cd "$(dirname "$0")/.."
name=${1:?"usage: scripts/train_released.sh impacts|freedoom [OUT]"}
out=${2:-checkpoints/$name}
bin=.venv/bin
real=runs/$name-held-out
made=runs/generated/$name

scripts/make_footage.sh "$name"
$bin/mmdiff-data encode "runs/$name" "runs/latents-$name" --codecs "checkpoints/$name"
$bin/mmdiff train "configs/joint_latent/$name.yaml"

rm -rf "$out" "$made"
mkdir -p "$(dirname "$out")"
$bin/python scripts/release_model.py "runs/joint-latent-$name/export" "$out"
cp "runs/joint-latent-$name/metrics.jsonl" "runs/joint-latent-$name/recipe.yaml" "$out"

$bin/mmdiff sample "$out" -n 126 -o "$made/joint"
$bin/mmdiff sample "$out" -n 126 -o "$made/video-to-audio" --video "$real"
$bin/mmdiff sample "$out" -n 126 -o "$made/audio-to-video" --audio "$real"
$bin/mmdiff evaluate sync "$real" "$made"/{joint,video-to-audio,audio-to-video} -o "runs/sync-$name" | tee "$out/sync.txt"
cp "runs/sync-$name/sync.json" "$out"

$bin/mmdiff sample "$out" -n 6 --num-frames 340 --overlap 0.8 -o "$made/long"
$bin/mmdiff evaluate drift "$real" "$made/long" -o "runs/drift-$name" | tee "$out/drift.txt"
