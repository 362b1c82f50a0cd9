"""``ftfl resume RUN_DIR…``: go on where a run was stopped, to the same bits."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from ftfl.cli.options import Parser, add_config_options, changes
from ftfl.cli.running import add_process_options, finish, train
from ftfl.config import from_dict
from ftfl.errors import FtflError
from ftfl.store.rundir import RunDir

DESCRIPTION = """Go on with runs that were stopped, killed or failed.

A run continues from its newest valid checkpoint and ends with the same bits as if it had never
been left (same machine type, same versions, on CPU). RUN_DIR is one run or a folder of them
(…/ALGO holds seed_0, seed_1, …). --steps makes a run longer; recording and fault options may
change too; all else is refused with the difference shown (`ftfl fork` starts a new run from a
checkpoint instead)."""


def run(argv: Sequence[str]) -> int:
    """Check every run, then train those that are not finished."""
    first = _arguments("", add_help=False)
    chosen, _ = first.parse_known_args([a for a in argv if a not in ("-h", "--help")])
    parser = _arguments(DESCRIPTION, add_help=True)
    if chosen.run_dirs:
        from ftfl.training.resume import find_runs

        sample = find_runs(Path(chosen.run_dirs[0]))[0]
        add_config_options(parser, from_dict(sample.config()))
    args = parser.parse(argv)
    if not args.run_dirs:
        raise FtflError("resume needs the folder of a run, such as runs/TASK/ALGO/seed_0.")
    from ftfl.training import resume

    asked = changes(args)
    command = ["ftfl", "resume", *argv]
    found = {d.path: d for given in args.run_dirs for d in resume.find_runs(Path(given))}
    plans = [resume.plan(d, asked, command, args.allow_version_change) for d in found.values()]
    out = sys.stderr if args.json else sys.stdout
    for plan in plans:
        for note in plan.notes:
            print(f"note: {plan.run_dir.path}: {note} since it was trained; its bits may differ"
                  " from an uninterrupted run's", file=sys.stderr)  # fmt: skip
        print(_sentence(plan), file=out)
    todo = [plan for plan in plans if not plan.finished]
    if args.dry_run:
        return 0
    if not todo:
        return finish([], [], args.json, out)
    for plan in todo:
        resume.begin(plan)
    run_dirs: list[RunDir] = [plan.run_dir for plan in todo]
    statuses = train(
        run_dirs, [p.config for p in todo], args.jobs, args.tensorboard, out, args.together
    )
    return finish(run_dirs, statuses, args.json, out)


def _sentence(plan) -> str:
    where = plan.run_dir.path
    if plan.finished:
        return (
            f"{where}: already finished at step {plan.env_steps}; --steps with a larger number"
            " makes it longer"
        )
    told = "".join(f", {k} {old} → {new}" for k, (old, new) in plan.changes.items())
    start = f"from step {plan.env_steps}" if plan.env_steps else "from the beginning"
    return f"{where}: going on {start} to {plan.config.steps}{told}"


def _arguments(description: str, add_help: bool) -> Parser:
    parser = Parser(
        "resume", description, add_help=add_help, usage="ftfl resume RUN_DIR… [options]"
    )
    parser.add_argument("run_dirs", nargs="*", metavar="RUN_DIR", help="a run, or a folder of runs")
    parser.add_argument(
        "--allow-version-change", action="store_true",
        help="go on although packages that change trajectories are not the ones it began with",
    )  # fmt: skip
    add_process_options(parser)
    return parser
