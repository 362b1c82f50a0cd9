"""Dose and response: every dial at every level, five seeds, the targets and SAC.

    python benchmarks/probes/run.py --plan                      # how many runs, about how long
    python benchmarks/probes/run.py                             # the grid, an arm's seeds together
    python benchmarks/probes/run.py --dial jump --levels 4 64 --seeds 0 1 --algos mbpo ftfl
    python benchmarks/probes/run.py --dial slow --doors slow-channel-floor floor --algos ftfl
    python benchmarks/probes/run.py --algos m2ac --results FILE --examine    # benchmarks/lineage
    python benchmarks/probes/run.py --profile laptop --dial slow --levels 8 --algos mbpo-unit ftfl

Every finished run is a line of results/runs.jsonl, failed ones too; cells that stand there are
skipped, so the command can be stopped (Ctrl-C) and given again. A run of SAC is the same to the bit
at every level (tests/unit/test_probes.py), so SAC runs at rest only. Run directories go to --out;
their checkpoints are deleted once the line is written, unless --keep. With --examine some
instruments of `ftfl autopsy --quick` (three, or those named) look at each finished run first, and
their numbers join its line. Then: report.py.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ftfl import presets
from ftfl.config import Config
from ftfl.envs.make import make_env
from ftfl.envs.probes import DIALS
from ftfl.errors import FtflError
from ftfl.forensics.doors import doors
from ftfl.forensics.registry import INSTRUMENTS
from ftfl.store.metrics_file import read_metrics, series
from ftfl.store.rundir import RunDir
from ftfl.training import cores, grouping, workers

sys.path.append(str(Path(__file__).resolve().parents[1]))
from lines import MADE_WITH, add_line, measured, read_lines

RESULTS = Path(__file__).parent / "results" / "runs.jsonl"
LAPTOP = RESULTS.with_name("laptop.jsonl")
"""Points of the grid on networks of the papers' size."""
ALGOS = ("sac", "mbpo", "mbpo-unit", "mbpo-direct", "ftfl", "mbpo-innovation")
LEVELS: dict[str, tuple[float, ...]] = {
    "rest": (0,),
    "reward-unit": (-13, -10, -7, -4, 4, 8, 12),
    **{name: dial.levels for name, dial in DIALS.items()},
}
SETTINGS = {"eval_every": 250, "eval_episodes": 10, "log_every": 250}
STEPS = {"probe": 1_500, "laptop": 2_000}
"""A thousand of them after warm-up."""
LAST = 3
"""Evaluations whose mean is a run's return: those of the last 750 steps."""
KEPT = ("model/reward_r2", "model/reward_r2_averaged", "model/skill_over_persistence",
        "model/predicted_std_unit", "rollout/synthetic_reward_mean_reward",
        "rollout/real_reward_mean_reward", "rollout/kept_share", "rollout/penalty_mean_reward",
        "rollout/uncertainty_mean_screen", "agent/q_mean_scaled", "agent/temperature")  # fmt: skip
EXAMINED = ("reward_fidelity", "screen_sight", "critic_account")
SECONDS_A_RUN = 30.0
"""Of CPU, measured for MBPO and FTFL at rest, compilation included; until a run has been timed."""


@dataclass(frozen=True)
class Cell:
    """One run of the grid."""

    dial: str
    level: float
    arm: str
    """Preset, or PRESET+DOOR."""
    seed: int
    profile: str = "probe"

    @property
    def task(self) -> str:
        """The task's name."""
        plain = self.dial in ("rest", "reward-unit")
        return "probe/rest" if plain else f"probe/{self.dial}@{self.level:g}"

    def config(self) -> Config:
        """The run's configuration."""
        algo, _, door = self.arm.partition("+")
        changes: dict[str, Any] = {**SETTINGS, "steps": STEPS[self.profile], "seed": self.seed}
        if self.dial == "reward-unit":
            changes["task.reward_unit"] = 2.0**self.level
        config = presets.build(self.task, algo, self.profile, changes)
        if not door:
            return config
        assert config.dynamics is not None
        known = doors(config.dynamics, reward_variance(self.task, config.task.reward_unit), True)
        if door not in known:
            raise FtflError(f"{algo} has no door {door!r}: choose from {', '.join(known)}.")
        opened = {f"dynamics.{field}": value for field, value in known[door].items()}
        return presets.build(self.task, algo, self.profile, changes | opened)


