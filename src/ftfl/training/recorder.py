"""What a run writes while it goes on: metrics, its status for whoever watches, its faults."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

from ftfl.config import Config
from ftfl.sinks.base import Sink
from ftfl.store.files import DiskError
from ftfl.store.rundir import RunDir
from ftfl.training.progress import Clock, Progress

_STATUS_EVERY_SECONDS = 0.5


class Recorder:
    """Writes into a run directory and to its sinks; never touches what is learned."""

    def __init__(self, config: Config, run_dir: RunDir, sinks: Sequence[Sink], progress: Progress):
        self.config, self.run_dir, self.sinks, self.progress = config, run_dir, sinks, progress
        self.clock = Clock()
        self.notices: dict[str, str] = {}
        """What the user should know now, by what it is about; shown in the status."""
        self._latest: dict[str, float] = {}
        self._status_at = -math.inf
        self._started = time.perf_counter()
        self._speed_mark = (progress.env_steps, self._started)
        self._speed = 0.0

    def __enter__(self) -> Recorder:
        self.writer = self.run_dir.metrics_writer()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.writer.close()

    def take_over(self, progress: Progress) -> None:
        """Go on from ``progress``: what was recorded after it will be recorded again."""
        self.progress = progress
        self._speed_mark = (progress.env_steps, time.perf_counter())
        self.writer.truncate_after(progress.env_steps)
        self.run_dir.keep_faults(len(progress.faults))

    def seconds(self) -> float:
        """Seconds this run has taken, in all its processes."""
        return self.progress.seconds + time.perf_counter() - self._started

    def book_seconds(self) -> None:
        """Move the time of this process into the progress, before that is saved."""
        now = time.perf_counter()
        self.progress.seconds += now - self._started
        self._started = now

    def sync(self) -> None:
        """Force the records to disk: call before a checkpoint, whose past they are.

        Raises:
            DiskError: the disk does not take them all.
        """
        self.writer.sync()
        if self.writer.pending:
            raise DiskError(self.writer.problem)

    def log(self, values: Mapping[str, float]) -> None:
        """Write a full record: ``values``, the speed, and where the time went."""
        now = time.perf_counter()
        steps, since = self._speed_mark
        self._speed = (self.progress.env_steps - steps) / max(now - since, 1e-9)
        self._speed_mark = (self.progress.env_steps, now)
        if values.get("rollout/usable_rows_count") == 0:
            self.notices["screen"] = (
                "the screen lets no synthetic row through: all updates are real"
            )
        else:
            self.notices.pop("screen", None)
        self._latest = {**values, "time/steps_per_second": self._speed}
        self.write(self._latest | self.clock.take())

    def write(self, values: Mapping[str, float]) -> None:
        """Write a record at this step."""
        steps = self.progress.env_steps
        self.writer.write(steps, self.progress.updates, self.seconds(), values)
        if self.writer.pending:
            self.notices["metrics"] = self.writer.problem
        else:
            self.notices.pop("metrics", None)
        for sink in self.sinks:
            sink(steps, values)

    def status(self, what: str, lazily: bool = False) -> None:
        """Replace ``status.json``; with ``lazily`` only every half second."""
        now = time.perf_counter()
        if lazily and now - self._status_at < _STATUS_EVERY_SECONDS:
            return
        self._status_at = now
        progress, latest, config = self.progress, self._latest, self.config
        left = config.steps - progress.env_steps
        speed = self._speed if progress.env_steps > config.warmup_steps else 0.0
        real = latest.get("rollout/real_reward_mean_reward") if config.dynamics else None
        status: dict[str, Any] = {
            "state": what,
            "label": self.run_dir.label(config.algo),
            "seed": config.seed,
            "env_steps": progress.env_steps,
            "total_steps": config.steps,
            "seconds": self.seconds(),
            "eta_seconds": left / speed if speed else None,
            "steps_per_second": speed or None,
            "last_return": progress.last_return,
            "reward_r2": latest.get("model/reward_r2"),
            "synthetic_reward_mean": latest.get("rollout/synthetic_reward_mean_reward"),
            "real_reward_mean": real,
            "message": "; ".join(self.notices.values()),
            "pid": os.getpid(),
        }
        self.run_dir.write_status(status)
