#!/usr/bin/env bash
# The unit dial on gym/Pendulum-v1: the four cells and SAC, and MBPO's doors one at a time.
# Usage: benchmarks/unit_dial/run.sh [FOLDER]      (about a quarter of an hour on two cores, alone)
set -euo pipefail
out=${1:-runs/unit_dial}
train() {
  ftfl train gym/Pendulum-v1 --profile probe --steps 3500 --eval-every 250 --eval-episodes 10 --out "$out" "$@"
}
dial="--reward-unit 2**-14"
cells="--seeds 0 1 2 3 4"
doors="--seeds 0 1 2"

train --algo mbpo --name mbpo-at-rest $cells
for algo in sac mbpo mbpo-unit mbpo-direct ftfl; do
  train --algo "$algo" --name "$algo-dial" $dial $cells
done
train --algo mbpo --name mbpo-dial-mean-reward $dial $doors --dynamics.reward-draw mean
train --algo mbpo --name mbpo-dial-floor-25 $dial $doors --dynamics.logvar-min -25
train --algo mbpo --name mbpo-dial-floor-25-mean $dial $doors --dynamics.logvar-min -25 \
  --dynamics.reward-draw mean
train --algo mbpo --name mbpo-dial-separate $dial $doors --dynamics.reward-model separate
train --algo mbpo --name mbpo-dial-given $dial $doors --dynamics.reward-model given
