#!/usr/bin/env bash
# The comparison of addressing rules in docs/addressing.md. Re-run a part to resume it.
#
#   MVTEC=FOLDER MNIST=FOLDER OUT=runs/addressing benchmarks/addressing.sh PART ...
#
# A PART is tune_textures, tune_mnist, textures, mnist (each after its tuning), tune_tile, tile (the
# best four of the textures) or tables. SEEDS=0,1 takes these seeds instead of a comparison's own;
# STEPS=300 other than the configs' steps, for all parts alike; RULES=threshold,top_k only these rules.
set -uo pipefail
cd "$(dirname "$0")/.."

out=${OUT:-runs/addressing}
python=${PYTHON:-python}
failed=0
common=(--config.train.checkpoint_every=100000 --config.score.bootstrap_samples=200)
common+=(--config.loss.rec_norm=mean_squared)
[ -n "${STEPS:-}" ] && common+=("--config.train.steps=$STEPS")
folder=(--config=configs/folder.py:daad --config.data.channels=1)
textures_set=("${folder[@]}" --config.data.source=textures --config.model.widths='(32,64)'
  --config.memory.division_rates='(8,8,1)' --config.score.decision=A)
# 25 items: a square, as product keys need.
mnist_set=(--config=configs/mnist.py:daad --config.data.root="${MNIST:-}" --config.memory.items=25
  --config.score.decision=A)
tile_set=("${folder[@]}" --config.data.root="${MVTEC:-}" --categories=magnetic_tile
  --config.score.decision=R_max_relative)

grid() { # NAME SEEDS "VARIANTS, one a line" FLAG ...: one call of the grid command
  local name=$1 seeds=$2 lines=$3 variants=() line
  shift 3
  while IFS= read -r line; do variants+=("--variant=$line"); done <<<"$lines"
  $python -m daad_jax grid --results="$out/$name.jsonl" --seeds="${SEEDS:-$seeds}" "$@" \
    "${common[@]}" "${variants[@]}" || failed=1
}
all() {
  $python -m benchmarks.addressing tune | grep -E "addressing=($(sed 's/,/|/g' <<<"${RULES:-.*}"))\("
}
best() { $python -m benchmarks.addressing chosen "$out/$1.jsonl" ${2:-}; }

# Tuned on one category and a seed that the comparison does not use.
tune_textures() { SEEDS='' grid tune_textures 100 "$(all)" "${textures_set[@]}" --categories=gravel; }
tune_mnist() { SEEDS='' grid tune_mnist 100 "$(all)" "${mnist_set[@]}" --categories=8; }
tune_tile() { # the variants of the rules that did best on the textures
  local rules
  rules=$(best tune_textures 4 | grep -o '^.memory.addressing=[a-z_]*(')
  SEEDS='' grid tune_tile 100 "$(all | grep -F -f <(echo "$rules"))" "${tile_set[@]}"
}
textures() {
  grid textures 0,1,2 "$(best tune_textures)" "${textures_set[@]}" --categories=brick,grass,gravel
}
mnist() { grid mnist 0,1,2 "$(best tune_mnist)" "${mnist_set[@]}" --categories=2,5,8; }
tile() { grid tile 0,1,2,3,4 "$(best tune_tile)" "${tile_set[@]}"; }
tables() {
  local name score scale
  for name in textures mnist tile; do
    [ -f "$out/$name.jsonl" ] || continue
    scale=scale_4
    [ "$name" = textures ] && scale=scale_1
    for score in R R_max_relative; do
      printf '\n%s, %s\n\n' "$name" "$score"
      $python -m benchmarks.addressing table "$out/$name.jsonl" "$score" "$scale" || failed=1
    done
  done
}

for part in "$@"; do
  "$part"
done
exit $failed
