#!/usr/bin/env bash
# Make the footage that released models are trained on and judged by: runs/NAME, and runs/NAME-held-out of other seeds.
# Usage: scripts/make_footage.sh impacts|freedoom. The latter needs `pip install -e '.[record]'` and Debian's libopenal1.
set -euo pipefail
cd "$(dirname "$0")/.."
data=.venv/bin/mmdiff-data
held_out="-n 8 --seed 777 --split-fractions 0.1,0.1,0.8" # 6 test files of 34 seconds hold 126 windows

case ${1:-} in
  impacts)
    $data synthesize impacts runs/impacts -n 120 --seed 0 --workers 2
    $data synthesize impacts runs/impacts-held-out $held_out --workers 2
    ;;
  freedoom)
    game="--scenarios defend_the_center --size 128x96 --channels 1 --sample-rate 16000 --workers 2"
    $data record runs/freedoom -n 100 --seed 0 $game
    $data record runs/freedoom-held-out $held_out $game
    ;;
  *)
    echo "usage: scripts/make_footage.sh impacts|freedoom" >&2
    exit 2
    ;;
esac
