"""What every environment here is: a description and four verbs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from ftfl.errors import FtflError
from ftfl.types import RewardFn, Step, TerminationFn, View


@dataclass(frozen=True)
class EnvSpec:
    """What an agent, a model and a report may know about a task before the first step."""

    task: str
    """Canonical name, e.g. ``dmc/hopper-stand``; `make_env` accepts it."""
    obs_dim: int
    act_dim: int
    max_episode_steps: int | None
    """In agent steps, that is after action repeat; None: no time limit."""
    termination: TerminationFn | None
    """Closed form on (obs, action, next_obs); None: not known."""
    learned_termination: bool
    """The environment asks for a learned termination model."""
    reward_fn: RewardFn | None
    """The reward, where it is a known function, in the unit the environment pays."""
    replayable: bool
    """A simulator in which ``reset(seed)`` and the same actions give the same bits. Never assume
    it of hardware: replaying would send stored actions to a robot."""
    seconds_per_step: float | None
    """Time between two agent actions, after action repeat."""
    obs_names: tuple[str, ...]
    """One name per observation entry, e.g. ``position[0]``."""
    action_low: tuple[float, ...] = ()
    """The actuators' own bounds, to which the agent's [-1, 1] is scaled; empty: [-1, 1] as well."""
    action_high: tuple[float, ...] = ()
    obs_low: tuple[float, ...] = ()
    """Declared bounds of each observation entry, which nobody enforces; empty: none declared."""
    obs_high: tuple[float, ...] = ()
    view: View | None = None
    """What the agent sees of an observation, where the model must predict more or otherwise than
    the agent sees (`envs.probes`); None: all of it."""


@runtime_checkable  # tests check annotations at run time
class Environment(Protocol):
    """One task; never resets itself. Actions are float32 of shape (A,) in [-1, 1]."""

    spec: EnvSpec

    def reset(self, seed: int) -> np.ndarray:
        """Start the episode that ``seed`` names (0 <= seed < 2**32); float32, shape (O,)."""
        ...

    def step(self, action: np.ndarray) -> Step:
        """Apply one action; after ``terminated`` or ``truncated`` only `reset` is allowed."""
        ...

    def render(self) -> np.ndarray:
        """Return the current picture, uint8 of shape (H, W, 3)."""
        ...

    def close(self) -> None:
        """Give back windows and contexts."""
        ...

    def restart(self) -> None:
        """Close and make the environment anew, after a fault that left it in an unknown state."""
        ...


def require_termination(spec: EnvSpec) -> None:
    """Refuse a task whose end is unknown: a model would have to guess when episodes stop."""
    if spec.termination is None and not spec.learned_termination:
        raise FtflError(
            f"{spec.task} does not say when an episode ends, and synthetic data needs to know: "
            "set on the environment one of termination_fn = a JAX function (obs, action, next_obs)"
            " -> bool, termination_fn = 'never' (only the time limit ends an episode), or "
            "termination_fn = 'learned' (a model of it is trained)."
        )
