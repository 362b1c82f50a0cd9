"""Run tables that fit the width they are given: columns are dropped, cells never broken."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TextIO

from rich.box import ASCII2, SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

Status = Mapping[str, Any]

FINAL_STATES = ("done", "stopped", "failed")
_GAP = 2  # blanks between columns: one of padding, one from the box
_SHORTEST_NAME = 10
_STYLES = {
    "failed": "bold red",
    "stopped": "yellow",
    "done": "green",
    "evaluating": "cyan",
    "training": "bold",
}


@dataclass(frozen=True)
class Column:
    """A column of the live table; ``keep`` 0 is never dropped, the highest goes first.

    ``least`` is a width that keeps the table from jumping as its cells change.
    """

    title: str
    cell: Callable[[Status], str]
    keep: int
    numeric: bool = True
    least: int = 0


def number(value: Any, digits: int = 3) -> str:
    """A number for people: ``digits`` significant digits, empty for a missing one."""
    if value is None or isinstance(value, str):
        return clean(value or "")
    value = float(value)
    size = abs(value)
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    if size < 10.0 ** (1 - digits) or size >= 1e6:
        return f"{value:.{digits - 2}e}".replace("e-0", "e-").replace("e+0", "e+")
    whole = len(str(int(size))) if size >= 1 else 0
    return f"{value:.{max(0, digits - whole)}f}"


def steps(value: Any) -> str:
    """A count such as 950, 12.5k or 1M, rounded down: 99,999 steps are not yet 100k."""
    if value is None:
        return ""
    for size, suffix in ((10**6, "M"), (10**3, "k")):
        if abs(value) >= size:
            return f"{value * 10 // size / 10:.1f}".removesuffix(".0") + suffix
    return str(int(value))


def duration(seconds: Any) -> str:
    """Seconds as 45s, 3m20s or 2h05m; empty for an unknown time."""
    if seconds is None or not 0 <= seconds < 1e9:
        return ""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


def clean(text: Any) -> str:
    """``text`` on one line without control characters, which could repaint the terminal."""
    return "".join(c if c.isprintable() else " " for c in str(text)).strip()


def share(status: Status) -> str:
    """How much of the run is done, in per cent; 100% only when nothing is left."""
    done, total = status.get("env_steps"), status.get("total_steps")
    return f"{min(100, 100 * done // total):.0f}%" if done is not None and total else ""


def remaining(status: Status) -> str:
    """The time left, for a run that still goes on."""
    return "" if status.get("state") in FINAL_STATES else duration(status.get("eta_seconds"))


def _progress(status: Status) -> str:
    done, total = steps(status.get("env_steps")), steps(status.get("total_steps"))
    return f"{done}/{total}" if done and total else done


def _rewards(status: Status) -> str:
    synthetic, real = status.get("synthetic_reward_mean"), status.get("real_reward_mean")
    if synthetic is None and real is None:
        return ""
    return f"{number(synthetic)} / {number(real)}"


def _r2(status: Status) -> str:
    value = status.get("reward_r2")
    # Hundredths are enough, and far below zero only the size matters.
    return "" if value is None else f"{value:.2f}" if value > -10 else number(value, 2)


def columns(unicode: bool) -> tuple[Column, ...]:
    """The columns of the live table in reading order."""
    squared = "R²" if unicode else "R2"
    return (
        Column("run", lambda s: clean(s.get("label", "")), 0, numeric=False),
        Column("seed", lambda s: str(s.get("seed", "")), 5),
        Column("state", lambda s: clean(s.get("state", "")), 3, numeric=False, least=10),
        Column("steps", _progress, 4),
        Column("%", share, 0, least=4),
        Column("return", lambda s: number(s.get("last_return"), 4), 0),
        Column(f"reward {squared}", _r2, 6),
        Column("synthetic / real reward", _rewards, 7),
        Column("steps/s", lambda s: number(s.get("steps_per_second")), 8),
        Column("ETA", remaining, 2, least=6),
    )


def fit_columns(
    candidates: Sequence[Column], statuses: Sequence[Status], width: int
) -> list[tuple[Column, int]]:
    """The columns that say something and fit into ``width``, each with its own width.

    Empty columns go first (a table of SAC runs has no model columns); then, by priority, what the
    width cannot hold. The seed stays wherever it tells two runs apart. Only the names of the runs,
    which come first, may be shortened: a cut number would be a wrong number.
    """
    seeds_differ = len({s.get("seed") for s in statuses}) > 1
    shown = [c for c in candidates if c.keep == 0 or any(c.cell(s) for s in statuses)]
    widths = {c.title: max(map(cell_len, (c.title, *(c.cell(s) for s in statuses)))) for c in shown}
    names = shown[0].title

    def others() -> int:
        return sum(widths[c.title] + _GAP for c in shown[1:])

    while min(_SHORTEST_NAME, widths[names]) + others() > width:
        droppable = [c for c in shown if c.keep and not (c.title == "seed" and seeds_differ)]
        if not droppable:
            break
        shown.remove(max(droppable, key=lambda c: c.keep))
    widths[names] = min(widths[names], max(_SHORTEST_NAME, width - others()))
    return [(column, widths[column.title]) for column in shown]


class RunTable:
    """The live table of a list of statuses, at whatever width the console has now."""

    def __init__(self, statuses: Sequence[Status]) -> None:
        self.statuses = statuses

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        unicode = not options.ascii_only
        shown = fit_columns(columns(unicode), self.statuses, options.max_width)
        table = _plain_table(unicode)
        for column, width in shown:
            table.add_column(
                column.title,
                justify="right" if column.numeric else "left",
                no_wrap=True,
                width=width,
                overflow="ellipsis" if unicode else "crop",
            )
        for status in self.statuses:
            style = _STYLES.get(str(status.get("state")), "")
            table.add_row(
                *(Text(c.cell(status), style if c.title == "state" else "") for c, _ in shown)
            )
        yield table
        for status in self.statuses:
            message = clean(status.get("message") or "")
            if message:
                style = "red" if status.get("state") == "failed" else "dim"
                yield Text(f"{name_of(status)}: {message}", style)


def name_of(status: Status) -> str:
    """``label seed N``, the way a run is called in plain lines and messages."""
    return clean(f"{status.get('label', 'run')} seed {status.get('seed', '?')}")


class _Summary:
    def __init__(self, rows: Sequence[Mapping[str, Any]], title: str) -> None:
        self.names = list(dict.fromkeys(name for row in rows for name in row))
        self.cells = [[_cell(row.get(name)) for name in self.names] for row in rows]
        self.numeric = [
            all(isinstance(row.get(name), int | float | None) for row in rows)
            for name in self.names
        ]
        self.title = clean(title)
        widest = [
            max(map(cell_len, column)) for column in zip(self.names, *self.cells, strict=True)
        ]
        self.natural_width = sum(width + _GAP for width in widest)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if self.title:
            yield Text(self.title, "bold")
        fits = self.natural_width <= options.max_width
        yield self._table(options.ascii_only) if fits else self._cards()

    def _table(self, ascii_only: bool) -> Table:
        table = _plain_table(not ascii_only)
        for name, numeric in zip(self.names, self.numeric, strict=True):
            table.add_column(clean(name), justify="right" if numeric else "left", no_wrap=True)
        for row in self.cells:
            table.add_row(*map(Text, row))
        return table

    def _cards(self) -> Group:
        """One short line a cell: what a table too wide for the terminal turns into."""
        wide = max(map(cell_len, self.names), default=0)
        lines: list[RenderableType] = []
        for index, row in enumerate(self.cells):
            if index:
                lines.append(Text(""))
            for name, value in zip(self.names, row, strict=True):
                lines.append(Text(f"{clean(name):<{wide}}  {value}"))
        return Group(*lines)


def _plain_table(unicode: bool) -> Table:
    box = SIMPLE_HEAD if unicode else ASCII2
    return Table(
        box=box, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold"
    )


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value) if isinstance(value, int) else number(value, 4)


def summary_table(rows: Sequence[Mapping[str, Any]], title: str = "") -> RenderableType:
    """A final table of ``rows`` (column name → text, number or None), one row a mapping.

    Printed to a width it does not fit, it becomes one short ``name  value`` line a cell, because a
    table broken over lines can be neither read nor copied.
    """
    return _Summary(rows, title)


def print_summary(rows: Sequence[Mapping[str, Any]], stream: TextIO, title: str = "") -> None:
    """Print ``summary_table``; a file or pipe has no width, so there it is always a table."""
    summary = _Summary(rows, title)
    width = None if stream.isatty() else max(80, summary.natural_width)
    Console(file=stream, width=width, highlight=False).print(summary)
