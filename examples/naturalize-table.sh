#!/usr/bin/env bash
# What composites bring, as the table of the Naturalize paper has it: a network trained on the real images, and on
# them with each of its sets; the same real images test all.
#   examples/naturalize-table.sh PBC OUT [TRAIN OPTIONS…]
# PBC is the folder of its 8 classes, whose file names say which of the 11 each image is. SETS may be set.
set -euo pipefail
pbc=$1 out=$2
shift 2
train() { wbctool train "${@:2}" -o "$out/run-$1" --recipe naturalize-11-class > /dev/null; }
runs=()
for name in ${SETS:-419-pmy 1k 2k 1k-class}; do
  "$(dirname "$0")/naturalize-sets.sh" "$pbc" "$out" "$name" > /dev/null
  [ ${#runs[@]} -gt 0 ] || { train real "$out/pruned.jsonl" "$@" && runs=("$out/run-real"); }
  train "$name" "$out/pruned.jsonl" "$out/$name" "$@"
  runs+=("$out/run-$name")
done
wbctool evaluate "${runs[@]}" --baseline "$out/run-real"
