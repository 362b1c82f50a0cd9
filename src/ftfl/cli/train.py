"""``ftfl train TASK``: one process per seed, one live table over all."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ftfl import presets
from ftfl.cli.options import Parser, add_config_options, changes, whole_number
from ftfl.config import Config
from ftfl.errors import FtflError
from ftfl.sinks.console import watch
from ftfl.store.rundir import RunDir
from ftfl.training import workers

DESCRIPTION = """Train an algorithm on a task.

Preset (--algo) and compute profile (--profile) decide every value below; any of them can be set,
and its default in brackets is what the chosen preset and profile say. Runs go to
OUT/TASK/ALGO/seed_S."""


def run(argv: Sequence[str]) -> int:
    """Train, watch, and print where the results are."""
    first = _arguments("", add_help=False)
    chosen, _ = first.parse_known_args([a for a in argv if a not in ("-h", "--help")] or ["?"])
    config = presets.build(chosen.task or "?", chosen.algo, chosen.profile)
    parser = _arguments(DESCRIPTION, add_help=True)
    add_config_options(parser, config)
    if config.dynamics is None:
        _explain_missing_model(argv, config)
    args = parser.parse(argv)
    if args.task is None:
        raise FtflError("train needs a task, such as gym/Pendulum-v1; see `ftfl list tasks`.")

    asked = changes(args)
    configs = [
        presets.build(args.task, args.algo, args.profile, {**asked, "seed": seed})
        for seed in args.seeds
    ]
    if len(set(args.seeds)) < len(args.seeds):
        raise FtflError(f"--seeds {' '.join(map(str, args.seeds))} names a seed twice.")
    _check_task(configs[0])
    out = sys.stderr if args.json else sys.stdout
    print("\n".join(presets.explain(configs[0])), file=out)
    label = args.name or args.algo
    paths = [Path(args.out) / _folder(args.task) / label / f"seed_{c.seed}" for c in configs]
    if args.dry_run:
        print("would write " + ", ".join(map(str, paths)), file=out)
        return 0
    run_dirs = workers.prepare(configs, paths, ["ftfl", "train", *argv])
    statuses = train(run_dirs, configs, args.jobs, args.tensorboard, out)
    _finish(run_dirs, statuses, args.json, out)
    return 0 if all(s["state"] == "done" for s in statuses) else 1


def train(
    run_dirs: Sequence[RunDir],
    configs: Sequence[Config],
    jobs: int | None,
    tensorboard: bool,
    out: Any,
) -> list[dict[str, Any]]:
    """Run all of them as processes under one live table; their last statuses."""
    pool = workers.Pool(jobs, tensorboard)
    for run_dir, config in zip(run_dirs, configs, strict=True):
        pool.submit(run_dir, config)
    try:
        return watch(run_dirs, pool.poll, out)
    finally:
        pool.stop()


def _arguments(description: str, add_help: bool) -> Parser:
    parser = Parser("train", description, add_help=add_help)
    parser.add_argument("task", nargs="?", help="dmc/…, gym/… or package.module:make_env")
    parser.add_argument("--algo", default="ftfl", help="preset: " + ", ".join(presets.PRESETS))
    parser.add_argument("--profile", default="laptop", help=", ".join(presets.PROFILES))
    parser.add_argument(
        "--seeds", nargs="+", type=whole_number, default=[0], metavar="S",
        help="one run each [0]",
    )  # fmt: skip
    parser.add_argument("--out", default="runs", help="folder the runs go to [runs]")
    parser.add_argument("--name", help="folder name instead of the preset's, for variants")
    parser.add_argument("--jobs", type=_jobs, metavar="N", help="processes at once [one per core]")
    parser.add_argument("--tensorboard", action="store_true", help="also write TensorBoard files")
    parser.add_argument(
        "--dry-run", action="store_true", help="check everything, print the plan, train nothing"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout at the end")
    return parser


def _jobs(text: str) -> int:
    value = whole_number(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"--jobs was given as {text}, but must be 1 or more")
    return value


def _explain_missing_model(argv: Sequence[str], config: Config) -> None:
    for argument in argv:
        name = argument.split("=")[0]
        if name in ("--target", "--scale") or name.startswith(("--dynamics.", "--rollouts.")):
            raise FtflError(
                f"{name} was given, but algorithm {config.algo!r} has no dynamics model; choose"
                " a model-based one (see `ftfl list algos`)."
            )


def _check_task(config: Config) -> None:
    """Fail here, in one sentence, rather than in every child."""
    from ftfl.envs.make import make_env, require_termination

    env = make_env(
        config.task.name,
        action_repeat=config.task.action_repeat,
        reward_unit=config.task.reward_unit,
    )
    try:
        if config.dynamics is not None:
            require_termination(env.spec)
            if config.dynamics.reward_model == "given" and env.spec.reward_fn is None:
                raise FtflError(
                    f"--dynamics.reward-model given needs a reward_fn, and {env.spec.task} names"
                    " none: use joint or separate, or give the environment a reward_fn."
                )
        if config.init_replay is not None:
            from ftfl.training.logged import load_logged

            load_logged(Path(config.init_replay), env.spec)
    finally:
        env.close()


def _folder(task: str) -> str:
    return task.replace("/", "_").replace(":", "_")


def _finish(
    run_dirs: Sequence[RunDir], statuses: Sequence[dict[str, Any]], as_json: bool, out: Any
) -> None:
    for status in statuses:
        if status["state"] != "done":
            print(f"seed {status['seed']} failed: {status.get('message', '')}", file=sys.stderr)
    where = run_dirs[0].path.parent
    print(f"results: {where}", file=out)
    first = run_dirs[0].path
    print(f"next: ftfl eval {first} --video walk.mp4   ftfl report {where}/*", file=out)
    if as_json:
        runs = [
            {
                "path": str(d.path),
                "seed": s["seed"],
                "state": s["state"],
                "last_return": s.get("last_return"),
                "seconds": s.get("seconds"),
            }
            for d, s in zip(run_dirs, statuses, strict=True)
        ]
        print(json.dumps({"runs": runs}))
