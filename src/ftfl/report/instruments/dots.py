"""Numbers of several runs as dots with their intervals, one row a quantity."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from ftfl.forensics.evidence import Estimate
from ftfl.report.drawing import draw, thousands, ticks
from ftfl.report.parts import Figure, LegendEntry
from ftfl.report.styles import GRID, INK, STYLES, slots

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Dot: TypeAlias = "Estimate | float"
Rows: TypeAlias = Mapping[str, Dot]
"""Numbers of one run by the name of their row; a row may be missing."""

MOST_ROWS = 14
_LONGEST_NAME = 22
_SPREAD = 0.62  # of the distance between rows, for all runs of a row together


@dataclass(frozen=True)
class Axis:
    """What is measured along a figure."""

    what: str
    """Quantity and unit."""
    marks: tuple[float, ...] = ()
    """Values drawn as lines; the caption says what they are."""
    frame: tuple[float, float] | None = None
    """Values beyond it are drawn as arrows at its edge; None: everything is in it."""
    log: bool = False
    """Values of 0 and below are then left out."""


def dots(title: str, runs: Mapping[str, Rows], axis: Axis, caption: str, bars: str = "") -> Figure:
    """One row a quantity, one dot with its 95 % interval a run.

    Args:
        title: of the figure.
        runs: by label; their order is that of the legend.
        axis: what is measured.
        caption: what to see; how to read bars and arrows is added.
        bars: the sentence on what bars are, where that is not what the estimates say.
    """
    slot = slots(list(runs))
    usable = {
        run: {n: d for n, d in rows.items() if _usable(d, axis)} for run, rows in runs.items()
    }
    names = list(dict.fromkeys(name for rows in runs.values() for name in rows))
    names = [name for name in names if any(name in rows for rows in usable.values())]
    shown = [run for run, rows in usable.items() if rows]
    if not shown:
        return Figure(title, "", f"Nothing to draw: no run has a value. {caption}")
    apart = _SPREAD / max(len(shown), 1)

    def paint(axes: Axes) -> None:
        axes.grid(False, axis="y")
        axes.grid(True, axis="x")
        for mark in axis.marks:
            axes.axvline(mark, color=INK, lw=0.8, alpha=0.6, dashes=(4, 2), zorder=1)
        _scale(axes, axis, [d for run in shown for d in usable[run].values()])
        for number, run in enumerate(shown):
            style = STYLES[slot[run]]
            for row, name in enumerate(names):
                if name in usable[run]:
                    at = row + (number - (len(shown) - 1) / 2) * apart
                    _dot(axes, usable[run][name], at, style.light, style.marker)
        axes.set_yticks(range(len(names)), [_short(n) for n in names], parse_math=False)
        axes.tick_params(axis="y", length=0)
        axes.set_ylim(len(names) - 0.4, -0.6)
        for row in range(1, len(names)):
            axes.axhline(row - 0.5, color=GRID, lw=0.4, zorder=0)
        axes.set_xlabel(axis.what, loc="right")

    height = 0.75 + len(names) * max(0.24, 0.13 * len(shown))
    drawn = [d for run in shown for d in usable[run].values()]
    legend = tuple(LegendEntry(f"{run}{_count(usable[run].values())}", slot[run]) for run in shown)
    absent = [run for run in runs if run not in shown]
    notes = [caption, *_reading(drawn, axis, bars)]
    if absent:
        notes.append(f"Without a value: {', '.join(absent)}.")
    return Figure(title, draw(paint, height), " ".join(notes), legend)


def picked(sizes: Mapping[str, float], keep: Sequence[str] = ()) -> list[str]:
    """At most `MOST_ROWS` names, in their order: those to keep, then the largest and smallest."""
    known = [name for name, size in sizes.items() if math.isfinite(size)]
    if len(known) <= MOST_ROWS:
        return known
    kept = [name for name in keep if name in known]
    others = sorted((n for n in known if n not in kept), key=lambda n: sizes[n])
    room = MOST_ROWS - len(kept)
    chosen = {*kept, *others[: room // 2], *others[len(others) - (room - room // 2) :]}
    return [name for name in known if name in chosen]


def left_out(shown: int, there: int, what: str) -> str:
    """The sentence on rows that did not fit; empty if all did."""
    if shown >= there:
        return ""
    return f" Of {there} {what} the {shown} largest and smallest are drawn; --json has all."


def scope(estimates: Sequence[Dot]) -> tuple[int, int] | None:
    """The fewest and the most pieces that intervals rest on; None without an interval."""
    counts = [e.n for e in estimates if isinstance(e, Estimate)]
    return (min(counts), max(counts)) if counts else None


def _usable(dot: Dot, axis: Axis) -> bool:
    value = _value(dot)
    return math.isfinite(value) and (value > 0 or not axis.log)


def _value(dot: Dot) -> float:
    return float(dot.value if isinstance(dot, Estimate) else dot)


def _bounded(dot: Dot) -> bool:
    return isinstance(dot, Estimate) and math.isfinite(dot.low) and math.isfinite(dot.high)


def _ends(dot: Dot) -> tuple[float, float]:
    if isinstance(dot, Estimate) and _bounded(dot):
        return dot.low, dot.high
    return _value(dot), _value(dot)


def _scale(axes: Axes, axis: Axis, all_dots: Sequence[Dot]) -> None:
    values = [v for d in all_dots for v in (_value(d), *_ends(d))]
    if axis.log:
        values = [v for v in values if v > 0]
    values += axis.marks
    low, high = (min(values), max(values)) if axis.frame is None else axis.frame
    if axis.log:
        axes.set_xscale("log")
        low, high = low / 1.4, high * 1.4
        axes.xaxis.set_major_locator(_decades(low, high))
        axes.xaxis.set_minor_formatter(lambda value, place: "")
    else:
        margin = 0.05 * (high - low) or max(abs(high), 1.0) * 0.1
        low, high = low - margin, high + margin
        axes.xaxis.set_major_locator(ticks())
    axes.xaxis.set_major_formatter(thousands)
    axes.set_xlim(low, high)


def _decades(low: float, high: float) -> Any:
    from matplotlib.ticker import LogLocator

    few = high / low < 30
    return LogLocator(base=10, subs=(1.0, 2.0, 5.0) if few else (1.0,), numticks=6)


def _dot(axes: Axes, dot: Dot, at: float, colour: str, marker: str) -> None:
    low, high = axes.get_xlim()
    value = _value(dot)
    if _bounded(dot):
        start, end = (min(max(x, low), high) for x in _ends(dot))
        axes.plot([start, end], [at, at], color=colour, lw=1.4, alpha=0.75, zorder=3)
    if low <= value <= high:
        hollow = isinstance(dot, Estimate) and not _bounded(dot)
        axes.plot(
            value, at, color=colour, marker=marker, ms=5, zorder=4,
            mfc="none" if hollow else colour, mew=1.2 if hollow else 0,
        )  # fmt: skip
    else:
        edge, arrow = (low, "<") if value < low else (high, ">")
        axes.plot(edge, at, color=colour, marker=arrow, ms=7, mew=0, zorder=5, clip_on=False)


def _count(shown: Any) -> str:
    span = scope(list(shown))
    if span is None:
        return ""
    return f", n = {span[0]}" if span[0] == span[1] else f", n = {span[0]} to {span[1]}"


def _reading(drawn: Sequence[Dot], axis: Axis, bars: str) -> Iterator[str]:
    methods = sorted({_method(d.method) for d in drawn if isinstance(d, Estimate) and _bounded(d)})
    if methods:
        yield bars or f"Bars: 95 % intervals ({'; '.join(methods)})."
    if any(isinstance(d, Estimate) and not _bounded(d) for d in drawn):
        yield "Hollow: too few for an interval."
    if axis.frame is not None:
        margin = 0.05 * (axis.frame[1] - axis.frame[0])
        low, high = axis.frame[0] - margin, axis.frame[1] + margin
        if any(not low <= _value(d) <= high for d in drawn):
            yield "Arrows: beyond the frame; the table has the number."


def _method(method: str) -> str:
    return method.replace("clusters", "episodes")


def _short(name: str) -> str:
    name = "".join(c if c.isprintable() else "�" for c in name)
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"
