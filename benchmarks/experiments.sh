#!/usr/bin/env bash
# The runs behind docs/experiments.md. Re-run a part to resume it.
#
#   MVTEC=FOLDER MNIST=FOLDER CIFAR10=FOLDER OUT=runs/experiments benchmarks/experiments.sh PART ...
#
# A PART is settings_tile, settings_screw, settings_texture, choices_tile, choices_four, renormalized,
# everything, brightness, stability, mnist, mnist_all, mnist_seeds or cifar10. SEEDS=0,1 takes these
# seeds instead of the part's own, so that two processes can share a part.
set -uo pipefail
cd "$(dirname "$0")/.."

out=${OUT:-runs/experiments}
blocks=daad,daad_plus,ae,ae_skip # settings that a division rate fits
pixels=memae,memae_skip # read pixels: an override of the rates would make them daad
failed=0
common=(--config.train.checkpoint_every=100000 --config.score.bootstrap_samples=200)
common+=(--config.loss.rec_norm=mean_squared --config.loss.ali_norm=mean_squared)
two=("--config.model.widths=(32,64)")
two_rates=("--config.memory.division_rates=(8,8,1)")
four=("--config.model.widths=(16,32,64,128)")
four_rates=("--config.memory.division_rates=(4,4,1)")
tile=(--config=configs/folder.py --config.data.channels=1 --config.data.root="${MVTEC:-}")
texture=(--config=configs/folder.py --config.data.channels=1 --config.data.source=textures)

grid() { # NAME SEEDS FLAG ...: one call of the grid command
  local name=$1 seeds=$2
  shift 2
  ${PYTHON:-python} -m daad_jax grid --results="$out/$name.jsonl" --seeds="${SEEDS:-$seeds}" \
    "$@" "${common[@]}" || failed=1
}

choices=(
  --variant=
  --variant=memory.temperature=1.0
  --variant=memory.temperature=0.2
  --variant=memory.temperature=0.02
  --variant=memory.init_scale=0.3
  --variant=memory.init_scale=3.0
  --variant=memory.addressing=threshold_renormalized
  --variant=memory.addressing=softmax
  --variant=model.query_from=before
  --variant=model.skip_join=sum
  --variant=loss.alignment_updates_discriminator=True
  --variant=discriminator.feature_layer=-2
  --variant='memory.division_rates=(16,16,1)'
  --variant='memory.division_rates=(4,4,1)'
  --variant='memory.division_rates=(2,2,1)'
  --variant=memory.items=30
  --variant=memory.scales=bottleneck
  --variant=model.skips=False
  --variant=train.learning_rate=0.0002
  --variant=train.average_decay=0.999
)

