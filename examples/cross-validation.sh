#!/usr/bin/env bash
# K-fold cross-validation of one configuration; further arguments go to `wbctool train`.
#   examples/cross-validation.sh CELLS OUT K [TRAIN OPTIONS…]
set -euo pipefail
cells=$1 out=$2 folds=$3
shift 3
mkdir -p "$out"
for fold in $(seq "$folds"); do
  wbctool split "$cells" --folds "$folds" --fold "$fold" > "$out/fold-$fold.jsonl"
  wbctool train "$out/fold-$fold.jsonl" -o "$out/run-$fold" "$@" > /dev/null
done
wbctool evaluate "$out"/run-*
