"""A real state that can be branched off from, and the branches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, TypeAlias

import numpy as np

from ftfl.envs.guard import EnvFault
from ftfl.envs.snapshots import lift_time_limit
from ftfl.envs.spec import Environment

Choose: TypeAlias = Callable[[int, np.ndarray], np.ndarray]
"""(step of the branch, observation (O,)) → action (A,)."""
End: TypeAlias = Literal["going on", "terminated", "truncated", "fault"]


class Path(NamedTuple):
    """A branch of L steps, rewards in the task's own unit."""

    obs: np.ndarray
    """(L + 1, O)"""
    action: np.ndarray
    """(L, A)"""
    reward: np.ndarray
    """(L,) float64"""
    end: End
    """``truncated``: by the environment itself, for its time limits are lifted; ``fault``: the
    simulator broke in the step after the last."""

    @property
    def steps(self) -> int:
        """L"""
        return len(self.reward)


@dataclass(frozen=True)
class Moment:
    """A real state of the run, in a simulator that is taken back to it for every branch."""

    row: int
    obs: np.ndarray
    unit: float
    env: Environment = field(repr=False)
    restore: Callable[[], None] = field(repr=False)

    def play(self, choose: Choose, steps: int) -> Path:
        """Branch off: ``steps`` steps, fewer if the episode ends; time limits are lifted."""
        self.restore()
        put_back = lift_time_limit(self.env)
        obs, actions, rewards = [self.obs], [], []
        end: End = "going on"
        try:
            for step in range(steps):
                action = np.asarray(choose(step, obs[-1]), np.float32)
                try:
                    result = self.env.step(action)
                except EnvFault:
                    end = "fault"
                    break
                obs.append(result.obs)
                actions.append(action)
                rewards.append(result.reward / self.unit)
                if result.terminated or result.truncated:
                    end = "terminated" if result.terminated else "truncated"
                    break
        finally:
            put_back()
        width = self.env.spec.act_dim
        taken = np.array(actions, np.float32).reshape(-1, width)
        return Path(np.array(obs), taken, np.array(rewards, np.float64), end)
