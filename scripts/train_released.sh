#!/usr/bin/env bash
# Make the released model and measure it: footage, latents, training, sync and drift (about two hours on two CPU cores).
# checkpoints/README.md says what came out. Usage: scripts/train_released.sh [OUT], default checkpoints/impacts. Codecs
# are those that lie there; docs/latent.md says how such a folder is made from nothing.
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-checkpoints/impacts}
bin=.venv/bin
real=runs/impacts-held-out
made=runs/generated/impacts

scripts/make_footage.sh impacts
$bin/mmdiff-data encode runs/impacts runs/latents-impacts --codecs checkpoints/impacts
$bin/mmdiff train configs/joint_latent/impacts.yaml

rm -rf "$out.new" "$made"
mkdir -p "$(dirname "$out")"
$bin/python scripts/release_model.py runs/joint-latent-impacts/export "$out.new"
cp runs/joint-latent-impacts/{metrics.jsonl,recipe.yaml} "$out.new"
rm -rf "$out" # only now: its codecs were needed, and nothing is lost where the steps above fail
mv "$out.new" "$out"

$bin/mmdiff sample "$out" -n 126 -o "$made/joint"
$bin/mmdiff sample "$out" -n 126 -o "$made/video-to-audio" --video "$real"
$bin/mmdiff sample "$out" -n 126 -o "$made/audio-to-video" --audio "$real"
$bin/mmdiff evaluate sync "$real" "$made"/{joint,video-to-audio,audio-to-video} -o runs/sync-impacts | tee "$out/sync.txt"
cp runs/sync-impacts/sync.json "$out"

$bin/mmdiff sample "$out" -n 6 --num-frames 340 --overlap 0.8 -o "$made/long"
$bin/mmdiff evaluate drift "$real" "$made/long" -o runs/drift-impacts | tee "$out/drift.txt"
