#!/usr/bin/env bash
# Segment and crop on a Dask cluster of N workers, here all on this host. On several, start `dask scheduler` on one and
# `dask worker tcp://HOST:8786` on each; all must see the same files and have the same wbctool.
#   examples/dask.sh SMEARS OUT N
set -euo pipefail
smears=$1 out=$2 count=$3
mkdir -p "$out"
trap 'kill $(jobs -p) 2> /dev/null || true' EXIT
dask scheduler --host 127.0.0.1 --port 0 --no-dashboard --scheduler-file "$out/dask.json" 2> "$out/scheduler.log" &
until address=$(grep -os 'tcp://[0-9.:]*' "$out/dask.json" | head -1) && [ "$address" ]; do sleep 0.2; done
for number in $(seq "$count"); do
  dask worker "$address" --nthreads 1 --no-dashboard --local-directory "$out" 2> "$out/worker-$number.log" &
done
wbctool segment "$smears" -o "$out/masks" --scheduler "$address" |
  wbctool crop - -o "$out/cells" --scheduler "$address" > /dev/null
wbctool info "$out/cells"
