"""``ftfl autopsy RUN…``: what synthetic data did to trained runs, findings first."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from ftfl.cli.options import Parser, at_least
from ftfl.cli.text import print_json, report_path, wrapped
from ftfl.errors import FtflError

if TYPE_CHECKING:
    from ftfl.forensics.autopsy import Autopsy

DESCRIPTION = """Say what synthetic data did to a run: findings first, then the numbers behind them.

The simulator is taken back to real states of the run and asked what would have happened; states
that do not come back exactly are left out and counted. Runs are only read, also while they train,
and all that cannot be measured is said in a sentence. Several runs are shown side by side, here and
in a report with figures: one HTML file that needs nothing else and fetches nothing."""

QUICK_SECONDS = 100.0
"""For the simulator, all runs together; reading and computing take the rest of three minutes."""


def run(argv: Sequence[str]) -> int:
    """Examine every run, then print; exit status 1 if some could not be opened."""
    args = _parser().parse(argv)
    from ftfl.training.resume import find_runs

    folders = [found.path for given in args.runs for found in find_runs(Path(given))]
    report = None  # --json alone writes none
    if args.report is not None or not args.json:
        report = report_path("--report", args.report, folders, "autopsy.html")
    found: list[Autopsy] = []
    failed: dict[str, str] = {}
    for folder in folders:
        try:
            found.append(_examine(folder, args.at, args.quick, len(folders)))
        except FtflError as error:
            if len(folders) == 1:
                raise
            failed[str(folder)] = str(error)
    if found and report is not None:
        from ftfl.report.autopsy import autopsy_report

        autopsy_report(found, report, failed)
    if args.json:
        written = str(report) if found and report is not None else None
        print_json({"runs": [a.to_json() for a in found], "failed": failed, "report": written})
    else:
        from ftfl.cli.findings import show

        show(found, failed)
        if found:
            print(wrapped(f"report: {report}"))
    return 1 if failed else 0


def _examine(folder: Path, step: int | None, quick: bool, runs: int) -> Autopsy:
    from ftfl.forensics.autopsy import examine
    from ftfl.forensics.subject import Subject

    eta = Eta(str(folder), sys.stderr)
    eta.say("reading")
    subject = Subject.load(folder, step)
    seconds = QUICK_SECONDS / runs if quick else None
    result = examine(subject, quick, seconds, eta.tell)
    eta.clear()
    return result


class Eta:
    """One line that says what is done and how long it will take; on a terminal it replaces itself.

    Elsewhere a line is written every ten seconds.
    """

    EVERY = (0.2, 10.0)

    def __init__(self, name: str, out: TextIO):
        self.name, self.out = name, out
        self.live = out.isatty()
        self._what, self._began, self._first, self._last = "", 0.0, 0, 0.0

    def tell(self, what: str, done: int, asked: int) -> None:
        """Told by the instruments: so much of this is done."""
        now = time.monotonic()
        kind = what.partition(" (")[0]
        if kind != self._what:
            self._what, self._began, self._first = kind, now, done
            if not asked:
                return self.say(what, now)
        if now - self._last < self.EVERY[0 if self.live else 1] or done == self._first:
            return None
        left = (now - self._began) / (done - self._first) * (asked - done)
        return self.say(f"{done} of {asked} {what}, {left:.0f} s left", now)

    def say(self, what: str, now: float | None = None) -> None:
        """Show what is being done."""
        self._last = time.monotonic() if now is None else now
        line = f"{self.name}: {what} …"
        self.out.write(f"\r\033[K{line[-79:]}" if self.live else f"{line}\n")
        self.out.flush()

    def clear(self) -> None:
        """Leave the terminal's line empty."""
        if self.live:
            self.out.write("\r\033[K")
            self.out.flush()


def _parser() -> Parser:
    parser = Parser("autopsy", DESCRIPTION)
    parser.add_argument(
        "runs", nargs="+", metavar="RUN", help="run folders, …/seed_0, or folders of seeds"
    )
    parser.add_argument(
        "--at", type=at_least(0), metavar="STEP",
        help="env steps of the checkpoint to examine [the newest valid one]",
    )  # fmt: skip
    parser.add_argument(
        "--quick", action="store_true",
        help="a first look in under three minutes: fewer states, wider intervals",
    )  # fmt: skip
    parser.add_argument(
        "--report", metavar="FILE.html",
        help="where the report goes; replaced if it exists [autopsy.html in the folder the runs"
        " have in common; with --json none is written unless it is named]",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    return parser
