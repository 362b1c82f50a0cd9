"""``ftfl demo``: see MBPO learn, then fail by one dial alone, and FTFL not notice."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ftfl import presets
from ftfl.cli.demo_report import demo_report
from ftfl.cli.options import Parser, whole_number
from ftfl.cli.running import finish, train
from ftfl.config import Config
from ftfl.sinks.table import print_summary
from ftfl.store.metrics_file import read_metrics, series
from ftfl.store.rundir import RunDir
from ftfl.training import workers

TASK = "gym/Pendulum-v1"
DIAL = 2.0**-14
STEPS = 3_500
LAST_EVALUATIONS = 3

DESCRIPTION = f"""Train four arms side by side on {TASK}, a constructed probe, and compare them.

The dial is the unit of reward: the environment pays r × 2^-14 and the agent multiplies by 2^14
again, so that the agent's task is the same to the last bit and only the dynamics model meets the
other unit."""


@dataclass(frozen=True)
class Arm:
    """One column of the comparison."""

    folder: str
    algo: str
    reward_unit: float
    label: str


ARMS = (
    Arm("mbpo_at_rest", "mbpo", 1.0, "MBPO, dial at rest"),
    Arm("sac_dial", "sac", DIAL, "SAC, dial turned"),
    Arm("mbpo_dial", "mbpo", DIAL, "MBPO, dial turned"),
    Arm("ftfl_dial", "ftfl", DIAL, "FTFL, dial turned"),
)


def run(argv: Sequence[str]) -> int:
    """Train all arms, print the comparison, write the report."""
    parser = Parser("demo", DESCRIPTION)
    parser.add_argument("--seeds", nargs="+", type=whole_number, default=[0, 1], metavar="S",
                        help="one run per arm and seed [0 1]")  # fmt: skip
    parser.add_argument("--steps", type=whole_number, default=STEPS, metavar="N",
                        help=f"environment steps per run [{STEPS}]")  # fmt: skip
    parser.add_argument("--out", help="folder for the runs and report.html [runs/demo, numbered]")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout at the end")
    args = parser.parse(argv)
    out = sys.stderr if args.json else sys.stdout
    folder = Path(args.out) if args.out else _free_folder()
    print(_introduction(args.steps, args.seeds, folder), file=out, flush=True)

    configs: list[Config] = []
    paths: list[Path] = []
    for seed in args.seeds:
        for arm in ARMS:
            configs.append(_config(arm, seed, args.steps))
            paths.append(folder / arm.folder / f"seed_{seed}")
    run_dirs = workers.prepare(configs, paths, ["ftfl", "demo", *argv])
    statuses = train(run_dirs, configs, None, False, out)
    if any(status["state"] == "stopped" for status in statuses):
        return finish(run_dirs, statuses, args.json, out)

    groups = {arm.label: [d for d in run_dirs if d.path.parent.name == arm.folder] for arm in ARMS}
    outcome = {label: measure(runs) for label, runs in groups.items()}
    print_summary([_row(label, o) for label, o in outcome.items()], out, _table_title(args.seeds))
    for paragraph in [*verdict(outcome), *LIMITS]:
        print(f"\n{paragraph}", file=out)
    report = folder / "report.html"
    commands = go_on(folder, args.seeds, args.steps)
    print("\nlooking inside the models …", file=out, flush=True)
    first = {label: runs[0] for label, runs in groups.items()}
    demo_report(report, groups, [*verdict(outcome), *LIMITS], DESCRIPTION, commands, first)
    print(f"\nreport: {report}", file=out)
    print("go on:\n  " + "\n  ".join(commands), file=out)
    if args.json:
        print(json.dumps({"folder": str(folder), "report": str(report), "arms": outcome}))
    return 0 if all(s["state"] == "done" for s in statuses) else 1


def _config(arm: Arm, seed: int, steps: int) -> Config:
    return presets.build(
        TASK,
        arm.algo,
        "probe",
        {
            "seed": seed,
            "steps": steps,
            "eval_every": 250,
            "eval_episodes": 10,
            "checkpoint_every": max(steps, 1),
            "task.reward_unit": arm.reward_unit,
        },
    )


def measure(runs: Sequence[RunDir]) -> dict[str, Any]:
    """What a reader compares, from each seed's last evaluations and last log records."""
    found: dict[str, Any] = {"seeds": {}, "failed_seeds": []}
    for run_dir in runs:
        seed = run_dir.path.name.removeprefix("seed_")
        records = read_metrics(run_dir.metrics_path) if run_dir.metrics_path.exists() else []
        if run_dir.read_status().get("state") != "done":
            found["failed_seeds"].append(seed)
            continue
        returns = series(records, "eval/return_mean_reward")[1][-LAST_EVALUATIONS:]
        last = {name: _last(records, metric) for name, metric in _SHOWN.items()}
        found["seeds"][seed] = {"return": float(np.mean(returns)), **last}
    return found


_SHOWN = {
    "reward_r2": "model/reward_r2",
    "synthetic_mean": "rollout/synthetic_reward_mean_reward",
    "real_mean": "rollout/real_reward_mean_reward",
    "synthetic_std": "rollout/synthetic_reward_std_reward",
    "real_std": "rollout/real_reward_std_reward",
    "floor_over_std": "model/reward_floor_over_std",
}


def _last(records: Sequence[Mapping[str, Any]], metric: str) -> float | None:
    values = series(records, metric)[1]
    return float(values[-1]) if len(values) else None


