#!/usr/bin/env bash
# Train on several machines: start the same command on each, with one of them as HEAD. The same commands resume.
#   NODES=4 HEAD=node-1:29500 scripts/train_several_nodes.sh CONFIG key=value ...
# RANKS=2: so many processes on each machine (default: one for each GPU). PYTHON: which Python (default: .venv's).
# SIGTERM, SIGUSR1 and Ctrl-C on any machine stop them all after the step and save; the status is then 75 on each.
set -euo pipefail
cd "$(dirname "$0")/.."
: "${NODES:?how many machines?}" "${HEAD:?host:port of one of the machines, the same on all?}" "${1:?which recipe?}"

# torchrun says 1 whatever its ranks say: they leave this file where they were stopped.
export MMDIFF_STOPPED
MMDIFF_STOPPED=$(mktemp -u "${TMPDIR:-/tmp}/mmdiff-stopped.XXXXXX")
# It ends ranks that do not end in time; the default of 30 seconds may be short for a large checkpoint.
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=${TORCH_ELASTIC_SHUTDOWN_TIMEOUT:-600}

is_interrupted=true
# torchrun hands SIGTERM on to its ranks, but not SIGUSR1 in all of its versions; Ctrl-C it hears from the terminal.
trap 'is_interrupted=true; kill -TERM $(jobs -p) 2>/dev/null || true' TERM USR1
trap 'is_interrupted=true' INT
"${PYTHON:-.venv/bin/python}" -m torch.distributed.run --nnodes="$NODES" --nproc_per_node="${RANKS:-gpu}" \
  --rdzv_backend=c10d --rdzv_endpoint="$HEAD" --rdzv_id="${RUN_ID:-mmdiff}" scripts/train.py "$@" &
torchrun=$!
while $is_interrupted; do  # a signal ends `wait`, but not the run
  is_interrupted=false
  status=0
  wait "$torchrun" || status=$?
done
if [ -e "$MMDIFF_STOPPED" ]; then
  rm -f "$MMDIFF_STOPPED"
  status=75
fi
exit "$status"
