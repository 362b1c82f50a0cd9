"""``ftfl diagnose TASK``: what synthetic data will have trouble with, before any training."""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftfl.cli.options import Parser, at_least, number
from ftfl.cli.text import print_json, width, wrapped
from ftfl.errors import FtflError, unknown

if TYPE_CHECKING:
    from ftfl.forensics.evidence import Finding
    from ftfl.forensics.foresight import Foresight
    from ftfl.forensics.instruments.attribution import Attribution
    from ftfl.forensics.profile import Profile

DESCRIPTION = """Look at a task's transitions and predict what synthetic data will have trouble
with, before anything is trained.

By default the task is stepped with uniformly random actions: not for hardware that must not move
at random; there, give logged transitions (--data) or a trained policy (--policy). At most 45
seconds are spent stepping. Predictions are hypotheses unless their rule names a measurement."""

SECONDS = 45.0
"""Spent stepping at most; the rest takes seconds."""
_SHOWN = 12
"""Channels in the table."""


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
    for line in _text(args.task, seen, found, facts, seconds, fit):
        print(line)
    return 0


def _parser() -> Parser:
    parser = Parser("diagnose", DESCRIPTION)
    parser.add_argument("task", metavar="TASK", help="dmc/…, gym/… or package.module:make_env")
    parser.add_argument(
        "--steps", type=at_least(100), default=10_000, metavar="N",
        help="agent steps to take [10000, the papers' random steps]",
    )  # fmt: skip
    parser.add_argument("--policy", metavar="RUN_DIR", help="act as this run's policy draws")
    parser.add_argument(
        "--data", metavar="FILE",
        help="logged transitions (.npz, as for --init-replay); the task is made, never stepped",
    )  # fmt: skip
    parser.add_argument("--seed", type=at_least(0), default=0, metavar="N", help="[0]")
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
    from ftfl.forensics.profile import collect, uniform

    policy, source = None, "random actions"
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
        act = uniform(env.spec.act_dim, args.seed) if policy is None else policy.sampler(args.seed)
        told = _progress(args.json)
        got = collect(env, act, args.steps, args.seed, SECONDS, told)
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


def _text(
    task: str,
    seen: Profile,
    found: Foresight,
    facts: dict[str, Any],
    seconds: float,
    fit: Attribution | None,
) -> Iterator[str]:
    trained = "nothing" if fit is None else "no agent"
    yield wrapped(
        f"{task}: {seen.rows} steps in {seen.episodes} episodes under {facts['source']}"
        f" ({seconds:.0f} s, {trained} was trained)",
        hanging=2,
    )
    if facts["cut_short"]:
        yield wrapped(f"stopped after {SECONDS:.0f} s of stepping: the task is slow", indent=2)
    for line in _structure(seen):
        yield wrapped(line, indent=2, hanging=2)
    yield ""
    yield "FINDINGS"
    if not found.findings:
        yield "  none"
    for finding in found.findings:
        yield from _finding(finding)
    yield ""
    yield "START WITH"
    best = found.recommended
    lead = f"ftfl train {task} --algo {best.preset}: " if best.preset else ""
    yield wrapped(
        f"{lead}{best.because}. No prediction of this page has been verified by training on this"
        " task.",
        indent=2,
        hanging=2,
    )
    yield ""
    if fit is not None:
        yield from _short_fit(fit)
        yield ""
    yield from _channels(seen)


def _short_fit(fit: Attribution) -> Iterator[str]:
    """What the model learned in each cell, one line a preset."""
    from ftfl.forensics.foresight_fit import numbers

    yield f"SHORT FIT ({fit.updates} updates, {len(fit.seeds)} seeds)"
    yield f"  {'preset':<12} {'R² of drawn rewards':>20} {'use of drawn states':>20}"
    for preset, told in numbers(fit).items():
        reward = told["reward_r2_drawn_median"]
        shown = "reward constant" if reward is None else f"{reward:.3g}"
        yield f"  {preset:<12} {shown:>20} {told['state_use'].value:>20.2f}"


def _finding(finding: Finding) -> Iterator[str]:
    yield f"  {finding.severity}: {finding.name}"
    yield wrapped(finding.sentence, indent=4)
    yield wrapped(finding.threshold, indent=4, lead="rule: ")
    if finding.advice:
        yield wrapped(finding.advice, indent=4, lead="do: ")


def _structure(seen: Profile) -> Iterator[str]:
    spec = seen.spec
    dt = f"{spec.seconds_per_step:g} s a step" if spec.seconds_per_step else "time step not stated"
    limit = f"time limit {spec.max_episode_steps} steps" if spec.max_episode_steps else "no limit"
    yield (
        f"{spec.obs_dim} channels, {spec.act_dim} actions, {dt}, {limit}; termination"
        f" {seen.termination}, in {seen.terminated_share:.2%} of steps"
    )
    low, high = seen.reward_range
    yield (
        f"reward: mean {seen.reward_mean}, std {seen.reward_std}, from {low:.3g} to {high:.3g};"
        f" {seen.reward_usual_share:.2%} of steps pay the same; its spread rests on about"
        f" {seen.reward_rows:.0f} steps of {seen.reward_episodes:.1f} episodes"
    )
    v = seen.table.dynamics_over_reward
    yield (
        f"V = Σ Var(Δ) / Var(r) = {'infinite' if math.isinf(v.value) else v}: how much of an"
        " unweighted squared error the channels own, relative to the reward"
    )


def _channels(seen: Profile) -> Iterator[str]:
    """The channels that stand out as slow, resting, jumping or spiking, most striking first."""
    import numpy as np

    from ftfl.forensics.foresight_channels import SLOW, SPIKE

    slow = np.clip(1 - np.where(seen.moving, seen.ratio, 1.0) / SLOW, 0, 1)
    strange = np.maximum.reduce([slow, seen.still, seen.jump, np.minimum(seen.extreme / SPIKE, 1)])
    order = np.argsort(-strange, kind="stable")[:_SHOWN]
    name = max(min(width() - 52, 30), 16)
    more = f", {_SHOWN} of {seen.spec.obs_dim}" if seen.spec.obs_dim > _SHOWN else ""
    yield f"{'CHANNELS' + more:<{name + 2}}{'std':>10}{'change':>10}{'κ':>8}{'still':>8}{'jump':>8}"
    for i in order:
        cells = (
            f"{seen.std[i].value:>10.3g}{seen.change[i]:>10.3g}{seen.kappa[i]:>8.3f}"
            f"{seen.still[i]:>8.1%}{seen.jump[i]:>8.0%}"
        )
        yield f"  {seen.spec.obs_names[i][:name]:<{name}}{cells}"
    yield wrapped(
        "change: std of one step's change; κ: lag-1 autocorrelation; still: steps without any"
        " change; jump: squared change in the largest 1 % of steps (Gaussian: 8 %). In brackets: 95"
        " % intervals over episodes. --json has everything, channel by channel."
    )
