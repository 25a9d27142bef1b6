#!/usr/bin/env bash
# Segment a large folder in N shards by GNU parallel, here or on the hosts of an --sshloginfile, and look at all.
#   examples/gnu-parallel.sh SMEARS OUT N [PARALLEL OPTIONS…]
set -euo pipefail
smears=$1 out=$2 count=$3
shift 3
parallel --halt soon,fail=1 "$@" \
  "wbctool segment '$smears' -o '$out' --shard {}/$count --jobs 1 --quiet > /dev/null" ::: $(seq "$count")
wbctool info "$out"