def _values(outcome: Mapping[str, Any], name: str) -> list[float]:
    values = [seed[name] for seed in outcome["seeds"].values()]
    return [v for v in values if v is not None]


def _row(label: str, outcome: Mapping[str, Any]) -> dict[str, str]:
    def shown(name: str, form: str) -> str:
        return "  ".join(format(v, form) for v in _values(outcome, name)) or "–"

    failed = outcome["failed_seeds"]
    return {
        "arm": label,
        "return": shown("return", ".0f") + (f"  FAILED: {', '.join(failed)}" if failed else ""),
        "reward R²": shown("reward_r2", ".3f"),
        "synthetic reward": shown("synthetic_mean", ".1f"),
        "its std": shown("synthetic_std", ".1f"),
        "real reward": shown("real_mean", ".1f") if _values(outcome, "reward_r2") else "–",
        "its std ": shown("real_std", ".1f") if _values(outcome, "reward_r2") else "–",
    }


def _table_title(seeds: Sequence[int]) -> str:
    return (
        f"{TASK}: one number per seed (n = {len(seeds)}); return = mean of the last"
        f" {LAST_EVALUATIONS} evaluations of 10 episodes"
    )


def verdict(outcome: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What the numbers say, whichever way they fell."""
    rest, sac, dial, ftfl = (outcome[arm.label] for arm in ARMS)
    if any(not _values(o, "return") for o in (rest, sac, dial, ftfl)):
        return ["An arm has no finished seed, so nothing is compared; see the failures above."]
    others = [min(_values(o, "return")) for o in (rest, sac, ftfl)]
    worst_other, best_dial = min(others), max(_values(dial, "return"))
    lines = []
    if worst_other > best_dial:
        lines.append(
            f"What it shows: with the dial at rest MBPO learns ({_span(rest)}). Turn the dial, and"
            f" MBPO does not ({_span(dial)}), while SAC ({_span(sac)}) and FTFL ({_span(ftfl)}) do."
            f" Every seed of the three is better than every seed of MBPO with the dial turned"
            f" (worst of them {worst_other:.0f}, best of MBPO {best_dial:.0f})."
        )
    else:
        lines.append(
            f"At these seeds and steps the arms do not separate: the worst seed of the other three"
            f" is {worst_other:.0f}, the best of MBPO with the dial turned is {best_dial:.0f}."
            " That is not the expected outcome; please report it with the folder's runs."
        )
    lines.append(_door(dial))
    return lines


def _door(dial: Mapping[str, Any]) -> str:
    if not _values(dial, "synthetic_std"):
        return "No synthetic data was made: these runs end within the random warm-up."
    fake, real = (float(np.mean(_values(dial, n))) for n in ("synthetic_std", "real_std"))
    return (
        "Why (measured apart, benchmarks/unit_dial, n = 3): the optimiser's steps, the start and"
        " the floor of the log-variance have absolute sizes, whatever the unit of a target; no"
        " single one is the cause. Where rewards are 2^14 times smaller, every single update"
        " throws a member's predicted reward about by several times the spread of real rewards, so"
        " that a synthetic reward, drawn from one member, carries nothing (R² above); and the model"
        f" admits it: here synthetic rewards have a std of {fake:.1f}, real ones {real:.1f}."
        " Lowering the log-variance floor, giving the reward a network of its own or a ten times"
        " smaller learning rate did not repair it; standardised targets did."
    )


LIMITS = (
    "What it does not show: this is a probe constructed to isolate one cause (reward scale in a"
    " joint model). It says nothing of how often real tasks have it, nothing of the second cause"
    " (residual targets), and little of how large differences are elsewhere.",
)


def _span(outcome: Mapping[str, Any]) -> str:
    values = _values(outcome, "return")
    low, high = min(values), max(values)
    span = f"{low:.0f}" if len(values) == 1 else f"{low:.0f} to {high:.0f}"
    return f"{span}, n = {len(values)}"


def go_on(folder: Path, seeds: Sequence[int], steps: int) -> list[str]:
    """Exact commands to continue from here."""
    shown = " ".join(map(str, seeds))
    base = f"ftfl train {TASK} --profile probe --steps {steps} --seeds {shown} --reward-unit 2**-14"
    return [
        f"{base} --algo mbpo --dynamics.reward-draw mean --name mbpo-mean",
        f"{base} --algo mbpo --dynamics.logvar-min -25 --name mbpo-low-floor",
        f"{base} --algo mbpo-unit   # the first repair alone",
        f"ftfl eval {folder / 'ftfl_dial' / f'seed_{seeds[0]}'} --video pendulum.mp4",
        "ftfl train dmc/cartpole-swingup --algo ftfl --seeds 0 1 --steps 10000",
        "ftfl train your_package.module:make_env --algo ftfl",
    ]


def _introduction(steps: int, seeds: Sequence[int], folder: Path) -> str:
    names = "; ".join(arm.label for arm in ARMS)
    return (
        f"A constructed probe on {TASK}, {steps} steps, seeds {', '.join(map(str, seeds))}:"
        f" {names}.\nThe dial: the environment pays reward × 2^-14, the agent multiplies by 2^14"
        " again. Only a dynamics model sees the difference.\n"
        f"Runs and report: {folder}\n"
    )


def _free_folder() -> Path:
    """``runs/demo``, or the first of ``runs/demo-2``, ``-3``, … that does not exist."""
    number, folder = 1, Path("runs/demo")
    while folder.exists():
        number += 1
        folder = Path(f"runs/demo-{number}")
    return folder
