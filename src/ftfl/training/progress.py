"""The host side of a run: counters, running statistics, time spent."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass
class Moments:
    """Running mean and variance (Welford) in float64."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0

    def add(self, value: float) -> None:
        """Count one value."""
        self.count += 1
        delta = value - self.mean
        self.mean += delta / self.count
        self.squares += delta * (value - self.mean)

    @property
    def std(self) -> float:
        """Population standard deviation."""
        return math.sqrt(self.squares / self.count) if self.count else 0.0


@dataclass
class Progress:
    """The host side of a run; with ``RunState``, all that a checkpoint holds."""

    # where the run is
    env_steps: int = 0
    learn_steps: int = 0
    updates: int = 0
    """Gradient updates of the agent."""
    episode: int = 0
    episode_return: float = 0.0
    actions: list[np.ndarray] = field(default_factory=list)
    """Actions since the episode's reset: what replays it, in an environment declared replayable."""
    obs: np.ndarray | None = None
    """The newest observation of the episode: what a replay must arrive at, bit for bit."""
    # what it has seen
    rewards: Moments = field(default_factory=Moments)
    faults: list[int] = field(default_factory=list)
    """Environment steps at which the environment failed."""
    # what it owes, and did
    fitted: bool = False
    owed: list[bool] = field(default_factory=list)
    """Learn steps not yet paid (``update_between_episodes``); True: a refit comes first."""
    due: list[str] = field(default_factory=list)
    """Records, evaluations, checkpoints that wait for the end of the episode."""
    agent_resets: int = 0
    rollbacks: int = 0
    # what it reports
    seconds: float = 0.0
    """Spent before this process took over."""
    last_return: float | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    """Newest value of every metric that is repeated until it changes."""

    @property
    def rows(self) -> int:
        """Real transitions ever stored: logged ones, and one a step."""
        return self.rewards.count

    def to_meta(self) -> dict[str, Any]:
        """As JSON, without the two arrays; a non-finite metric becomes None."""
        meta = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        del meta["actions"], meta["obs"]
        meta["rewards"] = [self.rewards.count, self.rewards.mean, self.rewards.squares]
        meta["metrics"] = {k: v if math.isfinite(v) else None for k, v in self.metrics.items()}
        return meta

    @classmethod
    def from_meta(cls, meta: Mapping[str, Any]) -> Progress:
        """The inverse; what an older checkpoint does not say has its default."""
        known = {f.name for f in dataclasses.fields(cls)}
        values = {k: v for k, v in meta.items() if k in known}
        values["rewards"] = Moments(*values["rewards"])
        metrics = values.get("metrics", {})
        values["metrics"] = {k: math.nan if v is None else v for k, v in metrics.items()}
        return cls(**values)


@dataclass
class Clock:
    """Seconds spent since the last log record, by what they were spent on."""

    spent: dict[str, float] = field(default_factory=dict)
    mark: float = field(default_factory=time.perf_counter)

    def lap(self, name: str) -> None:
        """Book the time since the last lap."""
        now = time.perf_counter()
        self.spent[name] = self.spent.get(name, 0.0) + now - self.mark
        self.mark = now

    def take(self) -> dict[str, float]:
        """What was booked, as metrics; starts anew."""
        spent, self.spent = self.spent, {}
        return {f"time/{k}_seconds": v for k, v in spent.items()}
