#!/usr/bin/env bash
# Trains on every host of a Cloud TPU slice. Run it on your own machine, with gcloud set up.
#
#   TPU=my-slice ZONE=us-west4-a DATA=/mnt/disk/parts WORKDIR=/mnt/disk/runs/parts examples/tpu_pod.sh
#
# The hosts need Python 3.11 or newer as python3. DATA and WORKDIR are on a disk that all hosts see,
# for example Filestore. Re-run it to resume.
set -euo pipefail

: "${TPU:?name of the slice}" "${ZONE:?its zone}" "${DATA:?folder of images}" "${WORKDIR:?folder}"
on_all_hosts() {
  gcloud compute tpus tpu-vm ssh "$TPU" --zone="$ZONE" --worker=all --command="$1"
}

gcloud compute tpus tpu-vm scp --recurse . "$TPU":daad_jax --zone="$ZONE" --worker=all
on_all_hosts "cd daad_jax && python3 -m pip install --quiet '.[tpu]'"
on_all_hosts "cd daad_jax && python3 -m daad_jax train '$DATA' --config=mvtec --workdir='$WORKDIR' \
  --distributed=auto --config.train.batch_size=${BATCH:-128} --config.mesh.items=${ITEMS:-1}"
