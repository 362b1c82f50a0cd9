"""The command line: one file a verb, one clear sentence and a non-zero exit on misuse."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from ftfl.errors import FtflError, unknown

VERBS: dict[str, str] = {
    "demo": "watch SAC, MBPO and FTFL learn side by side, and read why they differ (minutes)",
    "train": "train an algorithm on a task, one process per seed",
    "resume": "go on with runs that were stopped, killed or failed",
    "fork": "start a new run from a checkpoint with something changed",
    "eval": "play a trained policy; write a video",
    "autopsy": "say what synthetic data did to trained runs, and why",
    "export": "write a policy that runs on NumPy alone",
    "diagnose": "predict what synthetic data will have trouble with, before training",
    "report": "make one report.html from any set of runs",
    "list": "list tasks, algos or metrics",
    "speed": "measure what each part of a training step costs on this machine",
    "doctor": "check this machine, and a task of yours",
}
"""Every verb is the module of its name in this folder, with ``run(argv) -> exit status``."""

USAGE_ERROR = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``ftfl VERB …``; returns the exit status."""
    # Not list(…): once the verb of that name is imported, `list` here is its module.
    arguments = [*(sys.argv[1:] if argv is None else argv)]
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_overview())
        return 0 if arguments else USAGE_ERROR
    if arguments[0] in ("-V", "--version"):
        from ftfl import __version__

        print(f"ftfl {__version__}")
        return 0
    verb, rest = arguments[0], arguments[1:]
    try:
        if verb not in VERBS:
            raise unknown("command", verb, VERBS)
        return importlib.import_module(f"ftfl.cli.{verb}").run(rest)
    except FtflError as error:
        print(f"ftfl: {error}", file=sys.stderr)
        return USAGE_ERROR
    except KeyboardInterrupt:
        print("ftfl: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader (`| head`) has gone; keep Python from complaining at exit.
        sys.stderr.close()
        return 0


def _overview() -> str:
    width = max(map(len, VERBS))
    lines = [
        "usage: ftfl VERB …",
        "",
        "Dyna-style model-based RL that says when, where and why synthetic data helps or hurts.",
        "",
        *(f"  {name:<{width}}  {what}" for name, what in VERBS.items()),
        "",
        "`ftfl VERB --help` shows a verb's options with units and defaults.",
    ]
    return "\n".join(lines)
