"""Figures of what was trained anew: what units, targets and single changes make of it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from ftfl.forensics.instruments.attribution import Attribution
from ftfl.forensics.instruments.forks import PairedForks
from ftfl.forensics.instruments.share_history import ShareHistory
from ftfl.forensics.instruments.targets import TargetComparison
from ftfl.forensics.instruments.units import UnitInvariance
from ftfl.report.instruments.dots import Axis, Dot, dots, left_out, picked
from ftfl.report.parts import Figure

_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
BARS = "Bars: 95 % Student-t intervals over paired seeds."


def history(results: Mapping[str, ShareHistory]) -> Figure:
    """The reward's shares as a model is trained, from `share_history`."""
    return dots(
        "The reward's part as a model is trained",
        {run: dict(_history(result)) for run, result in results.items()},
        Axis("share", log=True),
        "The reward's share of the loss, of the shared layers' gradient as far as the targets'"
        " variation makes it, and of Adam's step on them, after so many updates from scratch. With"
        " D outputs an equal share is 1/D of the loss and 1/√D of the others.",
        "Bars: 95 % Student-t intervals over members.",
    )


def _history(result: ShareHistory) -> Iterator[tuple[str, Dot]]:
    for what, field in (("loss", "loss"), ("signal", "signal_gradient"), ("step", "adam_step")):
        for updates, found in result.shares.items():
            yield f"{what}, {updates:,} updates", getattr(found, field)


def units(results: Mapping[str, UnitInvariance]) -> Figure:
    """What another unit costs, from `unit_invariance`."""
    return dots(
        "What another unit costs the model",
        {run: dict(_units(result)) for run, result in results.items()},
        Axis("usable R² or skill lost", marks=(0.0,)),
        "The same refit with rewards written in another unit, or channels (every second one in the"
        " inverse unit). The task is the same to the last bit, so anything but 0 (dashed) is the"
        " model's doing; right of 0 it learned less. “R²” is of the reward, “skill” the mean"
        " over channels.",
        BARS,
    )


def _units(result: UnitInvariance) -> Iterator[tuple[str, Dot]]:
    for change in result.changes:
        unit = f"{change.what} × 2{str(change.power).translate(_RAISED)}"
        yield f"R²: {unit}", change.reward_loss
        yield f"skill: {unit}", change.state_loss


def targets(results: Mapping[str, TargetComparison]) -> Figure:
    """Direct against residual prediction by channel, from `residual_or_direct`."""
    sizes: dict[str, float] = {}
    for result in results.values():
        for name, gain in zip(result.names, result.difference, strict=True):
            sizes[name] = max(sizes.get(name, -math.inf), gain.value)
    names = picked(sizes)
    return dots(
        "Direct against residual targets",
        {
            run: {n: d for n, d in zip(r.names, r.difference, strict=True) if n in names}
            for run, r in results.items()
        },
        Axis("skill: direct − residual", marks=(0.0,)),
        "Usable skill over persistence of draws, the same rows, seeds and number of updates. Right"
        " of 0 (dashed) predicting the next state itself is better, left of it predicting the"
        " change." + left_out(len(names), len(sizes), "channels"),
        BARS,
    )


def reward_doors(results: Mapping[str, Attribution]) -> Figure:
    """What each change gives the reward, from `attribution`."""
    return _doors(results, "reward", "Which single change restores the reward", "R² gained")


def state_doors(results: Mapping[str, Attribution]) -> Figure:
    """What each change gives the state, from `attribution`."""
    return _doors(results, "state", "Which single change restores the state", "skill gained")


def _doors(results: Mapping[str, Attribution], what: str, title: str, axis: str) -> Figure:
    return dots(
        title,
        {run: dict(result.gains(what)) for run, result in results.items()},
        Axis(f"usable {axis} (of draws)", marks=(0.0,)),
        "Models trained anew on the run's own rows, each with one thing changed, against one"
        " with nothing changed (0, dashed). Right of 0 the change repairs something. It is what"
        " the model gains on held-out rows; whether the agent gains is for a paired fork to say.",
        BARS,
    )


def forks(results: Mapping[str, PairedForks]) -> Figure:
    """What each change gives the agent, from `train_forks`."""
    steps = ", ".join(f"{n:,}" for n in sorted({r.steps for r in results.values()}))
    return dots(
        "What one change gives the agent",
        {run: dict(result.gains()) for run, result in results.items()},
        Axis("return gained (reward)", marks=(0.0,)),
        f"The same agent, {steps} steps on, with one thing changed, against a fork with nothing"
        " changed (0, dashed). Right of 0 the agent earns more. Models start anew in all of them.",
        BARS,
    )
