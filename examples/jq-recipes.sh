#!/usr/bin/env bash
# What jq does between two steps.
#   examples/jq-recipes.sh SMEARS RUN OUT
set -euo pipefail
smears=$1 run=$2 out=$3
mkdir -p "$out"
wbctool segment "$smears" -o "$out/masks" > "$out/masks.jsonl"

echo "# fields with one white cell"
jq -c 'select([.cells[]? | select(.kind == "wbc")] | length == 1)' "$out/masks.jsonl" > "$out/single.jsonl"
wc -l < "$out/single.jsonl"

echo "# nucleus to cell area, of each white cell, as CSV"
jq -r '.id as $id | .cells[]? | select(.kind == "wbc" and .nucleus) | [$id, .nucleus.area / .area] | @csv' \
  "$out/masks.jsonl" > "$out/ratio.csv"
head -3 "$out/ratio.csv"

echo "# red cells that touch nothing, by label"
jq -s -c 'group_by(.label)[] | {label: .[0].label, whole: [.[].cells[]? | select(.whole)] | length}' "$out/masks.jsonl"

echo "# two classes made one, and a key of your own that stays in the records to the end"
jq -c 'if .label == "band" then .label = "neutrophil" else . end | .scanner = "A"' "$out/single.jsonl" |
  wbctool crop - -o "$out/cells" > "$out/cells.jsonl"

echo "# what went wrong, one line each"
jq -r 'select(.schema == "wbctool.error/1") | .error' "$out/cells.jsonl"

echo "# predictions a person should look at: unsure ones first"
wbctool predict "$run" "$out/cells.jsonl" > "$out/predictions.jsonl"
jq -s -r 'sort_by(.confidence)[:3][] | [.confidence, .predicted, .label, .path] | @tsv' "$out/predictions.jsonl"

echo "# a figure for a script"
wbctool evaluate "$out/predictions.jsonl" --split all --json | jq '{accuracy, macro_f1, interval: .intervals.macro_f1}'
