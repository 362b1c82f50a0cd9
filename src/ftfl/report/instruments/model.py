"""Figures of what the dynamics model learned: sizes, uncertainty, rewards, rollouts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from ftfl.forensics.evidence import Estimate
from ftfl.forensics.instruments.reward import MATTERS, RewardFidelity
from ftfl.forensics.instruments.rollout import RolloutError
from ftfl.forensics.instruments.scales import Scales
from ftfl.forensics.instruments.screen import ScreenSight
from ftfl.forensics.instruments.shares import RewardShares
from ftfl.forensics.instruments.variance import ModelVariance
from ftfl.report.drawing import draw
from ftfl.report.instruments.dots import Axis, Dot, dots, left_out, picked
from ftfl.report.parts import Figure, LegendEntry
from ftfl.report.styles import INK, STYLES, slots

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def sizes(results: Mapping[str, Scales]) -> Figure:
    """How large each target is to the loss, from `target_scales`."""
    seen = {run: dict(_seen(scales)) for run, scales in results.items()}
    every = {name: _value(dot) for rows in seen.values() for name, dot in rows.items()}
    names = picked(every, ("reward",))
    return dots(
        "How large each target is to the loss",
        {run: {n: rows[n] for n in names if n in rows} for run, rows in seen.items()},
        Axis("std of the target as the loss sees it", log=True),
        "Standard deviation in the loss's own unit: raw targets in physical units, standardised"
        " ones 1. Look for a reward far to the left of the rest: its errors are small numbers,"
        " which a raw loss hardly sees. Constant outputs are left out."
        + left_out(len(names), len(every), "outputs"),
    )


def _seen(scales: Scales) -> Iterator[tuple[str, Dot]]:
    """Standardised targets have spread 1, known as well as the std that they were divided by."""
    raw = scales.cell.endswith("raw")
    for name, std in zip(scales.table.names, scales.table.std, strict=True):
        if std.value > 0:
            yield name, std if raw else _times(std, 1 / std.value, std.method)


def shares(results: Mapping[str, Scales]) -> Figure:
    """The reward's shares of what trains the model, from `target_scales`."""
    return dots(
        "The reward's part in training the model",
        {run: dict(_shares(scales)) for run, scales in results.items()},
        Axis("reward's share ÷ an equal share", marks=(1.0,), log=True),
        "1 (dashed): as much as an output has on average. “Data” is the part of the trunk's"
        " gradient that the targets' variation makes. Left of 0.1 at the start, the shared layers"
        " learn next to nothing for the reward.",
        "Bars: 95 % intervals over the members of the ensemble.",
    )


def _shares(scales: Scales) -> Iterator[tuple[str, Dot]]:
    for when, found in (("start", scales.at_start), ("trained", scales.trained)):
        if found is None:
            continue
        for what, share, equal in _kinds(found):
            yield f"{what}, {when}", _times(share, 1 / equal, "over members")


def _kinds(found: RewardShares) -> tuple[tuple[str, Estimate, float], ...]:
    of_gradient = found.outputs**-0.5
    return (
        ("loss", found.loss, 1 / found.outputs),
        ("gradient", found.gradient, of_gradient),
        ("data", found.signal_gradient, of_gradient),
        ("Adam's step", found.adam_step, of_gradient),
    )


def _times(e: Estimate, factor: float, method: str) -> Estimate:
    return Estimate(e.value * factor, e.low * factor, e.high * factor, e.n, method)


def honesty(results: Mapping[str, ModelVariance]) -> Figure:
    """Errors over predicted stds, from `model_variance`."""
    every: dict[str, float] = {}
    for result in results.values():
        for name, z in zip(result.names, result.z_rms, strict=True):
            every[name] = max(every.get(name, 0.0), z.value)
    names = picked(every, ("reward",))
    rows = {
        run: {n: z for n, z in zip(r.names, r.z_rms, strict=True) if n in names}
        for run, r in results.items()
    }
    return dots(
        "Does the model know how wrong it is?",
        rows,
        Axis("error ÷ predicted std (rms of z)", marks=(1.0, 2.0), log=True),
        "1 (first dashed line): errors are as large as the model says. Right of 2 it is far too"
        " sure; far left of 1 it draws noise that is not there."
        + left_out(len(names), len(every), "outputs"),
    )


