"""What `ftfl diagnose` prints, as text of 80 columns and more."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from ftfl.cli.text import width, wrapped
from ftfl.forensics.evidence import Finding
from ftfl.forensics.foresight import Foresight
from ftfl.forensics.foresight_channels import SLOW, SPIKE
from ftfl.forensics.foresight_fit import numbers
from ftfl.forensics.instruments.attribution import SEEN, Attribution
from ftfl.forensics.profile import Profile

_SHOWN = 12
"""Channels in the table."""


def text(
    task: str,
    seen: Profile,
    found: Foresight,
    facts: dict[str, Any],
    seconds: float,
    fit: Attribution | None,
) -> Iterator[str]:
    """Structure, findings, what to start with, and the channels that stand out."""
    trained = "nothing" if fit is None else "no agent"
    yield wrapped(
        f"{task}: {seen.rows} steps in {seen.episodes} episodes under {facts['source']}"
        f" ({seconds:.0f} s, {trained} was trained)",
        hanging=2,
    )
    if facts["cut_short"]:
        yield wrapped("stopped before all steps were taken: the task is slow", indent=2)
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
        f"{lead}{best.because}. These are predictions, and no agent was trained for them"
        + ("; --fit, which trains the model for a moment, is right far more often" * (fit is None))
        + "; how often such predictions were right: docs/taxonomy.md.",
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
    yield f"SHORT FIT ({fit.updates} updates, {len(fit.seeds)} seeds)"
    yield f"  {'preset':<12} {'R² of drawn rewards':>20} {'use of drawn states':>20}"
    for preset, told in numbers(fit).items():
        reward = told["reward_r2_drawn_median"]
        shown = "not judged" if reward is None else f"{reward:.3g}"
        yield f"  {preset:<12} {shown:>20} {told['state_use'].value:>20.2f}"
    if fit.seen < SEEN:
        yield wrapped(
            "Not judged: rewards of the stretches held apart have"
            f" {fit.seen:.2g} of the variance of all rewards here, less than {SEEN:g}."
        )
    yield wrapped(
        "R²: median over seeds, and what decides above. Use: how much better drawn next states are"
        " than assuming that nothing moves, mean over channels, 0 to 1; it decides nothing, for"
        " channels of noise cannot be predicted and need not be."
    )


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
