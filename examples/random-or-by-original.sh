#!/usr/bin/env bash
# How much of a published accuracy comes from copies: the same images and training, tested four ways.
#   examples/random-or-by-original.sh IMAGES OUT [TRAIN OPTIONS…]
# IMAGES is laid out as the public "Blood Cell Images": turned and sheared copies of 348 originals, those in TRAIN
# made of other originals than those in TEST.
#   at-random    all images split at random: copies of one original train and test, as in published figures;
#   by-number    those of one number in their names (_17_203.jpeg: 17) kept on one side; it looks like the
#                original's, but counts places in a batch, so that copies still train and test;
#   by-content   all images split at random, but copies that are found by looking at them kept on one side;
#   by-original  trained on TRAIN, tested on TEST.
# The audit then says of the first what it rests on.
set -euo pipefail
images=$1 out=$2
shift 2
number='(?P<set>TRAIN|TEST)[A-Z_]*/(?P<class>[A-Z]+)/_(?P<number>\d+)_'
mkdir -p "$out"
wbctool split "$images" --ratio 70/10/20 > "$out/at-random.jsonl"
wbctool split "$images" --ratio 70/10/20 --group-regex "$number" > "$out/by-number.jsonl"
wbctool split "$images" --ratio 70/10/20 --near-duplicates > "$out/by-content.jsonl"
for split in at-random by-number by-content; do
  wbctool train "$out/$split.jsonl" -o "$out/$split" "$@" > /dev/null
done
wbctool train "$images/TRAIN" -o "$out/trained-on-TRAIN" "$@" > /dev/null
wbctool predict "$out/trained-on-TRAIN" "$images/TEST" -o "$out/by-original.jsonl" > /dev/null
wbctool evaluate "$out/at-random" "$out/by-number" "$out/by-content" "$out/by-original.jsonl"
wbctool evaluate "$out/at-random" --audit | sed -n '/^Audit/,$p'
