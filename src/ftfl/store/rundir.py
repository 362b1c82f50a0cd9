"""A run directory: one seed of one config, and the names of the files in it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path
from typing import Any

from ftfl.errors import FtflError, unknown
from ftfl.store.files import not_through_links, plain, read_json, replace_json, why
from ftfl.store.lines import append_durably, keep_first, read_lines
from ftfl.store.metrics_file import MetricsWriter

STATES = ("starting", "warming up", "training", "evaluating", "done", "stopped", "failed")
"""``stopped``: by a signal, with everything saved, so that a resume goes on."""

STATUS_FIELDS: dict[str, str] = {
    "state": "one of STATES",
    "label": "what the run is called in tables, for example 'ftfl'",
    "seed": "the seed",
    "env_steps": "env steps taken",
    "total_steps": "env steps the run will take",
    "seconds": "seconds since the run began",
    "eta_seconds": "estimated seconds to the end, or None",
    "steps_per_second": "env steps per second lately",
    "last_return": "eval/return_mean_reward of the newest evaluation, or None",
    "reward_r2": "newest model/reward_r2; None without a model",
    "synthetic_reward_mean": "newest rollout/synthetic_reward_mean_reward; None without a model",
    "real_reward_mean": "newest rollout/real_reward_mean_reward; None without a model",
    "message": "a sentence for the user: why it failed, what it is busy with",
    "pid": "process id of the writer",
}
"""What ``status.json`` may hold; a watching console reads no other fields."""


def task_folder(task: str) -> str:
    """A task's name as one folder."""
    return task.replace("/", "_").replace(":", "_")


