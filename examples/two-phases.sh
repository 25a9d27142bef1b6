#!/usr/bin/env bash
# ResNet50 with CBAM in two phases, as the paper on it: its head alone, then the last 80 layers as well; the table of
# both and the report by class.
#   examples/two-phases.sh IMAGES OUT [TRAIN OPTIONS…]
# IMAGES is a folder with a sub-folder per class. The paper mixes the TRAIN and TEST folders of the public "Blood Cell
# Images" and splits them at random; examples/random-or-by-original.sh shows what that hides.
set -euo pipefail
images=$1 out=$2
shift 2
mkdir -p "$out"
wbctool split "$images" --ratio 70/15/15 > "$out/split.jsonl"
train() { wbctool train "$out/split.jsonl" -o "$out/$1" --recipe resnet50-cbam-two-phase "${@:2}" > /dev/null; }
train head --unfreeze none "$@"
train two-phases "$@"
wbctool evaluate "$out/head" "$out/two-phases"
wbctool evaluate "$out/two-phases"
