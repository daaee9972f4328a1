#!/usr/bin/env bash
# Make the small released text-to-image model and what measures it, and compare the methods of personalization on it: stills
# and their captions, an autoencoder (10 minutes of a CPU core), the model (an hour), a CLIP (20 minutes), the sweep (20).
# Usage: scripts/train_stills.sh [OUT], default checkpoints: OUT/stills, OUT/stills-clip.
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-checkpoints}
bin=.venv/bin

$bin/python scripts/draw_stills.py data/stills
$bin/python scripts/begin_image_model.py data/stills/train runs/stills-random
$bin/mmdiff train configs/personalize/stills_base.yaml
$bin/python scripts/train_small_clip.py data/stills/train runs/stills-clip
for pair in "runs/stills/export stills" "runs/stills-clip stills-clip"; do
  read -r from name <<< "$pair"
  rm -rf "$out/$name.new"
  $bin/python scripts/release_pipeline.py "$from" "$out/$name.new"
  rm -rf "$out/$name" # only now: nothing is lost where the step above fails
  mv "$out/$name.new" "$out/$name"
done
cp runs/stills/{metrics.jsonl,recipe.yaml} "$out/stills"
$bin/mmdiff personalize sweep configs/personalize/sweeps/stills.yaml pretrained_model_name_or_path="$out/stills" weights.clip="$out/stills-clip" -o runs/sweep-stills