@dataclass(frozen=True)
class RunDir:
    """The files of one run. Made by ``create`` or ``open``, which check the place."""

    path: Path

    @classmethod
    def create(cls, path: Path, config: Mapping[str, Any], provenance: Mapping[str, Any]) -> RunDir:
        """Make a new run directory with ``config.json`` and ``provenance.json``.

        Raises:
            FtflError: the path is taken, cannot be written, or a mapping is not JSON.
        """
        path = Path(path)
        config, provenance = plain(config), plain(provenance)
        try:
            path.mkdir(parents=True, exist_ok=True)
            if any(path.iterdir()):
                raise FtflError(
                    f"run directory {path} already exists and is not empty: choose another --out."
                )
            run = cls(path)
            run.checkpoints_path.mkdir()
            replace_json(run.provenance_path, provenance, durable=True)
            # Last, because its presence is what makes this a run directory.
            replace_json(run.config_path, config, durable=True)
        except OSError as error:
            raise FtflError(
                f"cannot create run directory {path}: {why(error)}; choose another --out."
            ) from error
        return run

    @classmethod
    def open(cls, path: Path) -> RunDir:
        """An existing run directory.

        Raises:
            FtflError: there is none at ``path``; names runs that lie one level below.
        """
        run = cls(Path(path))
        if run.config_path.is_file():
            return run
        if not run.path.is_dir():
            raise FtflError(f"there is no run directory {run.path}.")
        below = sorted(str(child.parent) for child in run.path.glob("*/config.json"))[:3]
        hint = f": give one run, for example {', '.join(below)}" if below else ""
        raise FtflError(f"{run.path} is not a run directory, it has no config.json{hint}.")

    def label(self, algo: str) -> str:
        """What tables call the run: the variant's folder if it lies in one, else its algorithm."""
        parent = self.path.resolve().parent.name
        return parent if self.path.name.startswith("seed_") and parent else algo

    @property
    def config_path(self) -> Path:
        """The config this run was started with."""
        return self.path / "config.json"

    @property
    def provenance_path(self) -> Path:
        """Code, packages, machine and command."""
        return self.path / "provenance.json"

    @property
    def metrics_path(self) -> Path:
        """All numbers of the run: the truth."""
        return self.path / "metrics.jsonl"

    @property
    def history_path(self) -> Path:
        """What was done to the run: started, resumed, rolled back."""
        return self.path / "history.jsonl"

    @property
    def faults_path(self) -> Path:
        """What went wrong in the environment, one fault a line."""
        return self.path / "faults.jsonl"

    @property
    def status_path(self) -> Path:
        """What the run is doing now, for a console that watches."""
        return self.path / "status.json"

    @property
    def checkpoints_path(self) -> Path:
        """Parent of ``step_…`` directories."""
        return self.path / "checkpoints"

    @property
    def report_path(self) -> Path:
        """The report, once one is made."""
        return self.path / "report.html"

    def config(self) -> dict[str, Any]:
        """The stored config as plain JSON."""
        return read_json(self.config_path)

    def provenance(self) -> dict[str, Any]:
        """The stored provenance as plain JSON."""
        return read_json(self.provenance_path)

    def metrics_writer(self) -> MetricsWriter:
        """A writer that appends to ``metrics.jsonl``."""
        return MetricsWriter(self.metrics_path)

    def append_history(self, entry: Mapping[str, Any]) -> None:
        """Add a line to ``history.jsonl``, safe from a power cut when this returns.

        Raises:
            DiskError: the disk refuses.
        """
        append_durably(self.history_path, entry)

    def read_history(self) -> list[dict[str, Any]]:
        """The run's history, oldest first; a torn last line is dropped with a notice in the log.

        Raises:
            FtflError: a line before the last is damaged (names the line).
        """
        return _objects(self.history_path)

    def append_fault(self, entry: Mapping[str, Any]) -> None:
        """Add a line to ``faults.jsonl``, as ``append_history`` does."""
        append_durably(self.faults_path, entry)

    def read_faults(self) -> list[dict[str, Any]]:
        """The run's faults, oldest first, read as ``read_history`` does."""
        return _objects(self.faults_path)

    def keep_faults(self, count: int) -> None:
        """Drop the faults after the first ``count``: a run resumed there will meet them again.

        Raises:
            DiskError: the disk refuses.
        """
        keep_first(self.faults_path, count)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run directory for one writer; a killed holder frees it.

        Raises:
            FtflError: another process holds it (named), or the place cannot be locked.
        """
        with self._open_lock() as file:
            self._take(file)
            since = datetime.now(UTC).isoformat(timespec="seconds")
            # A full disk costs the owner's name, not the lock.
            with contextlib.suppress(OSError):
                file.truncate(0)
                file.write(f"process {os.getpid()} on {platform.node()} since {since}\n".encode())
            yield

    def require_free(self) -> None:
        """Refuse early, before a worker would: the error ``lock`` would raise now, if any.

        Raises:
            FtflError: another process holds the run directory, or the place cannot be locked.
        """
        with self._open_lock() as file:
            self._take(file)

    def _open_lock(self) -> FileIO:
        try:
            path = self.path / ".lock"
            return open(path, "a+b", buffering=0, opener=not_through_links)
        except OSError as error:
            raise FtflError(f"cannot lock run directory {self.path}: {why(error)}.") from error

    def _take(self, file: FileIO) -> None:
        try:
            # Held until the file is closed, which the system does for a process that is killed.
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            written = file.read(200).decode(errors="replace").strip()
            owner = "".join(filter(str.isprintable, written)) or "another process"
            raise FtflError(
                f"run directory {self.path} is in use by {owner}: wait until it ends."
            ) from error
        except OSError as error:
            raise FtflError(f"cannot lock run directory {self.path}: {why(error)}.") from error

    def write_status(self, status: Mapping[str, Any]) -> None:
        """Replace ``status.json``; readers see the old one or the new one, never a part.

        Raises:
            FtflError: a field or the state is unknown. A full disk is not an error here: a display
                must not end a run, and ``metrics.jsonl`` will say it.
        """
        for name in status:
            if name not in STATUS_FIELDS:
                raise unknown("status field", name, STATUS_FIELDS)
        if status.get("state") not in STATES:
            raise unknown("state", str(status.get("state")), STATES)
        with contextlib.suppress(OSError):
            content = plain(status, nonfinite_as_null=True)
            replace_json(self.status_path, content, durable=False)

    def read_status(self) -> dict[str, Any]:
        """The newest status; empty before the first.

        Raises:
            FtflError: the file is damaged.
        """
        return read_json(self.status_path) if self.status_path.exists() else {}


def _objects(path: Path) -> list[dict[str, Any]]:
    return [record for _, record in read_lines(path)] if path.exists() else []
