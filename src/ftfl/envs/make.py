"""Strings become environments here, and nowhere else."""

from __future__ import annotations

import contextlib
import dataclasses
import math

import numpy as np

from ftfl.config import TaskConfig
from ftfl.envs.guard import Adapter, Guarded
from ftfl.envs.spec import Environment, EnvSpec, require_termination
from ftfl.errors import FtflError, in_a_line, unknown
from ftfl.types import RewardFn, Step

__all__ = ["EnvSpec", "Environment", "list_tasks", "make_env", "make_task", "require_termination"]

SUITES = ("dmc", "gym", "probe")


def make_env(
    task: str,
    *,
    action_repeat: int = 1,
    reward_unit: float = 1.0,
    render: bool = False,
    step_limit_seconds: float | None = None,
) -> Guarded:
    """Make ``dmc/hopper-stand``, ``gym/Hopper-v5``, ``probe/rest`` or ``your_module:make_env``.

    ``action_repeat`` applies each action that often, sums the rewards and stops at the end of the
    episode. ``reward_unit`` multiplies every reward (exactly, if it is a power of two). Pictures
    need ``render``, which a custom environment decides for itself. With ``step_limit_seconds`` the
    environment runs in a process of its own, where it may hang or die (see `envs.isolated`).
    Raises `FtflError` for a name that is not known and an environment that cannot be used.
    """
    if action_repeat < 1 or int(action_repeat) != action_repeat:
        raise FtflError(f"action_repeat {action_repeat!r} must be a whole number of at least 1.")
    if not (math.isfinite(reward_unit) and reward_unit > 0):
        raise FtflError(f"reward_unit {reward_unit!r} must be a positive finite number.")
    order = (task, int(action_repeat), float(reward_unit), render)
    if step_limit_seconds is None:
        return Guarded(lambda: make_adapter(*order))
    if not (math.isfinite(step_limit_seconds) and step_limit_seconds > 0):
        raise FtflError(
            f"step_limit_seconds {step_limit_seconds!r} must be a positive finite number of "
            "seconds, or None."
        )
    from ftfl.envs.isolated import Isolated

    # Its functions for JAX cannot cross to another process, so one is made here to read them off.
    with contextlib.closing(Guarded(lambda: make_adapter(*order))) as here:
        spec = here.spec
    # That process starts at the first reset: many only want the description.
    return Guarded(
        lambda: Isolated(order, spec, step_limit_seconds).started(),
        Isolated(order, spec, step_limit_seconds),
    )


def make_task(task: TaskConfig, render: bool = False) -> Guarded:
    """Make the environment as a run's configuration names it."""
    return make_env(
        task.name,
        action_repeat=task.action_repeat,
        reward_unit=task.reward_unit,
        render=render,
        step_limit_seconds=task.step_limit_seconds,
    )


def make_adapter(task: str, action_repeat: int, reward_unit: float, render: bool) -> Adapter:
    """Make what is to be guarded; whatever an environment raises meanwhile is an `FtflError`."""
    try:
        adapter = _load(task, render)
    except FtflError:
        raise
    except Exception as error:
        raise FtflError(f"{task} cannot be made: {in_a_line(error)}.") from error
    if action_repeat != 1 or reward_unit != 1:
        adapter = Rescaled(adapter, action_repeat, reward_unit)
    return adapter


def list_tasks() -> dict[str, list[str]]:
    """Names of all built-in tasks, by suite."""
    from ftfl.envs.dmc import list_dmc_tasks
    from ftfl.envs.gym import list_gym_tasks
    from ftfl.envs.probes import list_probe_tasks

    return {"dmc": list_dmc_tasks(), "gym": list_gym_tasks(), "probe": list_probe_tasks()}


def _load(task: str, render: bool) -> Adapter:
    # Imports wait until a suite is asked for: dm_control alone takes a second.
    if ":" in task:
        from ftfl.envs.custom import load_custom

        return load_custom(task)
    suite, slash, name = task.partition("/")
    if suite == "dmc" and slash:
        from ftfl.envs.dmc import DmcEnvironment

        return DmcEnvironment(name, render)
    if suite == "gym" and slash:
        from ftfl.envs.gym import load_gym

        return load_gym(name, render)
    if suite == "probe" and slash:
        from ftfl.envs.probes import ProbeEnvironment

        return ProbeEnvironment(name)
    if slash:
        raise FtflError(
            f"unknown suite {suite!r} in task {task!r}: suites are {', '.join(SUITES)}; your own "
            "environment is named package.module:make_env."
        )
    everything = [known for tasks in list_tasks().values() for known in tasks]
    same_name = [known for known in everything if known.partition("/")[2] == task]
    if same_name:
        raise FtflError(f"task {task!r} lacks its suite: did you mean {' or '.join(same_name)}?")
    raise unknown("task", task, everything)


class Rescaled:
    """An adapter with action repeat and another unit of reward."""

    def __init__(self, inner: Adapter, action_repeat: int, reward_unit: float):
        self.inner = inner
        self._repeat, self._unit = action_repeat, reward_unit
        spec = inner.spec
        limit, seconds = spec.max_episode_steps, spec.seconds_per_step
        self.spec = dataclasses.replace(
            spec,
            max_episode_steps=None if limit is None else math.ceil(limit / action_repeat),
            seconds_per_step=None if seconds is None else seconds * action_repeat,
            reward_fn=_scaled(spec.reward_fn, reward_unit) if action_repeat == 1 else None,
        )

    def reset(self, seed: int) -> np.ndarray:
        """Start the episode of ``seed``."""
        return self.inner.reset(seed)

    def step(self, action: np.ndarray) -> Step:
        """Apply ``action`` up to ``action_repeat`` times; the observation is the last one."""
        result = self.inner.step(action)
        total = result.reward
        for _ in range(self._repeat - 1):
            if result.terminated or result.truncated:
                break
            result = self.inner.step(action)
            total += result.reward
        return result._replace(reward=total * self._unit)

    def render(self) -> np.ndarray:
        """Return the current picture."""
        return self.inner.render()

    def close(self) -> None:
        """Give back windows and contexts."""
        self.inner.close()

    def simulator_warnings(self) -> np.ndarray | None:
        """Return the inner environment's warning counters."""
        return self.inner.simulator_warnings()


def _scaled(reward_fn: RewardFn | None, unit: float) -> RewardFn | None:
    if reward_fn is None:
        return None
    return lambda obs, action, next_obs: reward_fn(obs, action, next_obs) * unit
