"""Runs in processes: on CPU, one single-threaded process per seed, pinned to a core.

XLA's CPU backend runs a member-batched matmul on one core only, so that processes side by side
beat threads inside one (docs/architecture.md). The parent checks the task, writes the run
directories, starts the children and watches their ``status.json``; it computes nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from ftfl.config import Config, from_dict, to_dict
from ftfl.envs.spec import EnvSpec
from ftfl.errors import FtflError, Stopped
from ftfl.sinks.base import FailSoft, Sink
from ftfl.store.listing import list_checkpoints, step_of
from ftfl.store.provenance import collect
from ftfl.store.rundir import STATUS_FIELDS, RunDir
from ftfl.training.signals import ASK, SAVED_EXIT, StopRequest

_POLL_SECONDS = 0.2


def available_cores() -> list[int]:
    """Cores this process may use (all of them where the system does not say)."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def child_environment(base: Mapping[str, str]) -> dict[str, str]:
    """Environment of a training process: one thread, no display, the user's flags kept."""
    env = dict(base)
    env.setdefault("JAX_PLATFORMS", "cpu")
    env.setdefault("MUJOCO_GL", "disabled")
    flags = env.get("XLA_FLAGS", "")
    if "xla_cpu_multi_thread_eigen" not in flags:
        env["XLA_FLAGS"] = f"{flags} --xla_cpu_multi_thread_eigen=false".strip()
    # Compiling takes longer than a short run. JAX keys its cache by program, flags and version, but
    # not by the CPU that machine code was made for, so the folder carries that.
    env.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache_folder(env)))
    env.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        env.setdefault(name, "1")
    # A custom environment is found where the command was given.
    paths = [os.getcwd(), *filter(None, [env.get("PYTHONPATH")])]
    env["PYTHONPATH"] = os.pathsep.join(paths)
    return env


def cache_folder(env: Mapping[str, str]) -> Path:
    """Where compiled programs are kept: per jaxlib version and kind of CPU."""
    home = env.get("XDG_CACHE_HOME") or str(Path(env.get("HOME", "."), ".cache"))
    cpu = platform.processor()
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as file:
        facts = {line for line in file if line.startswith(("model name", "flags", "Features"))}
        cpu = "".join(sorted(facts))
    kind = hashlib.sha256(f"{platform.machine()} {cpu}".encode()).hexdigest()[:12]
    return Path(home, "ftfl", "xla", f"{metadata.version('jaxlib')}-{kind}")