def reward_variance(task: str, unit: float) -> float:
    """Of 1,000 random steps, in the unit the model meets."""
    env, generator = make_env(task, reward_unit=unit), np.random.default_rng(0)
    rewards: list[float] = []
    for episode in range(20):
        env.reset(episode)
        truncated = False
        while not truncated:
            step = env.step(generator.uniform(-1, 1, 1).astype(np.float32))
            truncated = step.truncated
            rewards.append(step.reward)
    return float(np.var(rewards))


def cells(args: argparse.Namespace) -> Iterator[Cell]:
    """What was asked for, seeds outermost."""
    for seed in args.seeds:
        for dial in args.dial or LEVELS:
            if dial not in LEVELS:
                raise FtflError(f"no dial {dial!r}: choose from {', '.join(LEVELS)}.")
            for level in LEVELS[dial] if args.levels is None else args.levels:
                for algo in args.algos:
                    if algo == "sac" and (args.doors or not (dial == "rest" or args.sac_at_levels)):
                        continue
                    for arm in [f"{algo}+{door}" for door in args.doors or ()] or [algo]:
                        yield Cell(dial, level, arm, seed, args.profile)


def row(cell: Cell, run: RunDir, instruments: Sequence[str] = ()) -> dict[str, Any]:
    """What is kept of a run that has ended."""
    status = run.read_status()
    records = read_metrics(run.metrics_path) if run.metrics_path.exists() else []
    returns = [float(v) for v in series(records, "eval/return_mean_reward")[1]]
    done = status.get("state") == "done"
    last = {name: series(records, name)[1] for name in KEPT}
    provenance = run.provenance()
    return {
        "dial": cell.dial, "level": cell.level, "arm": cell.arm, "seed": cell.seed,
        "state": status.get("state"), "message": status.get("message"),
        "env_steps": status.get("env_steps"), "seconds": round(status.get("seconds") or 0.0, 1),
        "return": round(float(np.mean(returns[-LAST:])), 5) if done and returns else None,
        "returns": [round(v, 4) for v in returns],
        **{name: float(f"{v[-1]:.6g}") for name, v in last.items() if len(v)},
        **(measured(run.path, instruments) if instruments and done else {}),
        "versions": {k: provenance.get(k) for k in MADE_WITH},
    }  # fmt: skip


def run_dir(cell: Cell, out: Path) -> RunDir:
    """A fresh run directory, or the one that an interrupted grid has left, to go on with."""
    where = out if cell.profile == "probe" else out / cell.profile
    path = where / f"{cell.dial}@{cell.level:g}" / cell.arm / f"seed_{cell.seed}"
    if path.exists():
        found = RunDir.open(path)
        if workers.known_status(found).get("state") != "failed":
            return found
        shutil.rmtree(path)  # asked for --again
    return workers.prepare([cell.config()], [path], ["benchmarks/probes/run.py"])[0]


def arms(todo: list[Cell]) -> list[list[Cell]]:
    """The seeds of each arm, which train together."""
    found: dict[tuple[str, float, str], list[Cell]] = {}
    for cell in todo:
        found.setdefault((cell.dial, cell.level, cell.arm), []).append(cell)
    return list(found.values())


