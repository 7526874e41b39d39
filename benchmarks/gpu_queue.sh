#!/usr/bin/env bash
# Runs worth a GPU, the most wanted first, each in a line of OUT/queue.jsonl. Re-run the
# queue to resume it; `python -m daad_jax table`
# makes the tables.
#
#   SPEED=1 MVTEC=FOLDER MNIST=FOLDER CIFAR10=FOLDER OUT=runs/gpu benchmarks/gpu_queue.sh [FLAG ...]
#
# Parts whose folder is not given are left out; SPEED is the comparison with PyTorch, which
# SPEED_CASES=32:4:1 and SPEED_FLAGS="--widths=4,8 --items=10 --page=COPY" make a toy. CATEGORIES
# and SEEDS choose among MVTec AD's categories and the seeds; STEPS=2 cuts the comparison of ways to
# feed the device short. FLAGS go to every run of the grid:
# --config.train.epochs=100 for a first look, or a
# toy size to try the queue on a CPU:
#
#   benchmarks/gpu_queue.sh --config.train.steps=2 "--config.model.widths=(4,4,4,4)" \
#     --config.memory.items=10 --config.discriminator.width=4
set -uo pipefail
cd "$(dirname "$0")/.."

out=${OUT:-runs/gpu}
failed=0
grid() {
  ${PYTHON:-python} -m daad_jax grid --results="$out/queue.jsonl" --seeds="${SEEDS:-0}" \
    "$@" || failed=1
}

if [ -n "${SPEED:-}" ]; then # needs a PyTorch for the GPU; writes docs/performance.md
  for precision in float32 bfloat16; do
    # shellcheck disable=SC2086
    ${PYTHON:-python} benchmarks/speed.py --cases="${SPEED_CASES:-256:8:8,256:64:8}" \
      --precision=$precision --section="gpu $precision" ${SPEED_FLAGS:-} || failed=1
  done
fi
if [ -n "${MVTEC:-}" ]; then # the paper's 256 px
  mvtec=(--config=configs/mvtec.py --config.data.root="$MVTEC" --categories="${CATEGORIES:-screw}")
  grid "${mvtec[@]}" "$@" --settings=daad_plus,daad,ae # Tables 1, 3 and 5
  grid "${mvtec[@]}" "$@" --settings=daad_plus \
    --variant="train.steps=${STEPS:-1000} data.on_device=no" \
    --variant="train.steps=${STEPS:-1000}" # see timings.jsonl
  grid "${mvtec[@]}" "$@" --settings=daad \
    --variant='memory.division_rates=(16,16,1)' --variant='memory.division_rates=(4,4,1)' \
    --variant='memory.division_rates=(2,2,1)' --variant='memory.division_rates=(1,1,1)' # Table 4
  grid "${mvtec[@]}" "$@" --settings=memae,ae_skip,memae_skip # Table 3, Figure 2
fi
if [ -n "${MNIST:-}" ]; then # Table 2
  grid --config=configs/mnist.py --config.data.root="$MNIST" --categories=all "$@"
fi
if [ -n "${CIFAR10:-}" ]; then
  grid --config=configs/cifar10.py --config.data.root="$CIFAR10" --categories=all "$@"
fi
exit $failed
