#!/usr/bin/env bash
# How much of a published accuracy comes from copies: the same images and training, split at random and with all
# copies of an original on one side.
#   examples/random-or-by-original.sh IMAGES OUT [TRAIN OPTIONS…]
# IMAGES is laid out as the public "Blood Cell Images": TRAIN/EOSINOPHIL/_17_203.jpeg is copy 203 of original 17.
set -euo pipefail
images=$1 out=$2
shift 2
original='(?P<set>TRAIN|TEST)[A-Z_]*/(?P<class>[A-Z]+)/_(?P<number>\d+)_'
mkdir -p "$out"
wbctool split "$images" --ratio 70/10/20 > "$out/at-random.jsonl"
wbctool split "$images" --ratio 70/10/20 --group-regex "$original" > "$out/by-original.jsonl"
for split in at-random by-original; do
  wbctool train "$out/$split.jsonl" -o "$out/$split" "$@" > /dev/null
done
wbctool evaluate "$out/at-random" "$out/by-original"
