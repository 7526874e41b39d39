#!/usr/bin/env bash
# The runs behind docs/experiments.md. Re-run a part to resume it.
#
#   MVTEC=FOLDER MNIST=FOLDER CIFAR10=FOLDER OUT=runs/experiments benchmarks/experiments.sh PART ...
#
# A PART is sets, mnist_all, cifar10, restoration, length, six_settings, choices or stability.
# SEEDS=0,1 takes these seeds instead of the part's own, so that two processes can share a part.
set -uo pipefail
cd "$(dirname "$0")/.."

out=${OUT:-runs/experiments}
failed=0
common=(--config.train.checkpoint_every=100000 --config.score.bootstrap_samples=200)
tile=(--config=configs/folder.py --config.data.channels=1 --config.data.root="${MVTEC:-}")
texture=(--config=configs/folder.py --config.data.channels=1 --config.data.source=textures)
digits=(--config=configs/mnist.py --config.data.root="${MNIST:-}")
# The losses of six_settings, choices and stability: means of squares, and the adversarial game.
squares=(--config.loss.rec_norm=mean_squared --config.loss.ali_norm=mean_squared)
game=("${squares[@]}" --config.loss.adv=0.5)

grid() { # NAME SEEDS FLAG ...: one call of the grid command
  local name=$1 seeds=$2
  shift 2
  ${PYTHON:-python} -m daad_jax grid --results="$out/$name.jsonl" --seeds="${SEEDS:-$seeds}" \
    "$@" "${common[@]}" || failed=1
}

each_set() { # NAME FLAG ...: every set at hand but CIFAR-10, three seeds
  local name=$1
  shift
  grid "$name" 0,1,2 "${tile[@]}" --categories=magnetic_tile "$@"
  grid "$name" 0,1,2 "${tile[@]}" --categories=screw --config.data.brightness=equal "$@"
  grid "$name" 0,1,2 --config=configs/default.py --categories=all "$@"
  grid "$name" 0,1,2 --config=configs/digits.py --categories=8 "$@"
  grid "$name" 0,1,2 "${digits[@]}" --categories=2,8 "$@"
}
sets() { # daad_plus as the presets have it, daad, and daad_plus with the adversarial game
  each_set sets --settings=daad_plus,daad
  each_set sets --settings=daad_plus --variant=loss.adv=0.5
}
mnist_all() {
  grid mnist_all 0,1,2 "${digits[@]}" --categories=all
}
cifar10() {
  grid cifar10 0 --config=configs/cifar10.py --config.data.root="${CIFAR10:-}" --categories=all
}
restoration() {
  local corrupted=(--variant=train.corruption=none --variant=train.corruption=stain)
  grid restoration 0 "${tile[@]}" --categories=magnetic_tile "${corrupted[@]}"
  grid restoration 0 --config=configs/default.py --categories=grass,gravel "${corrupted[@]}"
  grid restoration 0 "${digits[@]}" --categories=8 "${corrupted[@]}"
}
length() {
  for epochs in 35 100 200; do
    grid length 0 "${tile[@]}" --categories=magnetic_tile --config.train.epochs=$epochs
  done
}
six_settings() { # four stages
  grid six_settings 0,1,2 "${tile[@]}" --categories=magnetic_tile "${squares[@]}" \
    --settings=ae,ae_skip,memae,memae_skip,daad
  grid six_settings 0,1,2 "${tile[@]}" --categories=magnetic_tile "${game[@]}" --settings=daad_plus
  grid six_settings 0 "${texture[@]}" --categories=gravel "${squares[@]}" \
    --settings=ae,ae_skip,memae,memae_skip,daad
  grid six_settings 0 "${texture[@]}" --categories=gravel "${game[@]}" --settings=daad_plus
}
two=("--config.model.widths=(32,64)" "--config.memory.division_rates=(8,8,1)")
choices() { # daad_plus at two stages, one thing changed at a time
  grid choices 0 "${tile[@]}" --categories=magnetic_tile "${game[@]}" "${two[@]}" \
    --variant= --variant=memory.temperature=1.0 --variant=memory.temperature=0.2 \
    --variant=memory.temperature=0.02 --variant=memory.init_scale=0.3 \
    --variant=memory.init_scale=3.0 --variant=memory.addressing=threshold_renormalized \
    --variant=memory.addressing=softmax --variant=model.query_from=before \
    --variant=model.skip_join=sum --variant=discriminator.feature_layer=-2 \
    --variant='memory.division_rates=(16,16,1)' --variant='memory.division_rates=(4,4,1)' \
    --variant='memory.division_rates=(2,2,1)' --variant=memory.items=30 \
    --variant=memory.scales=bottleneck --variant=model.skips=False \
    --variant=train.learning_rate=0.0002 --variant=train.average_decay=0.999
}
stability() {
  grid stability 0,1,2,3,4,5,6,7,8,9 "${texture[@]}" --categories=gravel "${game[@]}" "${two[@]}"
}

for part in "$@"; do
  "$part"
done
exit $failed
