#!/bin/sh
# Every segmentation method against experts' masks: the table of colour spaces, on real truth.
# Usage: colour-spaces.sh IMAGES TRUTH OUT [METHOD...]
set -eu
images=$1 truth=$2 out=$3
shift 3
[ $# -gt 0 ] || set -- unet stain cyan-otsu purple-index rgb hsv lab hed watershed
for method in "$@"; do
    wbctool segment "$images" -o "$out/$method" --method "$method" --quiet > /dev/null
done
for method in "$@"; do echo "$out/$method"; done | xargs wbctool evaluate --truth "$truth" --which central
