"""`ftfl speed` under different XLA flags, one after the other: a table of what they bring.

    python benchmarks/speed/flags.py [--seconds 1]     about 90 s a row, most of it compiling; alone
    python benchmarks/speed/flags.py --rounds 2 --sets "as training sets them" "512-bit vectors"
    python benchmarks/speed/flags.py --table           medians of results/flags.json

An unknown flag kills a process of JAX, which is told as such and costs one row. Rows are added to
results/flags.json: equal sets differ between processes, so a difference counts once it was seen
again, in turns. A row with ``spoilt``, which says by what, is kept and left out of the medians.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1]))
from lines import table

SETS = {
    "as training sets them": "",
    "oneDNN": "--xla_cpu_use_onednn=true",
    "no YNN": "--xla_cpu_experimental_ynn_fusion_type=",
    "YNN for single products": "--xla_cpu_experimental_ynn_fusion_type=LIBRARY_FUSION_TYPE_DOT",
    "fast math": "--xla_cpu_enable_fast_math=true",
    "no fusion emitters": "--xla_cpu_use_fusion_emitters=false",
    "no thunks in parallel": "--xla_cpu_enable_concurrency_optimized_scheduler=false",
    "one piece of code": "--xla_cpu_parallel_codegen_split_count=1",
    "256-bit vectors": "--xla_cpu_prefer_vector_width=256",
    "512-bit vectors": "--xla_cpu_prefer_vector_width=512",
    "512-bit vectors, one piece of code": "--xla_cpu_prefer_vector_width=512"
    " --xla_cpu_parallel_codegen_split_count=1",
}
RESULTS = Path(__file__).parent / "results" / "flags.json"
PRECISIONS = ("float32", "bf16")
PARTS = ("ensemble_update", "sac_update", "rollouts")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", default="1")
    parser.add_argument("--precisions", nargs="+", default=list(PRECISIONS), choices=PRECISIONS)
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=list(SETS), metavar="SET")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--table", action="store_true", help="measure nothing")
    args = parser.parse_args()
    rows = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    todo = itertools.product(range(args.rounds), args.precisions, args.sets)
    for _, precision, name in [] if args.table else todo:
        rows.append(measure(precision, name, args.seconds))
        print(rows[-1], flush=True)
        RESULTS.write_text(json.dumps(rows, indent=1) + "\n")
    print(medians(rows))


def measure(precision: str, name: str, seconds: str) -> dict[str, Any]:
    """One process of `ftfl speed`."""
    flags = SETS[name]
    run = subprocess.run(
        ["ftfl", "speed", "--json", "--seconds", seconds, "--precision", precision],
        env=os.environ | {"XLA_FLAGS": flags}, capture_output=True, text=True,
    )  # fmt: skip
    row = {"precision": precision, "set": name, "flags": flags}
    if run.returncode:
        return row | {"failed": run.stderr.strip().splitlines()[-1]}
    parts = json.loads(run.stdout)["components"]
    return row | {part: round(parts[part]["median_ms"], 3) for part in PARTS}


def medians(rows: list[dict[str, Any]]) -> str:
    """Ensemble update / SAC update / rollouts in ms, and of how many processes where of several."""

    def cell(name: str, precision: str) -> str:
        found = [row for row in rows if (row["set"], row["precision"]) == (name, precision)]
        found = [row for row in found if not row.keys() & {"failed", "spoilt"}]
        if not found:
            return "–"
        told = " / ".join(f"{statistics.median(row[p] for row in found):.1f}" for p in PARTS)
        return told + (f" ({len(found)})" if len(found) > 1 else "")

    return table(["flags", *PRECISIONS], ([s, *(cell(s, p) for p in PRECISIONS)] for s in SETS))


if __name__ == "__main__":
    main()
