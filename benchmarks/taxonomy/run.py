"""What `ftfl diagnose` sees in DMC15, Gymnasium's tasks and every level of every probe.

    python benchmarks/taxonomy/run.py        # a line a task in results/structure.jsonl
    python benchmarks/taxonomy/report.py     # docs/taxonomy.md

Random actions, seed 0: 10,000 steps of a task (at most 45 seconds), 2,000 of a probe. What stands
there is skipped; delete the file after a change of the rules.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from ftfl.envs.probes import DIALS

sys.path.append(str(Path(__file__).resolve().parents[1]))
from lines import add_line, read_lines, rounded

RESULTS = Path(__file__).parent / "results" / "structure.jsonl"
DMC15 = ("acrobot-swingup", "cheetah-run", "finger-turn-hard", "fish-swim", "hopper-hop",
         "hopper-stand", "humanoid-run", "humanoid-stand", "humanoid-walk", "pendulum-swingup",
         "quadruped-run", "quadruped-walk", "reacher-hard", "swimmer-swimmer6",
         "walker-run")  # fmt: skip
"""Of arXiv:2205.07802 and its successors."""
GYM = ("HalfCheetah-v5", "Hopper-v5", "Walker2d-v5", "Ant-v5", "Humanoid-v5", "Swimmer-v5",
       "InvertedPendulum-v5", "Pendulum-v1")  # fmt: skip
UNITS = (-13, -10, -7, -4, 4, 8, 12)


def tasks() -> list[tuple[str, float]]:
    """All tasks and the unit their reward is paid in."""
    probes = [f"probe/{name}@{x:g}" for name, dial in DIALS.items() for x in dial.levels]
    dial = [("probe/rest", 2.0**power) for power in (0, *UNITS)]
    real = [*(f"dmc/{name}" for name in DMC15), "dmc/cartpole-swingup",
            *(f"gym/{name}" for name in GYM)]  # fmt: skip
    return [*((task, 1.0) for task in real), *dial, *((task, 1.0) for task in probes)]


def look(task: str, unit: float) -> dict[str, Any]:
    """One task's structure and what is predicted, in a line."""
    steps = 2_000 if task.startswith("probe/") else 10_000
    profile = "probe" if task.startswith("probe/") else "laptop"
    words = ["diagnose", task, "--json", "--steps", steps, "--reward-unit", unit,
             "--profile", profile]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "ftfl", *map(str, words)], check=True, capture_output=True, text=True
    )
    told = json.loads(done.stdout)
    seen = told["structure"]
    channel, reward = seen["channel"], seen["reward"]
    kappa = np.array([np.nan if k is None else k["value"] for k in channel["autocorrelation"]],
                     dtype=float)  # fmt: skip
    ratio = np.array(channel["change_over_std"], dtype=float)
    return rounded({
        "task": task, "unit": unit, "rows": seen["rows"], "seconds": told["seconds"],
        "outputs": seen["channels"] + 1, "termination": seen["termination"],
        "terminated_share": seen["terminated_share"],
        "dynamics_over_reward": seen["dynamics_over_reward"], "reward_std": reward["std"],
        "reward_rows": reward["carrying_rows"], "reward_episodes": reward["carrying_episodes"],
        "kappa_median": float(np.nanmedian(kappa)),
        "fast_share": float(np.nanmean(kappa < 0.5)),
        "change_over_std_median": float(np.nanmedian(ratio)),
        "findings": {f["name"]: f["severity"] for f in told["findings"]},
        "recommended": told["recommended"]["preset"],
    })  # fmt: skip


def main() -> None:
    """All tasks that have no line yet."""
    done = {(line["task"], line["unit"]) for line in read_lines(RESULTS)}
    for task, unit in tasks():
        if (task, float(f"{unit:.4g}")) not in done and (task, unit) not in done:
            line = look(task, unit)
            add_line(RESULTS, line)
            print(task, unit, line["recommended"], *line["findings"], flush=True)


if __name__ == "__main__":
    main()
