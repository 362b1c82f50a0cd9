"""What a terminal shows while runs train in other processes: it reads their ``status.json``."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TextIO

from rich.console import Console
from rich.live import Live

from ftfl.errors import FtflError
from ftfl.sinks.table import (
    FINAL_STATES,
    RunTable,
    clean,
    name_of,
    number,
    print_summary,
    remaining,
    share,
    steps,
    summary_table,
)
from ftfl.store.rundir import RunDir

__all__ = ["LiveTable", "PlainLines", "print_summary", "read_statuses", "summary_table", "watch"]

_LINE_SECONDS = 10.0
_POLL_SECONDS = 0.25


class Renderer(Protocol):
    """Shows statuses, one per run directory, whenever ``update`` is called."""

    def update(self, statuses: Sequence[dict[str, Any]]) -> None:
        """Show the newest statuses."""
        ...

    def close(self) -> None:
        """Leave the terminal as it was found, the last statuses still visible."""
        ...


class LiveTable:
    """A table redrawn in place; adapts to the width of the terminal, also when it changes."""

    def __init__(self, stream: TextIO | None = None, console: Console | None = None) -> None:
        self.console = console or Console(file=stream, highlight=False)
        self._live = Live(console=self.console, auto_refresh=False)

    def update(self, statuses: Sequence[dict[str, Any]]) -> None:
        """Redraw with the newest statuses."""
        self._live.start()
        self._live.update(RunTable(statuses), refresh=True)

    def close(self) -> None:
        """Leave the last table on the screen and give the cursor back."""
        self._live.stop()


class PlainLines:
    """Lines for a log file or pipe.

    A run gets a line when its state changes or an evaluation ended, else at most one every
    ``every_seconds``, and none while it stands still.
    """

    def __init__(
        self,
        stream: TextIO,
        every_seconds: float = _LINE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.stream = stream
        self._every = every_seconds
        self._clock = clock
        self._shown: dict[int, tuple[tuple[Any, ...], Any, float]] = {}

    def update(self, statuses: Sequence[dict[str, Any]]) -> None:
        """Print the lines that are due."""
        now = self._clock()
        for index, status in enumerate(statuses):
            news = tuple(status.get(name) for name in ("state", "last_return"))
            progress = status.get("env_steps")
            known, known_progress, at = self._shown.get(index, (None, None, now))
            due = now - at >= self._every and progress != known_progress
            if news != known or due:
                self._print(plain_line(status))
                self._shown[index] = (news, progress, now)

    def close(self) -> None:
        """Nothing to give back: each line was flushed when printed."""

    def _print(self, line: str) -> None:
        encoding = getattr(self.stream, "encoding", None) or "utf-8"
        safe = line.encode(encoding, errors="replace").decode(encoding)
        self.stream.write(safe + "\n")
        self.stream.flush()


def plain_line(status: dict[str, Any]) -> str:
    """One line about a run, ``name=value`` so that it can be searched; absent numbers left out."""
    parts = [name_of(status), clean(status.get("state", ""))]
    if status.get("env_steps") is not None:
        parts.append(f"steps={steps(status['env_steps'])}/{steps(status.get('total_steps'))}")
        parts.append(share(status))
    for name, key in (
        ("return", "last_return"),
        ("reward_r2", "reward_r2"),
        ("synthetic_reward", "synthetic_reward_mean"),
        ("real_reward", "real_reward_mean"),
        ("steps/s", "steps_per_second"),
    ):
        if status.get(key) is not None:
            digits = 4 if key == "last_return" else 3
            parts.append(f"{name}={number(status[key], digits)}")
    if remaining(status):
        parts.append(f"eta={remaining(status)}")
    if status.get("message"):
        parts.append(f"- {clean(status['message'])}")
    return " ".join(part for part in parts if part)


def read_statuses(run_dirs: Sequence[RunDir], *, over: bool = False) -> list[dict[str, Any]]:
    """The newest status of each run; a missing or damaged one becomes a row that says so.

    With ``over``, when no process writes any more, a run that is not in a final state is shown as
    failed: killed, it could not say so itself.
    """
    rows = []
    for run in run_dirs:
        try:
            status = run.read_status()
        except FtflError as error:
            status = {"message": str(error)}
        row = {"label": run.path.name, "seed": "", "state": "starting", **status}
        if over and row["state"] not in FINAL_STATES:
            row["state"] = "failed"
            row["message"] = "the process ended before the run was done" + (
                f"; last message: {row['message']}" if row.get("message") else ""
            )
        rows.append(row)
    return rows


def watch(
    run_dirs: Sequence[RunDir],
    is_alive: Callable[[], bool],
    stream: TextIO | None = None,
) -> list[dict[str, Any]]:
    """Show the runs until ``is_alive`` says that no process is left; returns the last statuses.

    A live table on a terminal, plain lines elsewhere. ``stream`` is stdout unless given. A pipe or
    terminal that was closed, or a full disk, ends the display, not the waiting: the runs go on.
    Ctrl-C passes through, with the cursor restored.
    """
    output = sys.stdout if stream is None else stream
    renderer: Renderer = LiveTable(output) if output.isatty() else PlainLines(output)
    statuses: list[dict[str, Any]] = []
    with contextlib.suppress(OSError), contextlib.closing(renderer):
        while is_alive():
            renderer.update(read_statuses(run_dirs))
            time.sleep(_POLL_SECONDS)
        statuses = read_statuses(run_dirs, over=True)
        renderer.update(statuses)
    while is_alive():
        time.sleep(_POLL_SECONDS)
    return statuses or read_statuses(run_dirs, over=True)
