#!/usr/bin/env bash
# Make the released models that are told what to make, and compare them: footage, latents, three trainings of half an hour
# to 45 minutes of a CPU core each, then joint generation and the cascade (text -> video -> sound) on 50 held-out prompts.
# Usage: scripts/train_strikes.sh [OUT], default checkpoints: OUT/strikes, OUT/strikes-video, OUT/strikes-audio.
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-checkpoints}
bin=.venv/bin
made=runs/generated/strikes

$bin/mmdiff-data synthesize strikes runs/strikes -n 3000 --seed 0
$bin/mmdiff-data encode runs/strikes runs/latents-strikes --codecs checkpoints/impacts
release() { # RUN NAME
  rm -rf "$out/$2.new"
  $bin/python scripts/release_model.py "runs/$1/export" "$out/$2.new"
  cp "runs/$1/"{metrics.jsonl,recipe.yaml} "$out/$2.new"
  rm -rf "$out/$2" # only now: nothing is lost where the steps above fail
  mv "$out/$2.new" "$out/$2"
}
$bin/mmdiff train configs/v2a/strikes.yaml && release v2a-strikes strikes-audio
$bin/mmdiff train configs/t2v/strikes.yaml && release t2v-strikes strikes-video
$bin/mmdiff train configs/joint_latent/strikes.yaml && release joint-latent-strikes strikes

rm -rf "$made" && mkdir -p "$made"
$bin/python scripts/list_captions.py runs/strikes test | head -50 > "$made/prompts.txt"
$bin/mmdiff generate --prompts "$made/prompts.txt" -o "$made/cascade" --video-model "$out/strikes-video" --audio-model "$out/strikes-audio"
$bin/mmdiff generate --prompts "$made/prompts.txt" -o "$made/joint" --video-model "$out/strikes" --audio native
$bin/mmdiff evaluate runs/strikes "$made/joint" "$made/cascade" --num-training 0 -o runs/evaluation-strikes | tee "$out/strikes/evaluation.txt"
