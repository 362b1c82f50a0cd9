"""Runs in processes: on CPU each single-threaded and pinned to a core.

XLA's CPU backend runs a member-batched matmul on one core only: processes beat threads inside one.
A process trains one seed, or several together (docs/seeds.md). The parent checks the task, writes
the run directories, starts the children and watches their ``status.json``; it computes nothing.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftfl.config import Config, from_dict, to_dict
from ftfl.envs.spec import EnvSpec
from ftfl.errors import FtflError, Stopped
from ftfl.sinks.base import Sink
from ftfl.store.provenance import collect
from ftfl.store.rundir import STATUS_FIELDS, RunDir
from ftfl.training import cores, launch
from ftfl.training.signals import ASK, SAVED_EXIT, StopRequest

if TYPE_CHECKING:
    from ftfl.training.loop import Loop

_POLL_SECONDS = 0.2
_ACCELERATOR = -1
"""Instead of a core: such a process is pinned to none."""
_OVER = ("done", "stopped", "failed")


class Pool:
    """Groups of runs as processes: one per core, or one at a time for the accelerator."""

    def __init__(
        self, jobs: int | None = None, tensorboard: bool = False, accelerator: bool = False
    ):
        self.accelerator = accelerator
        self.places = range(1 if accelerator else len(cores.available()[: jobs or None]))
        self.tensorboard = tensorboard
        self.waiting: list[tuple[RunDir, ...]] = []
        self.running: dict[int, tuple[tuple[RunDir, ...], subprocess.Popen[bytes]]] = {}

    def submit(self, *runs: tuple[RunDir, Config]) -> None:
        """Put runs in line that one process shall train; their directories exist already."""
        for run_dir, config in runs:
            self._await(run_dir, config)
        self.waiting.append(tuple(run_dir for run_dir, _ in runs))

    def _await(self, run_dir: RunDir, config: Config) -> None:
        news = {
            "state": "starting",
            "label": run_dir.label(config.algo),
            "seed": config.seed,
            "total_steps": config.steps,
            "message": f"waiting for {'the accelerator' if self.accelerator else 'a free core'}",
        }
        run_dir.write_status({"env_steps": 0} | known_status(run_dir) | news)

    def poll(self) -> bool:
        """Start what can start, reap what has ended; True while there is work."""
        for place, (run_dirs, process) in list(self.running.items()):
            code = process.poll()
            if code is not None:
                del self.running[place]
                if code not in (0, SAVED_EXIT):
                    self._fail(run_dirs, f"the process {_ending(code)}; its checkpoints stay")
        free = [place for place in self.places if place not in self.running]
        for place, run_dirs in zip(free, list(self.waiting), strict=False):
            self.waiting.remove(run_dirs)
            self.running[place] = (run_dirs, self._start(run_dirs))
        return bool(self.running or self.waiting)

    def stop(self, ask_again: Callable[[], bool] = lambda: False) -> None:
        """Ask the running processes to save and end, and wait until they have.

        ``ask_again`` is looked at meanwhile: once it is true they are ended at once.
        """
        for run_dir in itertools.chain(*self.waiting):
            self._say(run_dir, "stopped", "stopped before it began; `ftfl resume` starts it")
        self.waiting.clear()
        self._ask()
        while any(process.poll() is None for _, process in self.running.values()):
            if ask_again():
                for _, process in self.running.values():
                    process.kill()  # what was saved stays
            time.sleep(_POLL_SECONDS)
        for run_dirs, process in self.running.values():
            if process.returncode not in (0, SAVED_EXIT):
                what = "ended before it could save; its last checkpoint stays"
                for run_dir in _not_over(run_dirs):
                    self._say(run_dir, "failed", what)
        self.running.clear()

    def _ask(self) -> None:
        for _, process in self.running.values():
            if process.poll() is None:
                process.send_signal(ASK)

    def _start(self, run_dirs: tuple[RunDir, ...]) -> subprocess.Popen[bytes]:
        # The process inherits its claim, so that other commands choose other cores until it ends.
        claim = None if self.accelerator else cores.claim(cores.available())
        core = _ACCELERATOR if claim is None else claim.core
        locks = [claim.lock] if claim is not None and claim.lock is not None else []
        paths = [str(run_dir.path) for run_dir in run_dirs]
        command = [sys.executable, "-m", "ftfl.training.workers", *paths, str(core),
                   str(os.getpid())]  # fmt: skip
        if self.tensorboard:
            command.append("--tensorboard")
        env = launch.child_environment(os.environ, self.accelerator)
        try:
            with open(run_dirs[0].path / "stderr.txt", "ab") as log:
                return subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL,
                                        stdout=log, stderr=log, pass_fds=locks)  # fmt: skip
        finally:
            if claim is not None:
                claim.release()

    def _fail(self, run_dirs: tuple[RunDir, ...], reason: str) -> None:
        log = run_dirs[0].path / "stderr.txt"
        for run_dir in _not_over(run_dirs):
            self._say(run_dir, "failed", f"{reason}; see {log}" if log.exists() else reason)

    @staticmethod
    def _say(run_dir: RunDir, state: str, message: str) -> None:
        run_dir.write_status(known_status(run_dir) | {"state": state, "message": message})


def _not_over(run_dirs: tuple[RunDir, ...]) -> list[RunDir]:
    """Those that have not said themselves how they ended."""
    return [d for d in run_dirs if known_status(d).get("state") not in _OVER]


def known_status(run_dir: RunDir) -> dict[str, Any]:
    """The status as far as it can be read: a power cut may leave it empty, which costs nothing."""
    try:
        return {k: v for k, v in run_dir.read_status().items() if k in STATUS_FIELDS}
    except FtflError:
        return {}


def _ending(code: int) -> str:
    if code < 0:
        return f"was ended by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"


def prepare(configs: Sequence[Config], paths: Sequence[Path], argv: Sequence[str]) -> list[RunDir]:
    """Make all run directories; none is left behind if one cannot be made (see ``check_task``).

    Raises:
        FtflError: a directory exists already or cannot be written.
    """
    made: list[RunDir] = []
    provenance = collect(argv)
    try:
        for config, path in zip(configs, paths, strict=True):
            made.append(RunDir.create(path, to_dict(config), provenance))
    except FtflError:
        for run_dir in made:
            shutil.rmtree(run_dir.path)
        raise
    return made


def check_task(config: Config) -> EnvSpec:
    """Fail before anything is written, and once rather than in every process; the task's facts.

    Raises:
        FtflError: the task cannot be made, or does not go with the algorithm or the logged data.
    """
    from ftfl.envs.make import make_task
    from ftfl.training.learn import require_compatible
    from ftfl.training.logged import load_logged

    with contextlib.closing(make_task(config.task)) as env:
        require_compatible(config, env.spec)
        if config.init_replay is not None:
            load_logged(Path(config.init_replay), env.spec)
        return env.spec


def train_in_process(
    run_dir: RunDir, sinks: Sequence[Sink] = (), parent: int | None = None
) -> None:
    """Train the run that a directory describes, from where it is; its status says how it ended.

    Raises:
        Stopped: Ctrl-C or SIGTERM (or, with ``parent``, the end of that process); it is saved.
        FtflError: another process trains it, or training cannot go on.
    """
    with contextlib.ExitStack() as stack:
        for sink in sinks:
            stack.callback(sink.close)
        # Before anything is written: the holder's own status must stay.
        stack.enter_context(run_dir.lock())
        stop = stack.enter_context(StopRequest(parent))
        try:
            open_loop(stack, run_dir, sinks, stop).run()
        except Stopped:
            raise
        except BaseException as error:
            say_failed(run_dir, error)
            raise


def open_loop(
    stack: contextlib.ExitStack, run_dir: RunDir, sinks: Sequence[Sink], stop: StopRequest
) -> Loop:
    """The loop of a run and its environments, which ``stack`` closes.

    Raises:
        FtflError: no environment can be made, or no checkpoint gone on from.
    """
    from ftfl.envs.make import make_task
    from ftfl.training.loop import Loop

    config = from_dict(run_dir.config())
    env = stack.enter_context(contextlib.closing(make_task(config.task)))
    # A machine exists once: it is evaluated where it learns, between episodes.
    eval_env = env
    if not config.update_between_episodes:
        eval_env = stack.enter_context(contextlib.closing(make_task(config.task)))
    return Loop(config, env, eval_env, run_dir, sinks, stop)


def say_failed(run_dir: RunDir, error: BaseException) -> None:
    """Write into the status what ended a run."""
    begun = known_status(run_dir) or {"label": run_dir.label(from_dict(run_dir.config()).algo)}
    text = str(error) if isinstance(error, FtflError) else f"{type(error).__name__}: {error}"
    run_dir.write_status(begun | {"state": "failed", "message": text})


def main(argv: Sequence[str]) -> int:
    """Entry point of a child: ``RUN_DIR… CORE PARENT [--tensorboard]``."""
    *paths, core, parent = [word for word in argv if word != "--tensorboard"]
    run_dirs = [RunDir.open(Path(path)) for path in paths]
    if int(core) != _ACCELERATOR:
        cores.pin(int(core))
    sinks: list[list[Sink]] = [[] for _ in run_dirs]
    if "--tensorboard" in argv:
        from ftfl.sinks.tensorboard import sink_of

        sinks = [[sink_of(run_dir)] for run_dir in run_dirs]
    try:
        if len(run_dirs) > 1:
            from ftfl.training.together import train_together

            return train_together(run_dirs, sinks, int(parent))
        train_in_process(run_dirs[0], sinks[0], int(parent))
    except Stopped as stopped:
        print(stopped, file=sys.stderr)
        return SAVED_EXIT
    except FtflError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
