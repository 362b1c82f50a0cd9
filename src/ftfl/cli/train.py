"""``ftfl train TASK``: one process per seed, one live table over all."""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ftfl import presets
from ftfl.cli.options import Parser, add_config_options, changes, whole_number
from ftfl.cli.running import add_process_options, finish, train
from ftfl.config import FREE, Config
from ftfl.errors import FtflError
from ftfl.store.rundir import task_folder
from ftfl.training import cores, memory, workers

_LONGEST_NAME = 80

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
    spec = workers.check_task(configs[0])
    out = sys.stderr if args.json else sys.stdout
    at_once = min(len(configs), args.jobs or len(configs), len(cores.available()))
    print("\n".join(presets.explain(configs[0])), file=out)
    print(memory.sentence(configs[0], spec, at_once), file=out)
    label = args.name or _variant(args.algo, asked)
    if re.fullmatch(r"[\w.,+=-]+", label) is None or label.startswith("."):
        raise FtflError(
            f"--name was given as {label!r}, but must be letters, digits and .,+=-_ only."
        )
    if configs[0].steps <= configs[0].warmup_steps:
        print(
            f"note: {configs[0].steps} steps are all warm-up (warmup_steps ="
            f" {configs[0].warmup_steps}): nothing will be learned.",
            file=out,
        )
    paths = [Path(args.out) / task_folder(args.task) / label / f"seed_{c.seed}" for c in configs]
    for path in paths:
        if path.is_dir() and any(path.iterdir()):
            raise FtflError(f"run directory {path} already exists: choose another --out or --name.")
    if args.dry_run:
        print("would write " + ", ".join(map(str, paths)), file=out)
        return 0
    run_dirs = workers.prepare(configs, paths, ["ftfl", "train", *argv])
    statuses = train(run_dirs, configs, args.jobs, args.tensorboard, out, args.together)
    return finish(run_dirs, statuses, args.json, out)


def _arguments(description: str, add_help: bool) -> Parser:
    parser = Parser("train", description, add_help=add_help, usage="ftfl train TASK [options]")
    parser.add_argument("task", nargs="?", help="dmc/…, gym/… or package.module:make_env")
    parser.add_argument(
        "--algo", default="ftfl", help=f"preset: {', '.join(presets.PRESETS)} [ftfl]"
    )
    parser.add_argument(
        "--profile", default="laptop", help=f"compute: {', '.join(presets.PROFILES)} [laptop]"
    )
    parser.add_argument(
        "--seeds", nargs="+", type=whole_number, default=[0], metavar="S",
        help="one run each [0]",
    )  # fmt: skip
    parser.add_argument("--out", default="runs", help="folder the runs go to [runs]")
    parser.add_argument("--name", help="folder name instead of the preset's, for variants")
    add_process_options(parser)
    return parser


def _explain_missing_model(argv: Sequence[str], config: Config) -> None:
    for argument in argv:
        name = argument.split("=")[0]
        if name in ("--target", "--scale", "--screen") or name.startswith(
            ("--dynamics.", "--rollouts.")
        ):
            raise FtflError(
                f"{name} was given, but algorithm {config.algo!r} has no dynamics model; choose"
                " a model-based one (see `ftfl list algos`)."
            )


def _variant(algo: str, asked: Mapping[str, Any]) -> str:
    """The preset's name and what was changed of it: variants never share a folder by accident."""
    parts = [algo]
    for name, value in asked.items():
        if name.startswith(("sac.", "dynamics.", "rollouts.", "task.")) and name not in FREE:
            shown = "x".join(map(str, value)) if isinstance(value, tuple | list) else str(value)
            leaf = name.rpartition(".")[2]
            parts.append(f"{leaf}={shown}".replace("/", "_").replace(":", "_"))
    label = "+".join(parts)
    if len(label) > _LONGEST_NAME:
        return f"{algo}+{hashlib.sha256(label.encode()).hexdigest()[:8]}"
    return label
