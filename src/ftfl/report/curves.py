"""Runs as arms: the seeds of one configuration, read once and brought onto common steps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ftfl.config import Config, from_dict
from ftfl.errors import FtflError
from ftfl.report.intervals import SMALLEST_BAND, t_half_width
from ftfl.store.metrics_file import read_metrics, series
from ftfl.store.rundir import RunDir


@dataclass(frozen=True)
class Seed:
    """One run as far as it can be read; a damaged or failed one is still a seed of its arm."""

    run: RunDir
    number: int | None
    """The seed, or None where the configuration cannot be read."""
    config: Config | None
    state: str
    """A state of ``ftfl.store.rundir.STATES``, or ``unknown``."""
    message: str
    """Why it failed or what could not be read; empty for a finished run."""
    records: tuple[Mapping[str, Any], ...]
    seconds: float
    """Wall-clock seconds of the run so far; NaN when it never said."""

    @property
    def name(self) -> str:
        """What a report calls the seed."""
        return self.run.path.name if self.number is None else f"seed {self.number}"

    @property
    def ended(self) -> bool:
        """The run came to its planned end."""
        return self.state == "done"

    @property
    def failed(self) -> bool:
        """The run stopped with an error, or its files cannot be read."""
        return self.state in ("failed", "unreadable")

    @property
    def env_steps(self) -> int:
        """Environment steps at the last record; 0 before the first."""
        return max((record["env_steps"] for record in self.records), default=0)

    def curve(self, metric: str) -> tuple[np.ndarray, np.ndarray]:
        """Steps (N,), rising, and values (N,) with NaN where not finite; empty if not recorded.

        A step recorded twice keeps its later value.
        """
        steps, values = series(self.records, metric)
        latest = dict(zip(steps.tolist(), values.tolist(), strict=True))
        ordered = sorted(latest)
        return np.array(ordered, np.int64), np.array([latest[s] for s in ordered], np.float64)

    def last(self, metric: str) -> tuple[int, float] | None:
        """Step and value of the last record of a metric (NaN: not finite); None if never there."""
        steps, values = self.curve(metric)
        return (int(steps[-1]), float(values[-1])) if steps.size else None


@dataclass(frozen=True)
class Arm:
    """The seeds of one configuration under one name."""

    label: str
    runs: tuple[RunDir, ...]
    note: str = ""

    @cached_property
    def seeds(self) -> tuple[Seed, ...]:
        """The runs, read at first use and then kept, so that all parts of a report agree."""
        return tuple(read_seed(run) for run in self.runs)


@dataclass(frozen=True)
class MeanCurve:
    """Mean over all seeds of an arm, where all of them have values."""

    steps: np.ndarray
    """int64, shape (N,)."""
    mean: np.ndarray
    """float64, shape (N,); NaN where some seed is not finite."""
    half_width: np.ndarray | None
    """float64, shape (N,): pointwise interval; None below ``SMALLEST_BAND`` seeds."""
    n: int


def load_arms(groups: Mapping[str, Sequence[RunDir]]) -> list[Arm]:
    """One arm per label, in the order given.

    Raises:
        FtflError: there are no groups, or one has no runs.
    """
    if not groups:
        raise FtflError("no runs were given: name at least one run directory.")
    for label, runs in groups.items():
        if not runs:
            raise FtflError(f"group {label!r} has no runs: name at least one run directory for it.")
    return [Arm(label, tuple(runs)) for label, runs in groups.items()]


def read_seed(run: RunDir) -> Seed:
    """A run with all that can be read of it; what cannot is said in ``message``, never raised."""
    problems: list[str] = []
    config: Config | None = None
    status: dict[str, Any] = {}
    records: list[dict[str, Any]] = []
    try:
        config = from_dict(run.config())
    except (FtflError, TypeError) as error:
        problems.append(str(error))
    try:
        status = run.read_status()
    except FtflError as error:
        problems.append(str(error))
    try:
        records = read_metrics(run.metrics_path) if run.metrics_path.exists() else []
    except FtflError as error:
        problems.append(str(error))
    state = "unreadable" if problems else str(status.get("state") or "unknown")
    if state == "failed":
        problems.append(str(status.get("message") or "the run did not say why it failed"))
    return Seed(
        run=run,
        number=None if config is None else config.seed,
        config=config,
        state=state,
        message=" ".join(problems),
        records=tuple(records),
        seconds=_seconds(status, records),
    )


def mean_curve(arm: Arm, metric: str) -> MeanCurve | None:
    """The mean over **all** seeds of the arm; None if a seed never recorded the metric.

    It ends where the first seed ends: a mean over those that are left would jump for no other
    reason than who survived. Seeds recorded at different steps (training episodes) are
    interpolated linearly between their own records; evaluations share their steps and are not.
    """
    curves = [seed.curve(metric) for seed in arm.seeds]
    if any(steps.size == 0 for steps, _ in curves):
        return None
    first = max(int(steps[0]) for steps, _ in curves)
    last = min(int(steps[-1]) for steps, _ in curves)
    grid = np.unique(np.concatenate([steps for steps, _ in curves]))
    grid = grid[(grid >= first) & (grid <= last)]
    if grid.size == 0:
        return None
    rows = np.stack([np.interp(grid, steps, values) for steps, values in curves])
    half = t_half_width(rows) if len(rows) >= SMALLEST_BAND else None
    return MeanCurve(grid, rows.mean(axis=0), half, len(rows))


def last_value(seed: Seed, metric: str) -> float:
    """The last value of a metric, NaN if there is none or it is not finite."""
    last = seed.last(metric)
    return math.nan if last is None else last[1]


def _seconds(status: Mapping[str, Any], records: Sequence[Mapping[str, Any]]) -> float:
    given = [status.get("seconds"), *(record.get("seconds") for record in records[-1:])]
    return max((float(s) for s in given if isinstance(s, int | float)), default=math.nan)
