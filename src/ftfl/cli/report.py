"""``ftfl report RUN_DIR…``: one HTML file from any set of runs."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ftfl.cli.options import Parser
from ftfl.cli.text import print_json, report_path, wrapped
from ftfl.config import content_hash, from_dict
from ftfl.errors import FtflError
from ftfl.store.rundir import RunDir

DESCRIPTION = """Write one HTML file about runs: learning curves, final numbers with intervals,
differences, every seed, and how to repeat it. It needs nothing else and fetches nothing.

Runs with the same configuration apart from the seed count as one arm. A folder stands for all runs
below it."""


def run(argv: Sequence[str]) -> int:
    """Collect the runs, write the report, say what is in it."""
    parser = Parser("report", DESCRIPTION)
    parser.add_argument(
        "paths", nargs="*", metavar="RUN_DIR", help="runs, or folders of runs such as runs/*"
    )
    parser.add_argument(
        "--out", metavar="FILE.html",
        help="where to; replaced if it exists [report.html in the folder the runs have in common]",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    args = parser.parse(argv)
    if not args.paths:
        raise FtflError("report needs at least one run directory, such as runs/*/ftfl/*.")
    runs = find_runs([Path(path) for path in args.paths])
    out = report_path("--out", args.out, [run.path for run in runs], "report.html")
    arms, unreadable = group(runs)
    if not arms:
        raise FtflError(unreadable[0])
    for sentence in unreadable:
        print(f"ftfl: {sentence}", file=sys.stderr)

    from ftfl.report.runs import run_report

    run_report(runs, out)
    if args.json:
        print_json({"path": str(out), "arms": arms, "unreadable": unreadable})
        return 0
    for arm in arms:
        seeds = " ".join(map(str, arm["seeds"]))
        print(wrapped(f"{arm['algo']} on {arm['task']}, seeds {seeds} ({arm['folder']})", 2, 2))
    print(wrapped(f"report: {out}"))
    return 0


def find_runs(paths: Sequence[Path]) -> list[RunDir]:
    """The run directories that paths name or hold, each once.

    Raises:
        FtflError: a path is no folder, or there is no run in or below it.
    """
    found: dict[Path, RunDir] = {}
    for path in paths:
        here = [path] if (path / "config.json").is_file() else _below(path)
        for folder in here or [path]:
            found.setdefault(folder.resolve(), RunDir.open(folder))
    return list(found.values())


def _below(path: Path) -> list[Path]:
    return sorted(config.parent for config in path.rglob("config.json")) if path.is_dir() else []


def group(runs: Sequence[RunDir]) -> tuple[list[dict[str, Any]], list[str]]:
    """Runs as arms (equal configurations but for the seed, in one folder), and what is damaged."""
    unreadable = []
    arms: dict[tuple[Path, str], dict[str, Any]] = {}
    for run_dir in runs:
        try:
            config = from_dict(run_dir.config())
        except FtflError as error:
            unreadable.append(str(error))
            continue
        folder = run_dir.path.parent
        key = (folder.resolve(), content_hash(dataclasses.replace(config, seed=0)))
        arm = arms.setdefault(
            key,
            {"algo": config.algo, "task": config.task.name, "folder": str(folder), "seeds": []},
        )
        arm["seeds"].append(config.seed)
    return list(arms.values()), unreadable
