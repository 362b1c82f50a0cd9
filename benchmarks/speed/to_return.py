"""How long until a profile is as good as the paper profile? Training runs, and what they say.

    python benchmarks/speed/to_return.py train [--variants paper probe …] [--out DIR]
    python benchmarks/speed/to_return.py collect [--out DIR]      # results/to_return.jsonl
    python benchmarks/speed/to_return.py table                    # from that file

A variant has reached the paper profile's return at the first evaluation that comes within
`TOLERANCE` of it, as a share of the way there from an untrained agent, on the same seed (the starts
of evaluations are the same). The paper's return is the mean of its last three evaluations. Seconds
are not those of the runs, beside which other work ran, but learning steps times what one takes
alone, and every 250 of them a refit (--step-ms paper=143+89: 143 ms by `ftfl speed`, a refit 89 s).
"""

from __future__ import annotations

import argparse
import csv
import statistics
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from ftfl.store.metrics_file import read_metrics, series
from ftfl.store.rundir import RunDir

sys.path.append(str(Path(__file__).resolve().parents[1]))
from lines import add_line, read_lines, table

RESULTS = Path(__file__).parent / "results" / "to_return.jsonl"
CORE = Path(__file__).parents[1] / "core" / "results" / "curves.csv"
TOLERANCE = 0.05
SEEDS = (0, 1, 2)
REFIT_EVERY = 250
_LARGER_STEPS = [
    "--profile", "laptop", "--warmup-steps", "10000", "--dynamics.max-updates", "250",
    "--sac.actor-learning-rate", "1e-3", "--sac.critic-learning-rate", "1e-3",
    "--sac.temperature-learning-rate", "1e-3",
]  # fmt: skip
VARIANTS: dict[str, list[str]] = {
    "paper": ["--profile", "paper"],
    "laptop-bf16": ["--profile", "laptop", "--precision", "bf16"],
    "laptop-warm": ["--profile", "laptop", "--warmup-steps", "10000"],
    "laptop-utd5": [*_LARGER_STEPS, "--sac.updates-per-step", "5", "--rollouts.per-step", "200"],
    "laptop-utd3": [*_LARGER_STEPS, "--sac.updates-per-step", "3", "--rollouts.per-step", "100"],
    "probe": ["--profile", "probe"],
}
TASKS: dict[str, dict[str, int]] = {
    "gym/Pendulum-v1": {
        "paper": 11_250,
        "laptop-warm": 10_750,
        "laptop-utd5": 10_750,
        "laptop-utd3": 11_000,
        "": 3_000,
    },
    "dmc/cartpole-swingup": {"paper": 13_000, "probe": 20_000, "": 10_000},
}
"""Steps by task and variant; "" for the others."""
EVALUATIONS = {"gym/Pendulum-v1": (125, 10), "dmc/cartpole-swingup": (250, 5)}
"""Steps between evaluations, and episodes of each."""


def train(args: argparse.Namespace) -> None:
    """All runs, one command of ours for each variant; those that are done are left alone."""
    for task in args.tasks:
        every, episodes = EVALUATIONS[task]
        for name in args.variants:
            steps = TASKS[task].get(name, TASKS[task][""])
            folder = args.out / task.replace("/", "_") / name
            seeds = [s for s in SEEDS if not (folder / f"seed_{s}").exists()]
            words = ["train", task, "--algo", "ftfl", *VARIANTS[name], "--name", name,
                     "--steps", steps, "--seeds", *seeds, "--eval-every", every,
                     "--eval-episodes", episodes, "--out", args.out, "--apart"]  # fmt: skip
            if seeds:
                subprocess.run([sys.executable, "-m", "ftfl", *map(str, words)], check=True)


