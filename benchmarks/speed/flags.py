"""`ftfl speed` under different XLA flags, one after the other: a table of what they bring.

    python benchmarks/speed/flags.py [--seconds 1]     about 90 s a row, most of it compiling; alone

An unknown flag kills a process of JAX, which is told as such and costs one row. Results go to
results/flags.json.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
from pathlib import Path

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
}
RESULTS = Path(__file__).parent / "results" / "flags.json"
PARTS = ("ensemble_update", "sac_update", "rollouts")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", default="1")
    parser.add_argument("--precisions", nargs="+", default=["float32", "bf16"])
    args = parser.parse_args()
    rows = []
    for precision in args.precisions:
        for name, flags in SETS.items():
            run = subprocess.run(
                ["ftfl", "speed", "--json", "--seconds", args.seconds, "--precision", precision],
                env=os.environ | {"XLA_FLAGS": flags}, capture_output=True, text=True,
            )  # fmt: skip
            row = {"precision": precision, "set": name, "flags": flags}
            if run.returncode:
                row["failed"] = run.stderr.strip().splitlines()[-1]
            else:
                parts = json.loads(run.stdout)["components"]
                row |= {part: round(parts[part]["median_ms"], 3) for part in PARTS}
            rows.append(row)
            print(row, flush=True)
            RESULTS.parent.mkdir(exist_ok=True)
            RESULTS.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
