"""Every instrument on a real run, by the commands a user has: results/every_instrument.jsonl.

    python benchmarks/findings/every_instrument.py [TASK]      (about ten minutes of one core)

Trains mbpo and sac on a task (profile probe, seed 0) and examines both with `ftfl autopsy --full`:
models trained anew, and the agent forked. Runs lie in --out; what is there is not trained again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1]))
from lines import add_line, rounded
from run import short

RESULTS = Path(__file__).parent / "results" / "every_instrument.jsonl"
ALGOS = ("mbpo", "sac")


def ftfl(*words: Any) -> str:
    """What a command of ours writes to stdout; raises where it fails."""
    command = [sys.executable, "-m", "ftfl", *map(str, words)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def main() -> None:
    """Train, examine, and keep what was said."""
    parser = argparse.ArgumentParser(description="Every instrument on a real run")
    parser.add_argument("task", nargs="?", default="dmc/cartpole-swingup")
    parser.add_argument("--steps", type=int, default=4_000)
    parser.add_argument("--out", type=Path, default=Path("runs/every_instrument"))
    args = parser.parse_args()
    runs = []
    for algo in ALGOS:
        folder = args.out / args.task.replace("/", "_") / algo
        if not folder.exists():
            ftfl("train", args.task, "--algo", algo, "--profile", "probe", "--seeds", 0,
                 "--steps", args.steps, "--out", args.out, "--name", algo)  # fmt: skip
        runs.append(folder / "seed_0")
    begin = time.monotonic()
    told = json.loads(ftfl("autopsy", *runs, "--full", "--fork-steps", 1_000, "--json"))
    for run in told["runs"]:
        kept = ("label", "task", "seed", "step", "states", "findings", "not_measured")
        numbers = dict(run["numbers"])
        if "paired_forks" in numbers:
            numbers["paired_forks"] = {
                k: v for k, v in numbers["paired_forks"].items() if k != "folder"
            }
        seconds = round(time.monotonic() - begin)
        line = {**{k: run[k] for k in kept}, "numbers": numbers, "seconds_of_both": seconds}
        add_line(RESULTS, rounded(short(line)))


if __name__ == "__main__":
    main()
