#!/usr/bin/env bash
# Train on N GPUs of this host (of several hosts: torchrun's --nnodes and --rdzv-endpoint, and a folder all see).
# Killed, the same line goes on where it stopped.
#   examples/torchrun.sh IMAGES RUN N [TRAIN OPTIONS…]
set -euo pipefail
images=$1 run=$2 count=$3
shift 3
torchrun --standalone --nproc-per-node "$count" -m wbctool train "$images" -o "$run" "$@" > /dev/null
wbctool evaluate "$run"
