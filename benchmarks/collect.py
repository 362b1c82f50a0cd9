"""Collect a benchmark's runs into small raw files, and write its README.md from them.

Usage: python benchmarks/collect.py BENCHMARK [FOLDER]

BENCHMARK is a folder beside this file with an INTRODUCTION.md; FOLDER holds the runs its run.sh
made (left out: only rewrite README.md). Unfinished and failed runs are collected as such.
"""

from __future__ import annotations

import csv
import json
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np

from ftfl.report.intervals import summarise
from ftfl.store.metrics_file import read_metrics, series
from ftfl.store.rundir import RunDir

HERE = Path(__file__).parent
ANCHORS = HERE.parent / "docs" / "anchors" / "results.csv"
FINAL = ("model/reward_r2", "model/skill_over_persistence", "model/updates_count",
         "rollout/synthetic_reward_mean_reward", "rollout/real_reward_mean_reward",
         "rollout/terminated_share", "termination/mismatch_count",
         "agent/updates_count")  # fmt: skip

TABLE_HEAD = (
    "| algorithm | n | steps | return of each seed (last 3 evaluations) | mean [95 % t interval] |"
    " reward R² | seconds a run |\n|---|---|---|---|---|---|---|"
)


def collect(benchmark: Path, folder: Path) -> None:
    """Copy evaluations, final metrics, configuration and provenance of every run below."""
    curves, runs = [], []
    for config_path in sorted(folder.glob("*/*/seed_*/config.json")):
        run = RunDir.open(config_path.parent)
        config, status = run.config(), run.read_status()
        records = read_metrics(run.metrics_path) if run.metrics_path.exists() else []
        name = run.path.parent.name
        task, seed = config["task"]["name"], config["seed"]
        columns = [
            series(records, f"eval/return_{k}_reward") for k in ("mean", "std", "min", "max")
        ]
        for i, step in enumerate(columns[0][0]):
            curves.append([task, name, seed, int(step), *(f"{c[1][i]:.6g}" for c in columns)])
        last = {m: series(records, m)[1] for m in FINAL}
        runs.append({
            "task": task, "name": name, "seed": seed, "state": status.get("state"),
            "env_steps": status.get("env_steps"), "seconds": round(status.get("seconds", 0)),
            "message": status.get("message"),
            "final": {k: float(v[-1]) for k, v in last.items() if len(v)},
            "config": config, "provenance": _public(run.provenance()),
        })  # fmt: skip
    results = benchmark / "results"
    results.mkdir(exist_ok=True)
    with open(results / "curves.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["task", "name", "seed", "env_steps", "return_mean", "return_std",
                         "return_min", "return_max"])  # fmt: skip
        writer.writerows(curves)
    (results / "runs.json").write_text(json.dumps(runs, indent=1) + "\n")


def _public(provenance: dict) -> dict:
    """Versions and hardware; no paths or names of the machine."""
    keep = ("ftfl", "git", "python", "platform", "cpu", "cores", "packages", "xla_flags", "started")
    return {k: v for k, v in provenance.items() if k in keep}


def tables(benchmark: Path) -> str:
    """Markdown tables, one a task: every seed, mean and interval at the last evaluation."""
    runs = json.loads((benchmark / "results" / "runs.json").read_text())
    with open(benchmark / "results" / "curves.csv") as file:
        rows = list(csv.DictReader(file))
    text = []
    tasks = list(dict.fromkeys(r["task"] for r in runs))
    for task in tasks:
        text.append(f"\n## {task}\n")
        text.append(TABLE_HEAD)
        for name in dict.fromkeys(r["name"] for r in runs if r["task"] == task):
            text.append(_row(task, name, runs, rows))
    return "\n".join(text)


def _row(task: str, name: str, runs: list[dict], rows: list[dict]) -> str:
    mine = [r for r in runs if (r["task"], r["name"]) == (task, name)]
    curves = defaultdict(list)
    for row in rows:
        if (row["task"], row["name"]) == (task, name):
            curves[int(row["seed"])].append(float(row["return_mean"]))
    finals = {
        r["seed"]: float(np.mean(curves[r["seed"]][-3:])) for r in mine if r["state"] == "done"
    }
    unfinished = [f"seed {r['seed']}: {r['state']} at {r['env_steps']}" for r in mine
                  if r["state"] != "done"]  # fmt: skip
    summary = summarise(finals.values())
    interval = "–" if summary.half_width is None else f"± {summary.half_width:.0f}"
    r2 = [r["final"]["model/reward_r2"] for r in mine if "model/reward_r2" in r["final"]]
    shown = ", ".join(f"{v:.0f}" for v in finals.values())
    if unfinished:
        shown += " (" + "; ".join(unfinished) + ")"
    mean = f"{summary.mean:.0f} {interval}" if finals else "–"
    fit = ", ".join(f"{v:.2f}" for v in r2) or "–"
    steps = max((r["env_steps"] or 0) for r in mine)
    seconds = int(np.median([r["seconds"] for r in mine]))
    return f"| {name} | {len(finals)} | {steps} | {shown} | {mean} | {fit} | {seconds} |"


def anchors() -> str:
    """Published SAC returns near 100,000 frames, from the table in docs/anchors."""
    with open(ANCHORS) as file:
        rows = [r for r in csv.DictReader(file) if r["task"] in ("cheetah-run", "walker-run")]
    text = ["\n## Published SAC beside dmc/cheetah-run and dmc/walker-run\n",
            "| source | algorithm | task | frames | return | spread | seeds |",
            "|---|---|---|---|---|---|---|"]  # fmt: skip
    for r in rows:
        if r["algorithm"].startswith("SAC") and 90_000 <= int(r["env_steps"]) <= 110_000:
            text.append(f"| {r['source']} | {r['algorithm']} | {r['task']} | {r['env_steps']} |"
                        f" {r['mean_return']} | {r['std_or_ci']} | {r['n_seeds']} |")  # fmt: skip
    return "\n".join(text)


def main(arguments: list[str]) -> None:
    """Collect where a folder is given, then write the page."""
    benchmark = HERE / arguments[0]
    if len(arguments) > 1:
        collect(benchmark, Path(arguments[1]))
    text = (benchmark / "INTRODUCTION.md").read_text() + tables(benchmark) + "\n"
    if benchmark.name == "core":
        text += anchors() + "\n"
    (benchmark / "README.md").write_text(text)


if __name__ == "__main__":
    main(sys.argv[1:])
