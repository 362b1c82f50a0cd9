#!/usr/bin/env bash
# The learning checks of the core: every command behind benchmarks/core/results.
# Usage: benchmarks/core/run.sh [FOLDER] [PART…]   (parts: pendulum inverted cartpole dmc; default all)
# Laptop profile unless said. One process per core; about three hours on two cores, alone.
set -euo pipefail
out=${1:-runs/core}
shift || true
parts=${*:-pendulum inverted cartpole dmc}
train() { ftfl train "$@" --out "$out"; }

for part in $parts; do
  case $part in
    pendulum)
      for algo in sac mbpo ftfl; do
        train gym/Pendulum-v1 --algo "$algo" --steps 3000 --seeds 0 1 2 3 4 \
          --eval-every 250 --eval-episodes 10
      done ;;
    inverted)
      for algo in mbpo ftfl; do
        train gym/InvertedPendulum-v5 --algo "$algo" --steps 3000 --seeds 0 1 2 \
          --eval-every 250 --eval-episodes 10
      done ;;
    cartpole)
      for algo in sac mbpo ftfl; do
        train dmc/cartpole-swingup --algo "$algo" --steps 10000 --seeds 0 1 2 \
          --eval-every 1000 --eval-episodes 5
      done ;;
    dmc)
      for task in dmc/cheetah-run dmc/walker-run; do
        train "$task" --algo sac --name sac --steps 100000 --seeds 0 1 2 --sac.updates-per-step 1 \
          --eval-every 5000 --eval-episodes 5 --checkpoint-every 100000 --log-every 1000
      done ;;
    *) echo "unknown part $part: pendulum inverted cartpole dmc" >&2; exit 2 ;;
  esac
done
