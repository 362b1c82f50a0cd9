#!/bin/sh
# The lineage experiment on probes (docs/lineage.md): five methods × four target cells × five seeds.
#
#     sh benchmarks/lineage/run.sh [--jobs N --out FOLDER]     goes on where it was stopped
#
# The control is mbpo at the lineage's branch length. Cells between a method and its -ftfl open one
# door each: scale (unit) or target (direct).
set -e
here=$(dirname "$0")
methods="mbpo-h5 m2ac macura infoprop mopo"
repaired="ftfl-h5 m2ac-ftfl macura-ftfl infoprop-ftfl mopo-ftfl"
setting() {
    dial=$1 level=$2
    shift 2
    run="python $here/../probes/run.py --results $here/results/probes.jsonl --examine --dial $dial --levels $level"
    $run --algos $methods $repaired "$@"
    $run --algos $methods --doors scale target "$@"
}
setting reward-unit -10 "$@"
setting noise-count 32 "$@" # where nuisance channels hurt the control (benchmarks/probes)
setting rest 0 "$@"
setting reward-unit -7 "$@"
