#!/usr/bin/env bash
# EfficientNetV2-S with CBAM and focal loss beside four plain networks, over repeated 70:30 splits: the table of the
# blood-cancer paper, each figure as mean ± standard deviation.
#   examples/effnetv2s-cbam-focal.sh SMEARS OUT REFERENCE [TRAIN OPTIONS…]
# SMEARS is a folder with a sub-folder per class; REFERENCE an image of the stain that all are brought to. REPEATS
# (8) and NETWORKS may be set.
set -euo pipefail
smears=$1 out=$2 reference=$3
shift 3
wbctool enhance "$smears" -o "$out/even" --denoise nlm --reinhard "$reference" --clahe |
  wbctool segment - -o "$out/masks" |
  wbctool crop - -o "$out/cells" > /dev/null
many=(--repeats "${REPEATS:-8}" --ratio 70/30)
train() { wbctool train "$out/cells" -o "$out/$1" "${many[@]}" "${@:2}" > /dev/null; }
train cbam-focal --recipe effnetv2s-cbam-focal "$@"
runs=("$out"/cbam-focal/repeat-*)
for network in ${NETWORKS:-resnet50 densenet121 vgg16 inception_v3}; do
  train "$network" --recipe effnetv2s-cbam-focal --backbone "$network" --attention none --loss ce "$@"
  runs+=("$out/$network"/repeat-*)
done
wbctool evaluate "${runs[@]}"
