#!/usr/bin/env bash
# Segment a large folder by a Slurm array of 16 jobs; then `wbctool crop OUT -o cells/` reads all shards together.
#   sbatch examples/slurm-array.sh SMEARS OUT
# A job that was killed or timed out is started again as it was; what it had done is kept.
#SBATCH --job-name=wbctool-segment
#SBATCH --array=1-16
#SBATCH --cpus-per-task=8
#SBATCH --mem=8G
#SBATCH --time=04:00:00
#SBATCH --requeue
set -euo pipefail
shard=$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT
wbctool segment "$1" -o "$2" --shard "$shard" --jobs "${SLURM_CPUS_PER_TASK:-1}" > /dev/null
