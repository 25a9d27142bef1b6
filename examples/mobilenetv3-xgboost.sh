#!/usr/bin/env bash
# MobileNetV3-Small with CBAM, whose features go to XGBoost: the recipe of the efficientnetv2s-cbam-all paper, beside
# what morphology adds.
#   examples/mobilenetv3-xgboost.sh CELLS OUT [TRAIN OPTIONS…]
# CELLS are crops with masks and splits, such as examples/prepare-dataset.sh makes. The paper enhances its smears
# first: `wbctool enhance smears/ -o even/ --clahe --reinhard REFERENCE`.
set -euo pipefail
cells=$1 out=$2
shift 2
mkdir -p "$out"
wbctool train "$cells" -o "$out/network" --recipe mobilenetv3s-cbam-xgboost "$@" > /dev/null
fuse() { wbctool xgboost-fuse "${@:2}" "$cells" -o "$out/$1" --features "$out/features" > /dev/null; }
fuse xgboost "$out/network" --start none                  # the paper's: trees in place of the last layer
fuse morphology --morphology                              # what cells measure, and no network
fuse xgboost+morphology "$out/network" --start none --morphology
fuse mended "$out/network" --morphology                   # trees that mend the network's answer
wbctool evaluate "$out/network" "$out/xgboost" "$out/morphology" "$out/xgboost+morphology" "$out/mended"