def collect(args: argparse.Namespace) -> None:
    """Every run's evaluations, a line each; lines whose runs are gone stay."""
    lines = core_runs(args.tasks)
    for task in args.tasks:
        for name in args.variants:
            for path in sorted((args.out / task.replace("/", "_") / name).glob("seed_*")):
                run = RunDir.open(path)
                if not run.metrics_path.exists():
                    continue  # queued
                steps, returns = series(read_metrics(run.metrics_path), "eval/return_mean_reward")
                lines.append({
                    "task": task, "variant": name, "seed": int(path.name.removeprefix("seed_")),
                    "state": run.read_status().get("state"),
                    "warmup_steps": run.config()["warmup_steps"],
                    "evaluations": [[int(s), round(float(r), 1)]
                                    for s, r in zip(steps, returns, strict=True)],
                    "versions": {k: run.provenance().get(k) for k in ("ftfl", "git", "cpu")},
                })  # fmt: skip
    by_run = {(x["task"], x["variant"], x["seed"]): x for x in [*read_lines(args.results), *lines]}
    args.results.unlink(missing_ok=True)
    for line in by_run.values():
        add_line(args.results, line)


def core_runs(tasks: list[str]) -> list[dict[str, Any]]:
    """The laptop profile's own runs are those of benchmarks/core, evaluated on the same starts."""
    curves: dict[tuple[str, int], list[list[float]]] = defaultdict(list)
    with open(CORE, encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["name"] == "ftfl" and row["task"] in tasks and int(row["seed"]) in SEEDS:
                curves[row["task"], int(row["seed"])].append(
                    [int(row["env_steps"]), round(float(row["return_mean"]), 1)]
                )
    return [
        {"task": task, "variant": "laptop", "seed": seed, "state": "done", "warmup_steps": 1_000,
         "evaluations": curve, "versions": "benchmarks/core/results/runs.json"}
        for (task, seed), curve in curves.items()
    ]  # fmt: skip


def reached(line: dict[str, Any], goal: float, start: float) -> int | None:
    """Step of the first evaluation that comes near enough to the goal."""
    enough = goal - TOLERANCE * (goal - start)
    return next((step for step, value in line["evaluations"] if value >= enough), None)


def show(args: argparse.Namespace) -> None:
    """Steps to the paper profile's return, and seconds where a step's time is given."""
    given = dict(pair.split("=") for pair in args.step_ms)
    lines = read_lines(args.results)
    for task in args.tasks:
        mine = [line for line in lines if line["task"] == task]
        paper = {x["seed"]: x["evaluations"] for x in mine if x["variant"] == "paper"}
        rows = []
        for name in ("laptop", *VARIANTS):
            steps, learned, last = [], [], []
            for line in (x for x in mine if x["variant"] == name):
                last.append(statistics.mean(v for _, v in line["evaluations"][-3:]))
                if line["seed"] in paper:
                    curve = paper[line["seed"]]
                    goal = statistics.mean(v for _, v in curve[-3:])
                    step = reached(line, goal, curve[0][1])
                    steps.append(step)
                    learned.append(None if step is None else step - line["warmup_steps"])
            if not last:
                continue
            step_ms, _, fit_s = given.get(name, "").partition("+")
            seconds = []
            if step_ms:
                seconds = [
                    n and n * float(step_ms) / 1e3 + -(-n // REFIT_EVERY) * float(fit_s or 0)
                    for n in learned
                ]
            rows.append(
                [name, str(len(last)), *(_listed(x) for x in (last, steps, learned, seconds))]
            )
        head = ["variant", "n", "return (last three)", "step it got there", "learning steps",
                "seconds, computed"]  # fmt: skip
        print(f"\n{task}\n\n{table(head, rows)}")


def _listed(values: list[Any]) -> str:
    return ", ".join("never" if v is None else f"{v:.0f}" for v in values) or "–"


def main() -> None:
    """Read the options and do what is asked."""
    parser = argparse.ArgumentParser(description="Wall clock to the paper profile's return")
    parser.add_argument("what", choices=("train", "collect", "table"))
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--out", type=Path, default=Path("runs/to_return"), help="folder of runs")
    parser.add_argument("--results", type=Path, default=RESULTS, help="file of lines")
    parser.add_argument(
        "--step-ms",
        nargs="+",
        default=[],
        metavar="VARIANT=MS[+S]",
        help="time of a learning step alone, and seconds of a refit",
    )
    args = parser.parse_args()
    {"train": train, "collect": collect, "table": show}[args.what](args)


if __name__ == "__main__":
    main()
