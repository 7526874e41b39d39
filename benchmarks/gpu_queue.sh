#!/usr/bin/env bash
# Runs worth a GPU, the most wanted first. Each goes on where it stopped, so the script can be
# stopped at any time and called again.
#
#   MVTEC=FOLDER MNIST=FOLDER CIFAR10=FOLDER OUT=runs/gpu benchmarks/gpu_queue.sh [FLAG ...]
#
# FLAGs go to every train.py, for example --config.train.steps=20 to try the queue on a CPU.
set -uo pipefail
cd "$(dirname "$0")/.."

out=${OUT:-runs/gpu}
category=${CATEGORY:-screw}
failed=0
run() {
  local name=$1
  shift
  echo "== $name"
  python train.py --workdir="$out/$name" "$@" || failed=$((failed + 1))
}

if [ -n "${MVTEC:-}" ]; then
  mvtec=(--config.data.root="$MVTEC" --config.data.category="$category")
  for setting in daad_plus daad ae memae ae_skip memae_skip; do
    run "$category-$setting" --config=configs/mvtec.py:$setting "${mvtec[@]}" "$@"
  done
  for rate in 16 4 2 1; do # the paper's Table 4; 8 is the setting above
    run "$category-daad-rate$rate" --config=configs/mvtec.py:daad "${mvtec[@]}" \
      --config.memory.division_rates="($rate,$rate,1)" "$@"
  done
fi
if [ -n "${MNIST:-}" ]; then
  run mnist --config=configs/mnist.py --config.data.category=all --config.data.root="$MNIST" "$@"
fi
if [ -n "${CIFAR10:-}" ]; then
  run cifar10 --config=configs/cifar10.py --config.data.category=all \
    --config.data.root="$CIFAR10" "$@"
fi
echo "$failed run(s) failed"
exit $((failed > 0))
