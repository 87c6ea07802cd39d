#!/usr/bin/env bash
# Train in several processes, one per GPU (or on the CPU where there is none).
# Usage: tools/dist_train.sh CONFIG GPUS [arguments of train.py]
# Environment: PORT (29500); for several nodes also NNODES (1), NODE_RANK (0), MASTER_ADDR (127.0.0.1);
# PYTHON (python).
set -euo pipefail

if [[ $# -lt 2 || ! $2 =~ ^[1-9][0-9]*$ ]]; then
    echo "usage: $0 CONFIG GPUS [arguments of train.py]" >&2
    exit 2
fi
config=$1
gpus=$2
shift 2

exec "${PYTHON:-python}" -m torch.distributed.run \
    --nnodes="${NNODES:-1}" \
    --node_rank="${NODE_RANK:-0}" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" \
    --master_port="${PORT:-29500}" \
    --nproc_per_node="$gpus" \
    "$(dirname "${BASH_SOURCE[0]}")/train.py" "$config" --launcher pytorch "$@"