def pin(core: int) -> None:
    """Keep this process on one core, where the system lets it (macOS does not)."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {core})


class Pool:
    """Runs started as processes, at most one per core, the rest waiting in line."""

    def __init__(self, jobs: int | None = None, tensorboard: bool = False):
        self.cores = available_cores()[: jobs or None]
        self.tensorboard = tensorboard
        self.waiting: list[RunDir] = []
        self.running: dict[int, tuple[RunDir, subprocess.Popen[bytes]]] = {}

    def submit(self, run_dir: RunDir, config: Config) -> None:
        """Put a run in line; its directory exists already."""
        news = {
            "state": "starting",
            "label": run_dir.label(config.algo),
            "seed": config.seed,
            "total_steps": config.steps,
            "message": "waiting for a free core",
        }
        run_dir.write_status({"env_steps": 0} | known_status(run_dir) | news)
        self.waiting.append(run_dir)

    def poll(self) -> bool:
        """Start what can start, reap what has ended; True while there is work."""
        for core, (run_dir, process) in list(self.running.items()):
            code = process.poll()
            if code is not None:
                del self.running[core]
                if code not in (0, SAVED_EXIT):
                    self._fail(run_dir, f"the process {_ending(code)}; its checkpoints stay")
        free = [core for core in self.cores if core not in self.running]
        for core, run_dir in zip(free, list(self.waiting), strict=False):
            self.waiting.remove(run_dir)
            self.running[core] = (run_dir, self._start(run_dir, core))
        return bool(self.running or self.waiting)

    def stop(self, ask_again: Callable[[], bool] = lambda: False) -> None:
        """Ask the running processes to save and end, and wait until they have.

        ``ask_again`` is looked at meanwhile: once it is true they are ended at once.
        """
        for run_dir in self.waiting:
            self._say(run_dir, "stopped", "stopped before it began; `ftfl resume` starts it")
        self.waiting.clear()
        self._ask()
        while any(process.poll() is None for _, process in self.running.values()):
            if ask_again():
                for _, process in self.running.values():
                    process.kill()  # what was saved stays
            time.sleep(_POLL_SECONDS)
        for run_dir, process in self.running.values():
            if process.returncode not in (0, SAVED_EXIT):
                what = "ended before it could save; its last checkpoint stays"
                self._say(run_dir, "failed", what)
        self.running.clear()

    def _ask(self) -> None:
        for _, process in self.running.values():
            if process.poll() is None:
                process.send_signal(ASK)

    def _start(self, run_dir: RunDir, core: int) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "ftfl.training.workers", str(run_dir.path), str(core),
                   str(os.getpid())]  # fmt: skip
        if self.tensorboard:
            command.append("--tensorboard")
        with open(run_dir.path / "stderr.txt", "ab") as log:
            return subprocess.Popen(
                command, env=child_environment(os.environ), stdin=subprocess.DEVNULL,
                stdout=log, stderr=log,
            )  # fmt: skip

    def _fail(self, run_dir: RunDir, reason: str) -> None:
        if known_status(run_dir).get("state") != "failed":
            log = run_dir.path / "stderr.txt"
            self._say(run_dir, "failed", f"{reason}; see {log}" if log.exists() else reason)

    @staticmethod
    def _say(run_dir: RunDir, state: str, message: str) -> None:
        run_dir.write_status(known_status(run_dir) | {"state": state, "message": message})


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
    from ftfl.envs.make import make_task
    from ftfl.training.loop import Loop

    config = from_dict(run_dir.config())
    with contextlib.ExitStack() as stack:
        for sink in sinks:
            stack.callback(sink.close)
        # Before anything is written: the holder's own status must stay.
        stack.enter_context(run_dir.lock())
        stop = stack.enter_context(StopRequest(parent))
        try:
            env = stack.enter_context(contextlib.closing(make_task(config.task)))
            # A machine exists once: it is evaluated where it learns, between episodes.
            eval_env = env
            if not config.update_between_episodes:
                eval_env = stack.enter_context(contextlib.closing(make_task(config.task)))
            Loop(config, env, eval_env, run_dir, sinks, stop).run()
        except Stopped:
            raise
        except BaseException as error:
            begun = known_status(run_dir) or {"label": run_dir.label(config.algo)}
            text = (
                str(error) if isinstance(error, FtflError) else f"{type(error).__name__}: {error}"
            )
            run_dir.write_status(begun | {"state": "failed", "message": text})
            raise


def main(argv: Sequence[str]) -> int:
    """Entry point of a child: ``RUN_DIR CORE PARENT [--tensorboard]``."""
    run_dir, core, parent = RunDir.open(Path(argv[0])), int(argv[1]), int(argv[2])
    pin(core)
    sinks: list[Sink] = []
    if "--tensorboard" in argv:
        from ftfl.sinks.tensorboard import tensorboard_sink

        resumed_at = max(map(step_of, list_checkpoints(run_dir.checkpoints_path)), default=0)
        sink = tensorboard_sink(run_dir.path / "tensorboard", resumed_at)
        sinks.append(FailSoft(sink, "TensorBoard"))
    try:
        train_in_process(run_dir, sinks, parent)
    except Stopped as stopped:
        print(stopped, file=sys.stderr)
        return SAVED_EXIT
    except FtflError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
