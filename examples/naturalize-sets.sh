#!/usr/bin/env bash
# From the PBC images (8 folders) to a training set of the Naturalize paper: 419-pmy, 1k, 2k or 1k-class.
#   examples/naturalize-sets.sh PBC OUT SET [NATURALIZE OPTIONS…]
# The 8 classes become 11 by the prefixes of the names; images without a subclass are left out, and so are those of
# the training images that show several white cells or the wrong one. Composites are added to the training split only;
# `--algorithm paper` makes them as the paper did.
set -euo pipefail
pbc=$1 out=$2 name=$3
shift 3
classes=BA,BNE,EO,ERB,LY,MMY,MO,MY,PLATELET,PMY,SNE
mkdir -p "$out"
wbctool segment "$pbc" -o "$out/masks" --label-regex "^(?P<label>${classes//,/|})_" |
  wbctool split - --ratio 80/10/10 --classes "$classes" > "$out/split.jsonl"
wbctool naturalize "$out/split.jsonl" -o "$out/$name" --pool "$out/pool" --set "$name" "$@" > "$out/$name.jsonl"
tail -n +2 "$out/pool/left-out.csv" | cut -d, -f1 | sed 's/.*/"id":"&"/' > "$out/left-out.txt"
grep -v -F -f "$out/left-out.txt" "$out/split.jsonl" > "$out/pruned.jsonl"
wbctool info "$out/$name"
echo "next: wbctool train $out/pruned.jsonl $out/$name -o $out/run-$name && wbctool evaluate $out/run-$name"
