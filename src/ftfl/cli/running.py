"""What `train`, `resume`, `fork` and `demo` share: runs as processes under one live table."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
import time
from collections.abc import Sequence
from typing import Any

from ftfl.cli.options import Parser, at_least
from ftfl.config import Config
from ftfl.sinks.console import read_statuses, watch
from ftfl.store.rundir import RunDir
from ftfl.training import cores, grouping, workers
from ftfl.training.signals import SAVED_EXIT, catchable

_REPEAT_SECONDS = 1.0
_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def train(
    run_dirs: Sequence[RunDir],
    configs: Sequence[Config],
    jobs: int | None,
    tensorboard: bool,
    out: Any,
    together: bool | None = None,
) -> list[dict[str, Any]]:
    """Run all of them to their end; their last statuses.

    ``together``: whether one process trains several seeds; None: where that is faster.

    Ctrl-C, SIGTERM or a closed terminal makes every run save itself and stop; once more, and they
    end at once.
    """
    at_once = len(cores.available()[: jobs or None])
    groups, accelerator = grouping.arrange(run_dirs, configs, together, at_once)
    pool = workers.Pool(jobs, tensorboard, accelerator)
    for group in groups:
        pool.submit(*((run_dirs[i], configs[i]) for i in group))
    if len(groups) < len(run_dirs):
        where = "on the accelerator" if accelerator else "on one core"
        told = ", ".join("+".join(str(configs[i].seed) for i in group) for group in groups)
        print(f"seeds trained together, each group {where}: {told}", file=out)
    asked: list[float] = []

    def interrupt(*_: Any) -> None:
        asked.append(time.monotonic())
        if len(asked) == 1:
            raise KeyboardInterrupt

    def once_more() -> bool:
        # `timeout` sends its signal twice at once, which is one wish.
        return asked[-1] - asked[0] > _REPEAT_SECONDS if asked else False

    before = {s: signal.signal(s, interrupt) for s in catchable(_STOPPING)}
    try:
        return watch(run_dirs, pool.poll, out)
    except KeyboardInterrupt:
        # A terminal that was closed cannot be written to any more.
        with contextlib.suppress(OSError):
            print("stopping: each run saves itself first; once more to leave at once",
                  file=sys.stderr, flush=True)  # fmt: skip
    finally:
        pool.stop(once_more)
        for number, handler in before.items():
            signal.signal(number, handler)
    return read_statuses(run_dirs, over=True)


def finish(
    run_dirs: Sequence[RunDir], statuses: Sequence[dict[str, Any]], as_json: bool, out: Any
) -> int:
    """Say how the runs ended and what to do next; the exit status (docs/resuming.md)."""
    for status in statuses:
        if status["state"] != "done":
            what = "stopped" if status["state"] == "stopped" else "failed"
            print(f"seed {status['seed']} {what}: {status.get('message', '')}", file=sys.stderr)
    places = list(dict.fromkeys(d.path.parent for d in run_dirs))
    if places:
        print("results: " + ", ".join(map(str, places)), file=out)
    done = [d.path for d, s in zip(run_dirs, statuses, strict=True) if s["state"] == "done"]
    left = [d.path for d, s in zip(run_dirs, statuses, strict=True) if s["state"] != "done"]
    if left:
        print("go on: ftfl resume " + " ".join(map(str, left)), file=out)
    if done:
        reports = " ".join(f"{place}/*" for place in places)
        print(f"next: ftfl eval {done[0]} --video out.mp4   ftfl report {reports}", file=out)
    if as_json:
        runs = [
            {
                "path": str(d.path),
                "seed": s["seed"],
                "state": s["state"],
                "last_return": s.get("last_return"),
                "seconds": s.get("seconds"),
            }
            for d, s in zip(run_dirs, statuses, strict=True)
        ]
        print(json.dumps({"runs": runs}))
    states = {status["state"] for status in statuses}
    if states <= {"done"}:
        return 0
    return SAVED_EXIT if states <= {"done", "stopped"} else 1


def add_process_options(parser: Parser) -> None:
    """Options of every verb that starts training processes."""
    parser.add_argument(
        "--jobs", type=at_least(1), metavar="N", help="processes at once [one per core]"
    )
    how = parser.add_mutually_exclusive_group()
    how.add_argument(
        "--together", action="store_true", default=None,
        help="train seeds of one configuration in one process [on accelerators and if tiny]",
    )  # fmt: skip
    how.add_argument(
        "--apart", action="store_false", dest="together", default=None,
        help="train each seed in a process of its own, on CPU unless JAX_PLATFORMS says otherwise",
    )  # fmt: skip
    parser.add_argument("--tensorboard", action="store_true", help="also write TensorBoard files")
    parser.add_argument(
        "--dry-run", action="store_true", help="check everything, print the plan, train nothing"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout at the end")
