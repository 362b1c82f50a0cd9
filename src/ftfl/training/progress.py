"""The host side of a run: counters, running statistics, time spent."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field

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

    env_steps: int = 0
    episode: int = 0
    episode_return: float = 0.0
    actions: list[np.ndarray] = field(default_factory=list)
    """Actions since the episode's reset: what replays it, in an environment declared replayable."""
    rewards: Moments = field(default_factory=Moments)
    fitted: bool = False
    owed: list[bool] = field(default_factory=list)
    """Learn steps not yet paid (``update_between_episodes``); True: a refit comes first."""
    seconds: float = 0.0
    last_return: float | None = None


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