six_settings() { # NAME SEEDS FLAG ...: two stages, then four
  local name=$1 seeds=$2
  shift 2
  grid "${name}_two" "$seeds" "$@" --settings=$blocks "${two[@]}" "${two_rates[@]}"
  grid "${name}_two" "$seeds" "$@" --settings=$pixels "${two[@]}"
  grid "${name}_four" "$seeds" "$@" --settings=$blocks "${four[@]}" "${four_rates[@]}"
  grid "${name}_four" "$seeds" "$@" --settings=$pixels "${four[@]}"
}
settings_tile() {
  six_settings settings_tile 0,1,2 "${tile[@]}" --categories=magnetic_tile
}
settings_screw() {
  for brightness in equal kept; do
    six_settings settings_screw 0 "${tile[@]}" --categories=screw \
      --config.data.brightness=$brightness
  done
}
settings_texture() {
  six_settings settings_texture 0 "${texture[@]}" --categories=gravel
}
choices_tile() {
  grid choices_tile 0 "${tile[@]}" --categories=magnetic_tile "${two[@]}" "${two_rates[@]}" \
    "${choices[@]}"
}
renormalized() { # the best R of choices_four, with more seeds
  grid renormalized 0,1,2 "${tile[@]}" --categories=magnetic_tile --settings=daad "${four[@]}" \
    "${four_rates[@]}" --config.memory.addressing=threshold_renormalized
}
choices_four() { # daad at four stages, the best by the pseudo-defects of the settings' runs
  grid choices_four 0 "${tile[@]}" --categories=magnetic_tile "${four[@]}" --settings=daad \
    --variant="memory.division_rates=(4,4,1)" \
    --variant="memory.division_rates=(4,4,1) memory.temperature=0.2" \
    --variant="memory.division_rates=(4,4,1) memory.addressing=threshold_renormalized" \
    --variant="memory.division_rates=(4,4,1) memory.init_scale=3.0" \
    --variant="memory.division_rates=(4,4,1) memory.items=30" \
    --variant="memory.division_rates=(4,4,1) model.skip_join=sum" \
    --variant="memory.division_rates=(4,4,1) train.average_decay=0.999" \
    --variant="memory.division_rates=(2,2,1)" \
    --variant="memory.division_rates=((8,8,1),(8,8,1),(4,4,1),(4,4,1))"
  grid choices_four 0 "${tile[@]}" --categories=magnetic_tile "${four[@]}" --settings=daad_plus \
    --variant="memory.division_rates=(4,4,1) discriminator.feature_layer=-2" \
    --variant="memory.division_rates=(4,4,1) loss.adv=0.1" \
    --variant="memory.division_rates=(4,4,1) loss.adv=0.0"
}
everything() { # no image held out, as for the 0.723 that PCA has on magnetic_tile
  grid everything 0,1,2 "${tile[@]}" --categories=magnetic_tile --settings=daad "${four[@]}" \
    "${four_rates[@]}" --config.data.calibration_fraction=0 --config.score.protocol=paper \
    --config.score.decision=A
}
brightness() { # each image divided by its mean: screw's runs have it among the settings
  grid brightness 0,1,2 "${tile[@]}" --categories=magnetic_tile "${four[@]}" \
    --settings=ae,daad,daad_plus "${four_rates[@]}" --config.data.brightness=equal
}
stability() {
  grid stability 0,1,2,3,4,5,6,7,8,9 "${texture[@]}" --categories=gravel "${two[@]}" "${two_rates[@]}"
}

digits=(--config=configs/mnist.py --config.data.root="${MNIST:-}")
# All connections, or the bottleneck alone without skips, so that a whole image is read at once.
all="model.skips=True memory.scales=all"
whole="model.skips=False memory.scales=bottleneck"
mnist() {
  grid mnist 0 "${digits[@]}" --categories=1,8 \
    --variant="$all memory.items=50" --variant="$whole memory.items=50" \
    --variant="$whole memory.items=20" --variant="$whole memory.items=200" \
    --variant="$whole memory.items=50 memory.temperature=0.02" \
    --variant="$whole memory.items=50 memory.temperature=0.05" \
    --variant="$whole memory.items=50 memory.temperature=1.0" \
    --variant="$whole memory.items=50 memory.division_rates=(2,2,1)" \
    --variant="$whole memory.items=50 model.widths=(16,32,64)" \
    --variant="$whole memory.items=50 model.widths=(16,32,64,128,256)"
  grid mnist 0 "${digits[@]}" --categories=1,8 --settings=daad --variant="$whole memory.items=50"
  grid mnist 0 "${digits[@]}" --categories=1,8 --settings=ae
}
mnist_all() { # the config as it is, on every digit
  grid mnist_all 0 "${digits[@]}" --categories=all
}
mnist_seeds() {
  grid mnist_seeds 0,1,2,3,4 "${digits[@]}" --categories=8 --settings=daad_plus,daad
}
cifar10() {
  local cifar=(--config=configs/cifar10.py --config.data.root="${CIFAR10:-}" --categories=airplane,dog)
  grid cifar10 0 "${cifar[@]}" \
    --variant="$all memory.division_rates=((8,8,1),(4,4,1),(4,4,1),(2,2,1))" --variant="$all" \
    --variant="$whole" --variant="$whole memory.division_rates=(1,1,1)"
  grid cifar10 0 "${cifar[@]}" --settings=ae,ae_skip
}

for part in "$@"; do
  "$part"
done
exit $failed
