"""``ftfl autopsy RUN…``: what synthetic data did to trained runs, findings first."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from ftfl.cli.options import Parser, at_least
from ftfl.cli.text import common_folder, one_line, print_json, report_path, wrapped
from ftfl.errors import FtflError

if TYPE_CHECKING:
    from argparse import Namespace

    from ftfl.forensics.autopsy import Autopsy
    from ftfl.forensics.forking import ForkPlan

DESCRIPTION = """Say what synthetic data did to a run: findings first, then the numbers behind them.

The simulator is taken back to real states of the run and asked what would have happened; states
that do not come back exactly are left out and counted. Runs are only read, also while they train,
and all that cannot be measured is said in a sentence. Several runs are shown side by side, here and
in a report with figures: one HTML file that needs nothing else and fetches nothing."""

QUICK_SECONDS = 170.0
"""For all runs together; a first look should take no more than three minutes."""
SIMULATED = 0.6
"""The simulator's share of what is left for a run; reading and computing take the rest."""
LEAST_SECONDS = 5.0
"""For the simulator: a run that is shown at all has a verdict, however many runs there are."""


def run(argv: Sequence[str]) -> int:
    """Examine every run, then print; exit status 1 if some could not be opened."""
    args = _parser().parse(argv)
    from ftfl.training.resume import find_runs

    folders = [found.path for given in args.runs for found in find_runs(Path(given))]
    plan = _fork_plan(args, folders)
    report = None  # --json alone writes none
    if args.report is not None or not args.json:
        report = report_path("--report", args.report, folders, "autopsy.html")
    found: list[Autopsy] = []
    failed: dict[str, str] = {}
    began = time.monotonic()
    for at, folder in enumerate(folders):
        eta = Eta(f"{folder}{_place(at, len(folders), time.monotonic() - began)}", sys.stderr)
        left = (began + QUICK_SECONDS - time.monotonic()) / (len(folders) - at)
        seconds = max(SIMULATED * left, LEAST_SECONDS) if args.quick else None
        try:
            found.append(_examine(folder, args.at, seconds, plan, eta))
        except FtflError as error:
            if len(folders) == 1:
                raise
            failed[str(folder)] = str(error)
    if found and report is not None:
        from ftfl.report.autopsy import autopsy_report

        autopsy_report(found, report, failed)
    if args.json:
        written = str(report) if found and report is not None else None
        print_json(_as_json(found) | {"failed": failed, "report": written})
    else:
        from ftfl.cli.findings import show

        show(found, failed)
        if found:
            print(wrapped(f"report: {report}"))
    return 1 if failed else 0


def _as_json(found: Sequence[Autopsy]) -> dict[str, Any]:
    """All findings in one list, as `ftfl diagnose` has them, and then run by run."""
    from ftfl.forensics.evidence import SEVERITIES
    from ftfl.forensics.listing import unlike

    runs = [autopsy.to_json() for autopsy in found]
    every = [{**finding, "run": run["run"]} for run in runs for finding in run["findings"]]
    every.sort(key=lambda finding: SEVERITIES.index(finding["severity"]))
    return {"findings": every, "notes": unlike(found), "runs": runs}


def _fork_plan(args: Namespace, folders: Sequence[Path]) -> ForkPlan | None:
    if not args.full:
        for option in ("forks", "fork_steps", "fork_seeds"):
            if getattr(args, option) is not None:
                raise FtflError(f"--{option.replace('_', '-')} was given without --full.")
        return None
    from ftfl.forensics.forking import ForkPlan

    common = common_folder(folders)
    if (common / "config.json").is_file():
        common = common.parent  # a run is only read
    folder = Path(args.forks) if args.forks else common / "autopsy-forks"
    asked = {"steps": args.fork_steps, "seeds": args.fork_seeds}
    return ForkPlan(folder, **{k: v for k, v in asked.items() if v is not None})


def _place(done: int, runs: int, seconds: float) -> str:
    """Which of several runs this is, and how long they will all take, told by those done."""
    if runs == 1:
        return ""
    left = f", about {seconds / done * (runs - done):.0f} s left for all" if done else ""
    return f" ({done + 1} of {runs} runs{left})"


def _examine(
    folder: Path, step: int | None, seconds: float | None, forks: ForkPlan | None, eta: Eta
) -> Autopsy:
    """A quick look if there are ``seconds`` for the simulator, else a whole one."""
    from ftfl.forensics.autopsy import examine
    from ftfl.forensics.subject import Subject

    eta.say("reading")
    subject = Subject.load(folder, step)
    result = examine(subject, seconds is not None, seconds, eta.tell, forks=forks)
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
        self.out.write(f"\r\033[K{one_line(line, self.out)}" if self.live else f"{line}\n")
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
    depth = parser.add_mutually_exclusive_group()
    depth.add_argument(
        "--quick", action="store_true",
        help="a first look in under three minutes: fewer states, wider intervals",
    )  # fmt: skip
    depth.add_argument(
        "--full", action="store_true",
        help="also let the same agent go on from this checkpoint in paired forks: as it is, on real"
        " rows alone, and with each repair; as long as training takes, and it can be given again",
    )  # fmt: skip
    parser.add_argument(
        "--fork-steps", type=at_least(2), metavar="N", help="env steps of each fork [1,000]"
    )
    parser.add_argument(
        "--fork-seeds", type=at_least(1), metavar="N",
        help="forks of each kind, with randomness of their own [3]",
    )  # fmt: skip
    parser.add_argument(
        "--forks", metavar="FOLDER",
        help="where forks go [autopsy-forks in the folder the runs have in common; beside a single"
        " run]",
    )  # fmt: skip
    parser.add_argument(
        "--report", metavar="FILE.html",
        help="where the report goes; replaced if it exists [autopsy.html in the folder the runs"
        " have in common; with --json none is written unless it is named]",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    return parser
