"""``ftfl diagnose TASK``: what synthetic data will have trouble with, before any training."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ftfl.cli.options import Parser, at_least, number
from ftfl.cli.text import print_json
from ftfl.errors import FtflError, unknown

DESCRIPTION = """Look at a task's transitions and predict what synthetic data will have trouble
with, before anything is trained.

By default the task is stepped with uniformly random actions: not for hardware that must not move
at random; there, give logged transitions (--data) or a trained policy (--policy). At most 45
seconds are spent stepping. Predictions are hypotheses unless their rule names a measurement."""

SECONDS = 45.0
"""Spent stepping at most; the rest takes seconds."""


def run(argv: Sequence[str]) -> int:
    """Collect or load transitions, profile them, print what follows."""
    args = _parser().parse(argv)
    if args.policy is not None and args.data is not None:
        raise FtflError("--policy and --data were both given: transitions come from one of them.")

    from ftfl import presets
    from ftfl.forensics import foresight_fit
    from ftfl.forensics.foresight import foresee
    from ftfl.forensics.profile import profile

    if args.profile not in presets.PROFILES:
        raise unknown("profile", args.profile, presets.PROFILES)
    start = time.monotonic()
    rows, spec, facts = _transitions(args)
    seen = profile(rows, spec)
    config = presets.build(args.task, "mbpo", args.profile).dynamics
    assert config is not None
    found = foresee(seen, config, facts["source"], facts["faults"])
    fit = _fit(rows, spec, config, args.json) if args.fit else None
    if fit is not None:
        found = foresight_fit.with_fit(found, fit)
    seconds = time.monotonic() - start
    if args.json:
        from ftfl.forensics.evidence import plain

        print_json(
            {
                "task": args.task,
                "profile": args.profile,
                **facts,
                "seconds": seconds,
                "findings": [finding.to_json() for finding in found.findings],
                "recommended": found.recommended.to_json(),
                "structure": plain(seen.numbers()),
                **({} if fit is None else {"fit": plain(foresight_fit.numbers(fit))}),
            }
        )
        return 0
    from ftfl.cli.prediction import text

    for line in text(args.task, seen, found, facts, seconds, fit):
        print(line)
    return 0


def _parser() -> Parser:
    parser = Parser("diagnose", DESCRIPTION)
    parser.add_argument("task", metavar="TASK", help="dmc/…, gym/… or package.module:make_env")
    parser.add_argument(
        "--steps", type=at_least(100), metavar="N",
        help="agent steps to take [10000, the papers' random steps]",
    )  # fmt: skip
    parser.add_argument("--policy", metavar="RUN_DIR", help="act as this run's policy draws")
    parser.add_argument(
        "--data", metavar="FILE",
        help="logged transitions (.npz, as for --init-replay); the task is made, never stepped",
    )  # fmt: skip
    parser.add_argument("--seed", type=at_least(0), metavar="N", help="[0]")
    parser.add_argument(
        "--profile", default="laptop", metavar="NAME",
        help="compute profile whose network and learning rate are judged [laptop]",
    )  # fmt: skip
    parser.add_argument(
        "--action-repeat", type=at_least(1), default=1, metavar="N", help="as in training [1]"
    )
    parser.add_argument(
        "--reward-unit", type=number, default=1.0, metavar="X",
        help="multiply every reward by this (the unit dial) [1]",
    )  # fmt: skip
    parser.add_argument(
        "--fit", action="store_true",
        help="also train the model, not an agent, on these steps in all four target cells; adds"
        " seconds for small networks, minutes for the papers' size",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    return parser


def _fit(rows: Any, spec: Any, config: Any, silent: bool) -> Any:
    """The four cells trained on these rows; says how far it is."""
    from ftfl.forensics import foresight_fit
    from ftfl.forensics.instruments.attribution import attribution

    shown = sys.stderr.isatty() and not silent

    def told(cell: str, done: int, asked: int) -> None:
        if shown:
            end = f"\rshort fit {done + 1} of {asked}: {cell:<16}"
            print(end, end="", file=sys.stderr, flush=True)

    fit = attribution(
        rows, config, foresight_fit.UPDATES, foresight_fit.SEEDS, spec.obs_names,
        spec.reward_fn, only=[], progress=told,
    )  # fmt: skip
    if shown:
        print("\r\033[K", end="", file=sys.stderr, flush=True)
    return fit


def _transitions(args: argparse.Namespace) -> tuple[Any, Any, dict[str, Any]]:
    """Rows, the task's description, and where the rows come from."""
    from ftfl.config import TaskConfig
    from ftfl.envs.make import make_task
    from ftfl.forensics.foresight_reward import RANDOM
    from ftfl.forensics.profile import collect, uniform

    policy, source = None, RANDOM
    if args.data is not None:
        for option, usual in (("steps", None), ("seed", None), ("action_repeat", 1),
                              ("reward_unit", 1.0)):  # fmt: skip
            if getattr(args, option) != usual:
                raise FtflError(
                    f"--{option.replace('_', '-')} says how a task is stepped, but --data steps"
                    " nothing and takes the file's rewards as they are: leave it out."
                )
    steps = 10_000 if args.steps is None else args.steps
    seed = 0 if args.seed is None else args.seed
    task = TaskConfig(
        name=args.task, action_repeat=args.action_repeat, reward_unit=args.reward_unit
    )
    if args.policy is not None:
        from ftfl.training.policy import load_policy

        if args.action_repeat != 1 or args.reward_unit != 1.0:
            raise FtflError(
                "--action-repeat and --reward-unit are the run's own with --policy: leave them out."
            )
        policy = load_policy(Path(args.policy))
        task = policy.config.task
        if task.name != args.task:
            raise FtflError(
                f"--policy {args.policy} was trained on {task.name}, but the task given is"
                f" {args.task}: give a run of the same task."
            )
        source = f"the policy of {args.policy} at step {policy.step}"
    env = make_task(task)
    try:
        if args.data is not None:
            from ftfl.training.logged import load_logged

            rows = load_logged(Path(args.data), env.spec, "--data")
            return rows, env.spec, _facts(f"the data of {args.data}")
        act = uniform(env.spec.act_dim, seed) if policy is None else policy.sampler(seed)
        told = _progress(args.json)
        got = collect(env, act, steps, seed, SECONDS, told)
    finally:
        env.close()
    if sys.stderr.isatty() and not args.json:
        print("\r\033[K", end="", file=sys.stderr, flush=True)
    return got.rows, env.spec, _facts(source, got.faults, got.cut_short)


def _facts(source: str, faults: int = 0, cut_short: bool = False) -> dict[str, Any]:
    return {"source": source, "faults": faults, "cut_short": cut_short}


def _progress(silent: bool) -> Any:
    """One line on a terminal that says how far stepping is."""

    def told(done: int, asked: int) -> None:
        if not silent and sys.stderr.isatty() and done % 500 == 0:
            print(f"\rstepping, {done} of {asked} …", end="", file=sys.stderr, flush=True)

    return told
