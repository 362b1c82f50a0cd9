"""Several runs in this process, in lockstep; each ends by itself and says so in its own status."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence

from ftfl.errors import FtflError, Stopped
from ftfl.sinks.base import Sink
from ftfl.store.rundir import RunDir
from ftfl.training.group import Group
from ftfl.training.loop import Loop
from ftfl.training.signals import SAVED_EXIT, StopRequest
from ftfl.training.workers import open_loop, say_failed


def train_together(
    run_dirs: Sequence[RunDir], sinks: Sequence[Sequence[Sink]], parent: int | None = None
) -> int:
    """Train seeds of one configuration from where they are to their ends; the exit status.

    Args:
        run_dirs: of the seeds.
        sinks: of each seed.
        parent: process whose end asks the runs to save and stop.
    """
    codes: set[int] = set()
    with contextlib.ExitStack() as stack:
        for sink in (sink for own in sinks for sink in own):
            stack.callback(sink.close)
        stop = stack.enter_context(StopRequest(parent))
        opened: list[tuple[RunDir, Loop]] = []
        for run_dir, own in zip(run_dirs, sinks, strict=True):
            loop = _open(stack, run_dir, own, stop)
            if loop is None:
                codes.add(1)
            else:
                opened.append((run_dir, loop))
        left = dict(enumerate(run_dir for run_dir, _ in opened))

        def ended(number: int, error: Exception | None) -> None:
            run_dir = left.pop(number)
            if error is None:
                codes.add(0)
                return
            codes.add(SAVED_EXIT if isinstance(error, Stopped) else 1)
            _tell(run_dir, error)

        try:
            if opened:
                Group([loop for _, loop in opened]).run(ended)
        except BaseException as error:
            # Not one seed's fault but the process's: none can go on.
            for run_dir in left.values():
                say_failed(run_dir, error)
            raise
    return 1 if 1 in codes else max(codes)


def _open(
    stack: contextlib.ExitStack, run_dir: RunDir, sinks: Sequence[Sink], stop: StopRequest
) -> Loop | None:
    try:
        # Before anything is written: the holder's own status must stay.
        stack.enter_context(run_dir.lock())
    except FtflError as error:
        print(error, file=sys.stderr)
        return None
    try:
        return open_loop(stack, run_dir, sinks, stop)
    except FtflError as error:
        _tell(run_dir, error)
        return None


def _tell(run_dir: RunDir, error: Exception) -> None:
    if not isinstance(error, Stopped):
        say_failed(run_dir, error)
    print(f"{run_dir.path}: {error}", file=sys.stderr)
