"""``ftfl fork RUN_DIR --set NAME=VALUE``: a new run from a checkpoint, with something changed."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ftfl.cli.options import Parser, at_least, parse_value, whole_number
from ftfl.cli.running import add_process_options, finish, train
from ftfl.config import Config, from_dict
from ftfl.errors import FtflError
from ftfl.store.rundir import RunDir

DESCRIPTION = """Start a new run from another run's checkpoint, with something changed.

What the change does not touch (replay, agent, model, the unfinished episode) is carried over bit by
bit, so that two forks of one checkpoint differ by the change alone; what it touches starts fresh,
and both are printed and recorded in the new run's history.jsonl."""


def run(argv: Sequence[str]) -> int:
    """Make the fork, and train it unless told not to."""
    args = _arguments().parse(argv)
    parent = RunDir.open(Path(args.run_dir))
    from ftfl.training import fork as forking

    before = from_dict(parent.config())
    asked = dict(_assignment(text) for text in args.set)
    configs = [
        forking.changed_config(before, args.algo, {**asked, **seed}, args.steps)
        for seed in ([{"seed": s} for s in args.seeds] or [{}])
    ]
    name = args.name or _name(before, configs[0], args.algo, asked)
    folder = Path(args.out) if args.out else parent.path.parent.parent
    out = sys.stderr if args.json else sys.stdout
    paths = [folder / name / f"seed_{c.seed}" for c in configs]
    for path in paths:
        if path.is_dir() and any(path.iterdir()):
            raise FtflError(f"run directory {path} already exists: choose another --out or --name.")
    if args.dry_run:
        print("would write " + ", ".join(map(str, paths)), file=out)
        return 0
    forks = []
    for config, path in zip(configs, paths, strict=True):
        made = forking.fork(parent, config, path, ["ftfl", "fork", *argv], args.at)
        forks.append(made)
        print(_sentence(made, parent), file=out)
        for note in made.notes:
            print(f"note: {note}", file=sys.stderr)
    if args.no_train:
        return 0
    run_dirs = [made.run_dir for made in forks]
    statuses = train(run_dirs, configs, args.jobs, args.tensorboard, out, args.together)
    return finish(run_dirs, statuses, args.json, out)


def _sentence(made: Any, parent: RunDir) -> str:
    told = ", ".join(f"{k} {old} → {new}" for k, (old, new) in made.changes.items()) or "nothing"
    fresh = f"; fresh: {', '.join(made.fresh)}" if made.fresh else "; everything carried over"
    return f"{made.run_dir.path}: from {parent.path} at step {made.env_steps}, {told}{fresh}"


def _assignment(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise FtflError(f"--set was given {text!r}, but needs NAME=VALUE, for example seed=1.")
    return name, parse_value(name.replace("-", "_"), value)


def _name(before: Config, after: Config, algo: str | None, asked: dict[str, Any]) -> str:
    base = after.algo if algo is not None else before.algo
    parts = [f"{k.rpartition('.')[2]}={v}" for k, v in asked.items() if k != "seed"]
    return "+".join(["fork", base, *parts]).replace("/", "_").replace(":", "_")


def _arguments() -> Parser:
    parser = Parser("fork", DESCRIPTION, usage="ftfl fork RUN_DIR [--set NAME=VALUE …] [options]")
    parser.add_argument("run_dir", metavar="RUN_DIR", help="the run to start from")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE",
        help="a configuration field by its dotted name, e.g. dynamics.target=direct; repeatable",
    )  # fmt: skip
    parser.add_argument(
        "--algo", help="take model, rollouts and screen of this preset; the agent stays"
    )
    parser.add_argument(
        "--seeds", nargs="+", type=whole_number, default=[], metavar="S",
        help="one fork each, with its own randomness from here on [the parent's]",
    )  # fmt: skip
    parser.add_argument(
        "--at", type=at_least(0), metavar="STEP", help="checkpoint to start from [newest valid]"
    )
    parser.add_argument(
        "--steps", type=at_least(1), metavar="N", help="steps in all [the parent's]"
    )
    parser.add_argument("--out", help="folder the fork's folder goes to [beside the parent's]")
    parser.add_argument("--name", help="folder name [fork+ALGO+what was set]")
    parser.add_argument("--no-train", action="store_true", help="make the run, train it later")
    add_process_options(parser)
    return parser
