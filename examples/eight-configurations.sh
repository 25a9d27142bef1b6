#!/usr/bin/env bash
# The eight configurations of the attentive-CNN paper for a backbone: plain, CBAM, class weights (CW), focal loss
# (FL) and their unions, then the paper's table.
#   examples/eight-configurations.sh IMAGES OUT BACKBONE [TRAIN OPTIONS…]
# IMAGES are records with splits, such as `wbctool split cells/ --ratio 80/20 -o split.jsonl` makes.
set -euo pipefail
images=$1 out=$2 backbone=$3
shift 3
runs=()
for attention in none cbam; do
  for weights in none balanced; do
    for loss in ce focal; do
      name=$backbone
      [ $attention = cbam ] && name+=+CBAM
      [ $weights = balanced ] && name+=+CW
      [ $loss = focal ] && name+=+FL
      wbctool train "$images" -o "$out/$name" --recipe attentive-cnn-class-weight-focal --backbone "$backbone" \
        --attention $attention --class-weights $weights --loss $loss "$@" > /dev/null
      runs+=("$out/$name")
    done
  done
done
wbctool evaluate "${runs[@]}"