def train(todo: list[Cell], args: argparse.Namespace) -> None:
    """Run what is to be done, seeds of one arm together, and write a line as each ends."""
    pool, out = workers.Pool(args.jobs), Path(args.out)
    waiting, begun, count = arms(todo), {}, 0
    try:
        while waiting or begun:
            pool.poll()
            while waiting and len(pool.running) + len(pool.waiting) < len(pool.places):
                group = {cell: run_dir(cell, out) for cell in waiting.pop(0)}
                begun |= group
                for fresh in alike(group):
                    pool.submit(*fresh)
                pool.poll()
            going = {run.path for runs, _ in pool.running.values() for run in runs}
            going |= {run.path for runs in pool.waiting for run in runs}
            for cell, made in [(c, m) for c, m in begun.items() if m.path not in going]:
                del begun[cell]
                count += 1
                line = row(cell, made, args.examine)
                if line["state"] not in ("done", "failed"):
                    continue  # stopped from outside: the next command goes on with it
                add_line(args.results, line)
                if not args.keep:
                    shutil.rmtree(made.path / "checkpoints", ignore_errors=True)
                name = f"{cell.dial}@{cell.level:g} {cell.arm} seed {cell.seed}"
                print(f"{count}/{len(todo)} {name}: {line['state']}, return {line['return']},"
                      f" {line['seconds']:.0f} s", flush=True)  # fmt: skip
            time.sleep(0.2)
    except KeyboardInterrupt:
        pool.stop()
        print("stopped; give the same command again to go on.", file=sys.stderr)


def alike(group: dict[Cell, RunDir]) -> list[list[tuple[RunDir, Config]]]:
    """Those that are not done yet (but have no line), in lots that are equally far."""
    left = {c: d for c, d in group.items() if workers.known_status(d).get("state") != "done"}
    configs = [cell.config() for cell in left]
    lots, _ = grouping.arrange(list(left.values()), configs, True, cores=1, accelerator=False)
    runs = list(zip(left.values(), configs, strict=True))
    return [[runs[number] for number in lot] for lot in lots]


def main() -> None:
    """Read the options, skip what is done, run the rest."""
    parser = argparse.ArgumentParser(description="Dose and response on probes")
    parser.add_argument("--dial", nargs="+", help=f"of {', '.join(LEVELS)} [all]")
    parser.add_argument("--levels", nargs="+", type=float, help="[those named in the task's code]")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--algos", nargs="+", default=list(ALGOS), choices=list(presets.PRESETS))
    parser.add_argument("--doors", nargs="+", help="open these doors instead, one at a time")
    parser.add_argument("--sac-at-levels", action="store_true", help="train SAC at levels as well")
    parser.add_argument("--again", action="store_true", help="repeat runs that failed")
    parser.add_argument("--jobs", type=int, help="processes side by side [one per core]")
    parser.add_argument("--out", default="runs/probes", help="folder of run directories")
    parser.add_argument("--profile", default="probe", choices=list(STEPS))
    parser.add_argument(
        "--results", type=Path, help="file of lines [results/runs.jsonl or laptop.jsonl]"
    )
    parser.add_argument(
        "--examine", nargs="*", default=(), metavar="INSTRUMENT",
        choices=[i.name for i in INSTRUMENTS],
        help=f"let instruments look at each run [{' '.join(EXAMINED)}]",
    )  # fmt: skip
    parser.add_argument("--keep", action="store_true", help="keep checkpoints")
    parser.add_argument("--plan", action="store_true", help="say what would run, and how long")
    args = parser.parse_args()
    args.results = args.results or (RESULTS if args.profile == "probe" else LAPTOP)
    if args.examine == []:
        args.examine = EXAMINED
    rows = read_lines(args.results)
    done = {
        (r["dial"], float(r["level"]), r["arm"], r["seed"])
        for r in rows
        if r["state"] == "done" or not args.again
    }
    try:
        asked = list(cells(args))
        todo = [c for c in asked if (c.dial, float(c.level), c.arm, c.seed) not in done]
        for seeds in arms(todo):
            workers.check_task(seeds[-1].config())  # before hours are spent
        seconds = float(np.median([r["seconds"] for r in rows])) if rows else SECONDS_A_RUN
        at_once = len(cores.available()[: args.jobs or None])
        # Seeds that train together share their seconds.
        hours = len(arms(todo)) * seconds / 3600 / at_once
        print(
            f"{len(todo)} of {len(asked)} runs to do, about {seconds:.0f} s an arm: {hours:.1f} h"
            f" on {at_once} cores",
            flush=True,
        )
        if not args.plan:
            train(todo, args)
    except FtflError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
