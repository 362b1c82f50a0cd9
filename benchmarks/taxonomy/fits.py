"""What a short fit of each target cell on random steps says, for every level of every probe.

    python benchmarks/taxonomy/fits.py [--tasks dmc/hopper-stand …]    # results/fits.jsonl

The rows of `ftfl diagnose` (2,000 of a probe, 10,000 of a task), a fifth of them held apart; 500
updates a cell, seeds 0, 1, 2. Nothing of an agent is trained.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from run import tasks

from ftfl import presets
from ftfl.config import TaskConfig
from ftfl.envs.make import make_task
from ftfl.forensics.foresight_fit import SEEDS, UPDATES
from ftfl.forensics.instruments.attribution import attribution
from ftfl.forensics.profile import collect, uniform

sys.path.append(str(Path(__file__).resolve().parents[1]))
from lines import add_line, read_lines, rounded

RESULTS = Path(__file__).parent / "results" / "fits.jsonl"


def fit(task: str, unit: float) -> dict:
    """One task's cells in a line: medians over seeds of R² and skill of draws and of members."""
    probe = task.startswith("probe/")
    env = make_task(TaskConfig(name=task, reward_unit=unit))
    got = collect(env, uniform(env.spec.act_dim, 0), 2_000 if probe else 10_000, 0, 45.0)
    env.close()
    config = presets.build(task, "mbpo", "probe" if probe else "laptop").dynamics
    assert config is not None
    found = attribution(got.rows, config, UPDATES, SEEDS, only=[])
    return rounded({
        "task": task, "unit": unit,
        "cells": {
            arm.name: {
                "reward": float(np.median(arm.reward)),
                "reward_member": float(np.median(arm.reward_member)),
                "state_use": float(np.median(arm.state_use)),
                "skill": [float(x) for x in np.median(arm.skill, axis=0)][:12],
            } for arm in found.cells
        },
    })  # fmt: skip


def main() -> None:
    """All probes, or the tasks asked for, that have no line yet."""
    parser = argparse.ArgumentParser(description="Short fits of the four cells")
    parser.add_argument("--tasks", nargs="+", help="[every level of every probe]")
    asked = parser.parse_args().tasks
    wanted = [(t, 1.0) for t in asked] if asked else [e for e in tasks() if "probe/" in e[0]]
    done = {(line["task"], line["unit"]) for line in read_lines(RESULTS)}
    for task, unit in wanted:
        if (task, float(f"{unit:.4g}")) not in done:
            line = fit(task, unit)
            add_line(RESULTS, line)
            print(task, unit, {k: v["reward"] for k, v in line["cells"].items()}, flush=True)


if __name__ == "__main__":
    main()
