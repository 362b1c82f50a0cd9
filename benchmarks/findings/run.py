"""Forks and refits along SAC's own training: when do synthetic data begin to fail, and why?

    python benchmarks/findings/run.py parents                     # SAC, UTD 1, kept at each moment
    python benchmarks/findings/run.py refits                      # cells and doors on each replay
    python benchmarks/findings/run.py forks                       # the same agent, five ways on
    python benchmarks/findings/run.py forks --tasks hopper-stand --at 50000 --arms m2ac m2ac+scale

Every finished fork and refit is a line of results/forks.jsonl or results/refits.jsonl (or of
--results); what stands there is skipped, and parents go on where they were, so all three can be
stopped (Ctrl-C) and given again. Two commands on different --tasks use two cores. Parents and forks
lie in --out. Profile laptop, float32. All arms of a fork make the same number of updates a step,
sac included, so that they differ in what the agent learns from.
"""

from __future__ import annotations

import argparse
import dataclasses
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from ftfl import presets
from ftfl.errors import FtflError
from ftfl.forensics.evidence import plain
from ftfl.forensics.instruments.attribution import attribution
from ftfl.forensics.subject import Subject
from ftfl.store.metrics_file import read_metrics, series
from ftfl.store.rundir import RunDir

sys.path.append(str(Path(__file__).resolve().parents[1]))
from lines import MADE_WITH, add_line, measured, moment_of, read_lines, rounded

HERE = Path(__file__).parent
TASKS = ("hopper-stand", "quadruped-walk", "humanoid-stand")
MOMENTS = (10_000, 50_000, 100_000, 300_000)
ARMS = ("sac", "mbpo", "mbpo-unit", "mbpo-direct", "ftfl")
DOORS = {"scale": "dynamics.scale=unit", "target": "dynamics.target=direct",
         "innovation": "dynamics.target=innovation",
         "long-fit": "dynamics.max_updates=5000",
         "nll-beta": "dynamics.nll_beta=0.5",
         "low-cap": "dynamics.logvar_max=-2",
         "half-real": "rollouts.real_ratio=0.5"}  # fmt: skip
"""Changes of an arm PRESET+DOOR."""
INSTRUMENTS = ("reward_fidelity", "rollout_error", "screen_sight", "critic_account",
               "critic_health")  # fmt: skip
KEPT = ("model/reward_r2", "model/skill_over_persistence", "rollout/kept_share",
        "rollout/penalty_mean_reward", "rollout/synthetic_reward_mean_reward",
        "rollout/real_reward_mean_reward", "agent/q_mean_scaled",
        "agent/temperature")  # fmt: skip
UPDATES_A_STEP = 10
REFIT_UPDATES = 500
REFIT_DOORS = ("separate-reward", "floor", "small-steps")
"""Doors beside the four cells, on mbpo's model: the trunk, the bound and Adam's step; --doors names
others."""


def ftfl(*words: Any) -> None:
    """Run a command of ours; raises where it fails."""
    subprocess.run([sys.executable, "-m", "ftfl", *map(str, words)], check=True)


def kept(out: Path, task: str, moment: int) -> Path:
    """The parent as it was at a moment."""
    return out / "kept" / f"{task}@{moment}"


def parents(args: argparse.Namespace) -> None:
    """Train SAC to each moment in turn, and keep a copy of the run there."""
    for moment in args.at:
        for task in args.tasks:
            copy = kept(args.out, task, moment)
            if copy.exists():
                continue
            run = args.out / "parents" / f"dmc_{task}" / "sac" / "seed_0"
            if run.exists():
                ftfl("resume", run, "--steps", moment)
            else:
                ftfl("train", f"dmc/{task}", "--algo", "sac", "--profile", "laptop",
                     "--name", "sac", "--sac.updates-per-step", 1, "--steps", moment,
                     "--eval-every", 10_000, "--eval-episodes", 5, "--log-every", 1_000,
                     "--out", args.out / "parents", "--jobs", 1)  # fmt: skip
            half = copy.with_name(copy.name + ".half")
            shutil.rmtree(half, ignore_errors=True)
            shutil.copytree(run, half)
            half.rename(copy)


def there(args: argparse.Namespace) -> list[tuple[str, int, Path]]:
    """Kept parents that were asked for; those that are missing are named."""
    found = [(t, m, kept(args.out, t, m)) for m in args.at for t in args.tasks]
    for task, moment, path in found:
        if not path.exists():
            print(f"no parent of {task} at {moment} yet: give `parents` first", file=sys.stderr)
    return [entry for entry in found if entry[2].exists()]


def refits(args: argparse.Namespace) -> None:
    """Train cells and doors anew on each replay, for equal numbers of updates."""
    results = args.results or HERE / "results" / "refits.jsonl"
    doors = args.doors
    if doors is None:
        doors = () if args.nll_beta or args.updates != REFIT_UPDATES else REFIT_DOORS
    done = {(line["task"], line["at"], line.get("nll_beta", 0.0), line["numbers"]["updates"],
             door) for line in read_lines(results)
            for door in [*line["numbers"]["doors"], None]}  # fmt: skip
    for task, moment, path in there(args):
        if all((task, moment, args.nll_beta, args.updates, door) in done
               for door in doors or [None]):  # fmt: skip
            continue
        subject = Subject.load(path)
        config = presets.build(f"dmc/{task}", "mbpo", "laptop").dynamics
        assert config is not None
        config = dataclasses.replace(config, nll_beta=args.nll_beta)
        print(f"{task}@{moment}", flush=True)
        begin = time.monotonic()
        found = attribution(
            subject.rows, config, args.updates, args.seeds, subject.spec.obs_names,
            only=doors, progress=lambda *at: print(*at, flush=True),
        )  # fmt: skip
        line = {
            "task": task, "at": moment, "nll_beta": args.nll_beta, "rows": len(subject.rewards),
            "reward_std": float(np.std(subject.rewards)),
            "parent_returns": returns(path), "seconds": round(time.monotonic() - begin),
            "numbers": found.numbers(),
            "findings": [finding.name for finding in found.findings()],
        }  # fmt: skip
        add_line(results, rounded(plain(line)))


