#!/usr/bin/env bash
# Runs worth a GPU, the most wanted first. Re-run the queue to resume it; on several GPUs run it once
# for each, with CUDA_VISIBLE_DEVICES: the processes share the lists of runs.
#
#   SPEED=1 DATA=FOLDER OUT=runs/gpu benchmarks/gpu_queue.sh [FLAG ...]
#
# DATA holds mvtec/CATEGORY, mnist and cifar10 as in docs/grid.md. SPEED is the comparison with
# PyTorch, which SPEED_CASES=32:4:1 and SPEED_FLAGS="--widths=4,8 --items=10 --page=COPY" make a toy.
# CATEGORIES and SEEDS choose among MVTec AD's categories and the seeds; STEPS=2 cuts the comparison
# of ways to feed the device short. FLAGS go to every run: --config.train.epochs=100 for a first
# look, or a toy size to try the queue on a CPU:
#
#   benchmarks/gpu_queue.sh --config.train.steps=2 "--config.model.widths=(4,4,4,4)" \
#     --config.memory.items=10 --config.discriminator.width=4
set -uo pipefail
cd "$(dirname "$0")/.."

out=${OUT:-runs/gpu}
failed=0
reproduce() { # ITEM SCALE FLAG ...
  local item=$1 scale=$2
  shift 2
  ${PYTHON:-python} -m daad_jax reproduce "$item" --scale="$scale" --data="$DATA" \
    --output="$out/$scale" --seeds="${SEEDS:-0}" "$@" || failed=1
}

if [ -n "${SPEED:-}" ]; then # needs a PyTorch for the GPU; writes docs/performance.md
  for precision in float32 bfloat16; do
    # shellcheck disable=SC2086
    ${PYTHON:-python} benchmarks/speed.py --cases="${SPEED_CASES:-256:8:8,256:64:8}" \
      --precision=$precision --section="gpu $precision" ${SPEED_FLAGS:-} || failed=1
  done
fi
if [ -n "${DATA:-}" ]; then
  categories=${CATEGORIES:-screw}
  reproduce table3 paper --categories="$categories" "$@" # with Table 1's DAAD+
  ${PYTHON:-python} -m daad_jax grid --results="$out/feeding.jsonl" --config=configs/mvtec.py \
    --config.data.root="$DATA/mvtec" --categories="$categories" --seeds="${SEEDS:-0}" "$@" \
    --variant="train.steps=${STEPS:-1000} data.on_device=no" \
    --variant="train.steps=${STEPS:-1000}" || failed=1 # see timings.jsonl
  reproduce table4 paper --categories="$categories" "$@"
  reproduce table5 paper --categories="$categories" "$@"
  for figure in figure2 figure5 figure6; do
    reproduce $figure paper --categories="$categories" "$@"
  done
  reproduce table2 small "$@"
fi
exit $failed
