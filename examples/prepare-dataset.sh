#!/usr/bin/env bash
# From a folder of smears, with a sub-folder per class, to cells that carry their split.
#   examples/prepare-dataset.sh SMEARS OUT [GROUP_REGEX]
set -euo pipefail
smears=$1 out=$2 groups=${3:-}
mkdir -p "$out"
wbctool segment "$smears" -o "$out/masks" |
  wbctool split - --ratio 70/15/15 ${groups:+--group-regex "$groups"} > "$out/split.jsonl"
wbctool crop "$out/split.jsonl" -o "$out/cells" > /dev/null
wbctool info "$out/cells"