def returns(path: Path) -> list[list[float]]:
    """All evaluations of a run: [step, mean return]."""
    steps, values = series(read_metrics(RunDir.open(path).metrics_path), "eval/return_mean_reward")
    return [[int(s), round(float(v), 3)] for s, v in zip(steps, values, strict=True)]


def forks(args: argparse.Namespace) -> None:
    """Let the same agent go on in each arm, and look at what becomes of it."""
    results = args.results or HERE / "results" / "forks.jsonl"
    done = {(*moment_of(r), r["arm"], r["seed"]) for r in read_lines(results)}
    for seed in args.seeds:
        for task, moment, parent in there(args):
            for arm in args.arms:
                if (task, moment, args.steps, args.parent, arm, seed) in done:
                    continue
                add_line(results, one_fork(args, task, moment, parent, arm, seed))


def one_fork(
    args: argparse.Namespace, task: str, moment: int, parent: Path, arm: str, seed: int
) -> dict[str, Any]:
    """Train one fork, or go on with it, and measure it; a failed one is a line as well."""
    algo, _, door = arm.partition("+")
    folder = args.out / "forks" / f"{task}@{moment}+{args.steps}"
    run = folder / arm / f"seed_{seed}"
    begin = time.monotonic()
    if run.exists() and RunDir.open(run).read_status().get("state") != "done":
        ftfl("resume", run)
    elif not run.exists():
        settings = {"sac.updates_per_step": UPDATES_A_STEP, "eval_every": args.steps // 2,
                    "log_every": 250, "checkpoint_every": args.steps}  # fmt: skip
        asked = [f"{k}={v}" for k, v in settings.items()] + ([DOORS[door]] if door else [])
        ftfl("fork", parent, "--algo", algo, *(x for a in asked for x in ("--set", a)),
             "--seeds", seed, "--steps", moment + args.steps, "--out", folder, "--name", arm,
             "--jobs", 1)  # fmt: skip
    trained = time.monotonic()
    made = RunDir.open(run)
    records = read_metrics(made.metrics_path)
    last = {name: series(records, name)[1] for name in KEPT}
    provenance = made.provenance()
    line = {
        "task": task, "at": moment, "arm": arm, "seed": seed, "steps": args.steps,
        "parent": args.parent, "parent_return": returns(parent)[-1][1],
        "state": made.read_status().get("state"), "returns": returns(run),
        **{name: float(f"{v[-1]:.6g}") for name, v in last.items() if len(v)},
        **short(measured(run, INSTRUMENTS)),
        "seconds": [round(trained - begin), round(time.monotonic() - trained)],
        "versions": {k: provenance.get(k) for k in MADE_WITH},
    }  # fmt: skip
    if not args.keep:
        shutil.rmtree(run / "checkpoints", ignore_errors=True)
    print(f"{task}@{moment} {arm} seed {seed}: {line['returns'][-1:]}, {line['seconds']} s",
          flush=True)  # fmt: skip
    return line


def short(value: Any, most: int = 12) -> Any:
    """Without lists of one number a channel: a line a run should stay readable."""
    if not isinstance(value, dict):
        return value
    return {k: short(v) for k, v in value.items() if not _longer(v, most)}


def _longer(value: Any, most: int) -> bool:
    return isinstance(value, list) and (len(value) > most or any(_longer(v, most) for v in value))


def main() -> None:
    """Read the options, skip what is done, do the rest."""
    parser = argparse.ArgumentParser(description="Forks and refits along SAC's training")
    parser.add_argument("what", choices=("parents", "refits", "forks"))
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), help="of dm_control [these]")
    parser.add_argument("--at", nargs="+", type=int, default=list(MOMENTS), help="parents' steps")
    parser.add_argument("--arms", nargs="+", default=list(ARMS), help="presets, or PRESET+DOOR")
    parser.add_argument("--steps", type=int, default=10_000, help="of each fork")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1], help="of forks and refits")
    parser.add_argument("--parent", type=int, default=1, help="number of the parents in --out:"
                        " the same seed is another agent on another kind of CPU")  # fmt: skip
    parser.add_argument("--nll-beta", type=float, default=0.0, help="of refits: cells alone")
    parser.add_argument("--updates", type=int, default=REFIT_UPDATES,
                        help="of each refit; any but %(default)s: cells alone")  # fmt: skip
    parser.add_argument("--doors", nargs="+", help=f"of refits {list(REFIT_DOORS)}")
    parser.add_argument("--results", type=Path, help="file of lines")
    parser.add_argument("--out", type=Path, default=Path("runs/findings"), help="folder of runs")
    parser.add_argument("--keep", action="store_true", help="keep the forks' checkpoints")
    args = parser.parse_args()
    try:
        {"parents": parents, "refits": refits, "forks": forks}[args.what](args)
    except FtflError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit("stopped; give the same command again to go on.")


if __name__ == "__main__":
    main()
