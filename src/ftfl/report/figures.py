"""Curves as SVG: every seed a thin line, the mean a thick one, nothing drawn that was not run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ftfl.errors import unknown
from ftfl.report.curves import Arm, MeanCurve, Seed, mean_curve
from ftfl.report.drawing import draw, thousands, ticks
from ftfl.report.intervals import METHOD, SMALLEST_BAND
from ftfl.report.parts import Figure, LegendEntry
from ftfl.report.styles import STYLES, slots
from ftfl.store.metrics import METRICS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MANY_POINTS = 40
_FEW_POINTS = 12

_TITLES = {
    "eval/return_mean_reward": "Evaluation return",
    "model/reward_r2": "Reward prediction of the model",
    "model/skill_over_persistence": "State prediction of the model against standing still",
    "agent/q_mean_scaled": "Value estimates of the critics",
    "rollout/synthetic_reward_mean_reward": "Synthetic against real rewards",
}


def learning_curves(
    arms: Sequence[Arm],
    metric: str = "eval/return_mean_reward",
    title: str | None = None,
) -> Figure:
    """Evaluation return over environment steps: the figure to compare algorithms by."""
    return metric_curves(arms, metric, title)


def metric_curves(
    arms: Sequence[Arm],
    metric: str,
    title: str | None = None,
    reference: str | None = None,
    see: str | None = None,
) -> Figure:
    """One metric over environment steps, all arms and seeds in one pair of axes.

    Args:
        arms: what to draw; an arm that never recorded the metric is named in the caption.
        metric: a registered name.
        title: heading of the figure; by default a short name of the metric.
        reference: a second registered metric in the same unit, drawn dashed in the arm's colour,
            for arms that have the first.
        see: what to look for; by default the registry's sentence about the metric.

    Raises:
        FtflError: a metric is not registered.
    """
    for name in filter(None, (metric, reference)):
        if name not in METRICS:
            raise unknown("metric", name, METRICS)
    title = title or _TITLES.get(metric, metric)
    see = see or METRICS[metric].meaning
    slot = slots([arm.label for arm in arms])
    shown = [arm for arm in arms if any(seed.curve(metric)[0].size for seed in arm.seeds)]
    if not shown:
        names = ", ".join(arm.label for arm in arms)
        return Figure(title, "", f"Nothing to draw: {metric} was not recorded by {names}.")
    means = {arm.label: mean_curve(arm, metric) for arm in shown}
    references = {arm.label: mean_curve(arm, reference) for arm in shown} if reference else {}

    axis, word, reference_word = _names(metric, reference)

    def paint(axes: Axes) -> None:
        for number, arm in enumerate(shown):
            style = STYLES[slot[arm.label]]
            for seed_number, seed in enumerate(arm.seeds):
                _seed_line(axes, seed, metric, style.light, f"arm{number}-seed{seed_number}")
            _mean_line(axes, means[arm.label], style.light, style.marker, f"arm{number}")
            if reference is not None:
                _reference_lines(axes, arm, reference, references[arm.label], style.light)
        _frame(axes, f"{axis} ({METRICS[metric].unit})")

    legend = []
    for arm in shown:
        entries = [(metric, word, False)]
        if reference is not None:
            entries.append((reference, reference_word, True))
        for name, what, dashed in entries:
            text = f"{arm.label}: {what}" if what else arm.label
            legend.append(LegendEntry(f"{text}, {_count(arm, name)}", slot[arm.label], dashed))
    return Figure(
        title,
        draw(paint),
        " ".join([see, *_reading(arms, shown, means, metric)]),
        tuple(legend),
    )


def _reading(
    arms: Sequence[Arm],
    shown: Sequence[Arm],
    means: dict[str, MeanCurve | None],
    metric: str,
) -> list[str]:
    """Sentences on what the lines are and what is missing."""
    lines = ["Thin lines: single seeds; thick line with markers: their mean."]
    if any(mean is not None and mean.half_width is not None for mean in means.values()):
        lines.append(f"Band: pointwise {METHOD} (cut at the frame).")
    small = [arm.label for arm in shown if 1 < len(arm.seeds) < SMALLEST_BAND]
    if small:
        lines.append(f"No band below {SMALLEST_BAND} seeds: {', '.join(small)}.")
    single = [arm.label for arm in shown if len(arm.seeds) == 1]
    if single:
        lines.append(f"One seed only (its own curve is the thick one): {', '.join(single)}.")
    broken = [
        f"{arm.label} {seed.name}" for arm in shown for seed in arm.seeds
        if seed.failed and seed.curve(metric)[0].size
    ]  # fmt: skip
    if broken:
        lines.append(f"× marks where a failed seed ends: {', '.join(broken)}.")
    if any(len({seed.env_steps for seed in arm.seeds}) > 1 for arm in shown):
        lines.append("A mean ends where the first of its seeds ends.")
    absent = [
        f"{arm.label} {seed.name}" for arm in shown for seed in arm.seeds
        if not seed.curve(metric)[0].size
    ]  # fmt: skip
    if absent:
        lines.append(f"No values, hence no mean of their arm: {', '.join(absent)}.")
    gaps = [
        f"{arm.label} {seed.name}" for arm in shown for seed in arm.seeds
        if not np.isfinite(seed.curve(metric)[1]).all()
    ]  # fmt: skip
    if gaps:
        lines.append(f"Gaps are values that were not finite: {', '.join(gaps)}.")
    without = [arm.label for arm in arms if arm not in shown]
    if without:
        lines.append(f"Not recorded by {', '.join(without)}.")
    return lines


def _seed_line(axes: Axes, seed: Seed, metric: str, colour: str, gid: str) -> None:
    steps, values = seed.curve(metric)
    if not steps.size:
        return
    marker = "." if steps.size <= _FEW_POINTS else None
    axes.plot(steps, values, color=colour, lw=0.8, alpha=0.5, marker=marker, ms=4, mew=0, gid=gid)
    finite = np.flatnonzero(np.isfinite(values))
    if seed.failed and finite.size:
        at = finite[-1]
        axes.plot(
            steps[at],
            values[at],
            color=colour,
            marker="x",
            ms=7,
            mew=1.8,
            zorder=5,
            gid=f"{gid}-failed",
        )


def _mean_line(axes: Axes, mean: MeanCurve | None, colour: str, marker: str, gid: str) -> None:
    if mean is None:
        return
    if mean.half_width is not None:
        # Frozen limits: a wide band must not squeeze the seeds it is about into a line.
        limits = axes.dataLim.frozen()
        low, high = mean.mean - mean.half_width, mean.mean + mean.half_width
        axes.fill_between(
            mean.steps, low, high, color=colour, alpha=0.16, lw=0, gid=f"{gid}-band", zorder=1
        )
        axes.dataLim.set(limits)
    every = max(1, mean.steps.size // _FEW_POINTS) if mean.steps.size > _MANY_POINTS else 1
    axes.plot(
        mean.steps, mean.mean, color=colour, lw=2.0, marker=marker, ms=4.5, mew=0,
        markevery=every, gid=f"{gid}-mean", zorder=4,
    )  # fmt: skip


def _reference_lines(
    axes: Axes, arm: Arm, metric: str, mean: MeanCurve | None, colour: str
) -> None:
    for seed in arm.seeds:
        axes.plot(*seed.curve(metric), color=colour, lw=0.7, alpha=0.55, dashes=(4, 2))
    if mean is not None:
        axes.plot(mean.steps, mean.mean, color=colour, lw=1.6, dashes=(4, 2), zorder=3)


def _frame(axes: Axes, what: str) -> None:
    """Titles with units, readable ticks, and limits that follow the seeds."""
    axes.autoscale_view()
    axes.set_title(what)
    axes.set_xlabel("environment steps")
    axes.xaxis.set_major_locator(ticks())
    axes.xaxis.set_major_formatter(thousands)
    axes.yaxis.set_major_locator(ticks())


def _count(arm: Arm, metric: str) -> str:
    recorded = sum(bool(seed.curve(metric)[0].size) for seed in arm.seeds)
    if recorded < len(arm.seeds):
        return f"n = {recorded} of {len(arm.seeds)} seeds"
    return f"n = {recorded} {'seed' if recorded == 1 else 'seeds'}"


def _names(metric: str, reference: str | None) -> tuple[str, str, str]:
    """What the axis says, and the word that tells a metric from its reference.

    ``rollout/synthetic_reward…`` and ``rollout/real_reward…`` give ``rollout/…_reward…``,
    ``synthetic`` and ``real``; without a reference the axis has the whole name.
    """
    if reference is None:
        return metric, "", ""
    area, _, quantity = metric.partition("/")
    word, _, rest = quantity.partition("_")
    other_area, _, other_quantity = reference.partition("/")
    other_word, _, other_rest = other_quantity.partition("_")
    if (area, rest) == (other_area, other_rest):
        return f"{area}/…_{rest}", word, other_word
    return metric, metric, reference
