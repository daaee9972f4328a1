#!/usr/bin/env bash
# Train on all GPUs of one machine. The same command resumes.
#   scripts/train_one_node.sh CONFIG key=value ...        RANKS=2: so many processes (default: one for each GPU)
# SIGTERM, SIGUSR1 and Ctrl-C finish the step and save; the status is then 75, as opposed to 0 for a finished run.
set -euo pipefail
NODES=1 HEAD=localhost:0 exec "$(dirname "$0")/train_several_nodes.sh" "$@"