def fidelity(results: Mapping[str, RewardFidelity]) -> Figure:
    """All numbers that are 1 for a true reward and 0 for a useless one, from `reward_fidelity`."""
    return dots(
        "How true the model's reward is",
        {run: dict(_fidelity(result)) for run, result in results.items()},
        Axis("1: the true reward, 0: says nothing", marks=(0.0, 1.0), frame=(-1.0, 1.5)),
        "R²: explained share of the reward's variance, by the mean of the elites and by single"
        " draws, which are what the critic learns from. Slope ρ: how much the model's reward varies"
        " where the true one varies by 1. Ranking: order of a state's actions, model against"
        " simulator, where actions make over 1 % of the reward's variance. Look for draws left of"
        " 0: a constant would teach the critic more.",
    )


def _fidelity(result: RewardFidelity) -> Iterator[tuple[str, Dot]]:
    if result.replay.std > 0:
        yield "R² of the mean", result.replay.r2
        yield "R² of draws", result.replay_drawn.r2
        yield "slope ρ", result.replay.slope
    if result.own is not None and result.own.std > 0:
        yield "R², own actions", result.own.r2
        yield "slope ρ, own actions", result.own.slope
    ranking = result.ranking
    if ranking is not None and ranking.states and ranking.share > MATTERS:
        yield "ranking of actions", ranking.correlation


def sight(results: Mapping[str, ScreenSight]) -> Figure:
    """What the screen knows of true errors, and what it keeps, from `screen_sight`."""
    return dots(
        "What the screen sees, and what it lets through",
        {run: dict(_sight(result)) for run, result in results.items()},
        Axis("share, R², or rank correlation", marks=(0.0, 1.0), frame=(-1.0, 1.5)),
        "Order: rank correlation of the screen's uncertainty with the true error of reward and next"
        " state; 0: it does not know where the model is wrong. R² of drawn rewards, of all rows and"
        " of those stored: where both are alike, the screen does not help the reward.",
    )


def _sight(result: ScreenSight) -> Iterator[tuple[str, Dot]]:
    yield "rows stored", result.stored
    for name, found in (
        ("order, reward error", result.sees_reward),
        ("order, state error", result.sees_state),
        ("reward's R², all rows", result.reward_r2),
        ("reward's R², stored", result.reward_r2_stored),
    ):
        if found is not None:
            yield name, found


def skill(results: Mapping[str, RolloutError]) -> Figure:
    """Skill against persistence by step, from `rollout_error`."""
    title, slot = "How far the model can be followed", slots(list(results))
    steps = max(len(result.median_skill) for result in results.values())

    def paint(axes: Axes) -> None:
        axes.axhline(0.0, color=INK, lw=0.8, alpha=0.6, dashes=(4, 2), zorder=1)
        for number, (run, result) in enumerate(results.items()):
            style, every = STYLES[slot[run]], result.median_skill
            at = np.arange(1, len(every) + 1) + (number - (len(results) - 1) / 2) * 0.08
            value = np.array([_inside(e.value) for e in every])
            low, high = (np.array([_inside(x) for x in side])
                         for side in ([e.low for e in every], [e.high for e in every]))  # fmt: skip
            axes.vlines(at, low, high, color=style.light, lw=1.4, alpha=0.75)
            axes.plot(at, value, color=style.light, marker=style.marker, ms=5, mew=0, lw=1.2)
        axes.set_ylim(*_FRAME)
        axes.set_xticks(range(1, steps + 1))
        axes.set_title("median skill over channels (1: exact)")
        axes.set_xlabel("imagined steps")

    counts = {run: [e.n for e in r.median_skill] for run, r in results.items()}
    legend = tuple(
        LegendEntry(f"{run}, n = {min(n)} to {max(n)} episodes" if min(n) < max(n)
                    else f"{run}, n = {n[0]} episodes", slot[run])
        for run, n in counts.items()
    )  # fmt: skip
    caption = (
        "Median over channels of 1 − squared error ÷ that of assuming that nothing moves (0,"
        " dashed), from the same states with the same actions. Below 0 the model is worse than no"
        " model. Bars: 95 % bootstrap intervals over episodes. Values and bars below"
        f" {_FRAME[0]:g} are drawn at the lower edge."
    )
    return Figure(title, draw(paint), caption, legend)


_FRAME = (-1.0, 1.05)


def _inside(value: float) -> float:
    return float(np.clip(value, *_FRAME)) if not np.isnan(value) else value


def _value(dot: Dot) -> float:
    return dot.value if isinstance(dot, Estimate) else float(dot)
