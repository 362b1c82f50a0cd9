"""Gymnasium tasks, ``gym/ID``, and the adapter that custom environments share with them."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from ftfl.envs.faults import Violation, shown
from ftfl.envs.layouts import entry_names
from ftfl.envs.physics import (
    RENDER_ERRORS,
    listen_to_mujoco,
    require_picture_backend,
    simulator_data,
    without_display_warnings,
)
from ftfl.envs.rewards import REWARD
from ftfl.envs.spaces import ActionRange, ObsLayout, pick
from ftfl.envs.spec import EnvSpec
from ftfl.errors import FtflError, unknown
from ftfl.termination import TERMINATION
from ftfl.types import Step

_FAMILIES = {task_id.rpartition("-v")[0]: task_id for task_id in TERMINATION}
_MISSING = object()


def list_gym_tasks() -> list[str]:
    """Names of the Gymnasium tasks whose end is known in closed form."""
    return sorted(f"gym/{task_id}" for task_id in TERMINATION if task_id != "Pusher-v4")


def load_gym(task_id: str, render: bool) -> GymEnvironment:
    """Make a registered environment with its own time limit."""
    _refuse_old(task_id)
    if task_id not in gymnasium.registry:
        raise unknown("task", f"gym/{task_id}", list_gym_tasks())
    listen_to_mujoco()
    if render and "mujoco" in str(gymnasium.spec(task_id).entry_point):
        require_picture_backend(f"gym/{task_id}")
    try:
        with warnings.catch_warnings():
            # v4 is asked for on purpose: published numbers are comparable only within a version.
            warnings.filterwarnings("ignore", message=".*is out of date")
            env = gymnasium.make(
                task_id, render_mode="rgb_array" if render else None, disable_env_checker=True
            )
    except (ImportError, gymnasium.error.Error) as error:
        raise FtflError(f"gym/{task_id} cannot be made here: {error}") from error
    return GymEnvironment(
        env,
        f"gym/{task_id}",
        termination=TERMINATION.get(task_id),
        reward_fn=REWARD.get(task_id),
        # Only what we know to be a simulator: a registered id may drive a robot.
        replayable=task_id in TERMINATION,
    )


class GymEnvironment:
    """Anything with Gymnasium's five-value step, with actions in [-1, 1] and flat observations."""

    def __init__(self, env: Any, task: str, **facts: Any):
        self._env = env
        self._range, self._action_dtype = _action_range(env.action_space, task)
        parts = tuple(_obs_parts(env.observation_space, "", task))
        self._layout = ObsLayout(tuple((name, tuple(box.shape)) for name, box in parts))
        if self._layout.dim == 0:
            raise FtflError(
                f"{task} has an empty observation space: give at least one number to act on."
            )
        self._plain = not isinstance(env.observation_space, spaces.Dict)
        self._data = simulator_data(env)
        names = entry_names(
            task.removeprefix("gym/"),
            find_attribute(env, "observation_structure"),
            self._layout.dim,
        )
        self.spec = EnvSpec(
            task=task,
            obs_dim=self._layout.dim,
            act_dim=len(self._range.low),
            max_episode_steps=_time_limit(env, task),
            learned_termination=facts.pop("learned_termination", False),
            seconds_per_step=_seconds_per_step(env),
            obs_names=names or self._layout.names,
            action_low=tuple(self._range.low.tolist()),
            action_high=tuple(self._range.high.tolist()),
            obs_low=tuple(float(x) for _, box in parts for x in box.low.ravel()),
            obs_high=tuple(float(x) for _, box in parts for x in box.high.ravel()),
            **facts,
        )

    @property
    def unwrapped(self) -> Any:
        """The bare environment, for code that sets states or reads the model."""
        return getattr(self._env, "unwrapped", self._env)

    def reset(self, seed: int) -> np.ndarray:
        """Start the episode of ``seed``."""
        if self._data is not None:
            self._data.warning.number[:] = 0  # for a reset that sets positions and nothing else
        result = self._env.reset(seed=seed)
        self._data = simulator_data(self._env)  # some make a new model for each episode
        if not (isinstance(result, tuple) and len(result) == 2):
            raise Violation(
                "contract",
                "reset returned no (observation, info) pair, which is Gym's interface before "
                "0.26: return (obs, info)",
            )
        return self._flatten(result[0])

    def step(self, action: np.ndarray) -> Step:
        """Advance one step; the environment says what is terminated and what is truncated."""
        result = self._env.step(self._range.to_env(action).astype(self._action_dtype))
        if not (isinstance(result, tuple) and len(result) == 5):
            count = len(result) if isinstance(result, tuple) else 1
            old = ", which is Gym's interface before 0.26" if count == 4 else ""
            raise Violation(
                "contract",
                f"step returned {count} value{'s' * (count != 1)}{old}: return (obs, reward, "
                "terminated, truncated, info), with truncated for a time limit",
            )
        obs, reward, terminated, truncated, _ = result
        if not _is_number(reward):
            raise Violation("contract", f"the reward is {shown(reward)}, which is not a number")
        for name, flag in (("terminated", terminated), ("truncated", truncated)):
            if not isinstance(flag, (bool, np.bool_)):
                what = f"{name} is {shown(flag)}, which is neither True nor False"
                raise Violation("contract", what)
        return Step(self._flatten(obs), float(reward), bool(terminated), bool(truncated))

    def render(self) -> np.ndarray:
        """Return the environment's own ``rgb_array`` picture."""
        if getattr(self._env, "render_mode", None) != "rgb_array":
            raise FtflError(f"{self.spec.task} was made without render_mode='rgb_array'.")
        try:
            with without_display_warnings():
                return np.asarray(self._env.render(), np.uint8)
        except (gymnasium.error.Error, *RENDER_ERRORS) as error:
            raise FtflError(
                f"no picture of {self.spec.task}: {error}; MuJoCo tasks need the process to start "
                "with MUJOCO_GL=egl or MUJOCO_GL=osmesa, classic ones need pygame."
            ) from error

    def close(self) -> None:
        """Close the environment."""
        self._env.close()

    def simulator_warnings(self) -> np.ndarray | None:
        """Return MuJoCo's counters by warning since reset, or None for another simulator."""
        return None if self._data is None else self._data.warning.number

    def _flatten(self, observation: Any) -> np.ndarray:
        if self._plain:
            return self._layout.flatten(lambda _: observation)
        return self._layout.flatten(lambda path: pick(observation, path))


def _refuse_old(task_id: str) -> None:
    match = re.fullmatch(r"(\w+?)(?:-v(\d+))?", task_id)
    name, version = match.groups() if match else (task_id, None)
    if name not in _FAMILIES or task_id in TERMINATION:
        if task_id != "Pusher-v4":
            return
        raise FtflError(
            "gym/Pusher-v4 refuses MuJoCo 3, whose contact model changed its result: use "
            "gym/Pusher-v5."
        )
    modern = _FAMILIES[name]
    note = (
        f" v2 and v3 live in gymnasium-robotics; v5 differs from them in rewards and observations,"
        f" so compare numbers only within a version (also here: gym/{name}-v4)."
        if modern.endswith("-v5") and version is not None
        else ""
    )
    raise FtflError(f"gym/{task_id} is not available: use gym/{modern}.{note}")


def _action_range(space: Any, task: str) -> tuple[ActionRange, np.dtype]:
    if not isinstance(space, spaces.Box):
        raise FtflError(
            f"{task} has a {type(space).__name__} action space; only continuous actions (a Box of "
            "one vector with finite bounds) are supported."
        )
    if space.dtype.kind != "f":
        raise FtflError(
            f"{task} has actions of dtype {space.dtype}; only floating-point numbers are "
            "supported, so declare a Box of float32 and round in the environment."
        )
    return ActionRange.of(space.low, space.high, task), np.dtype(space.dtype)


def _obs_parts(space: Any, path: str, task: str) -> Iterator[tuple[str, spaces.Box]]:
    if isinstance(space, spaces.Dict):
        for key in sorted(space.spaces):
            yield from _obs_parts(space.spaces[key], f"{path}/{key}".strip("/"), task)
    elif not isinstance(space, spaces.Box):
        raise FtflError(
            f"{task} has a {type(space).__name__} observation{f' {path!r}' if path else ''}; only "
            "Box vectors and dictionaries of them are supported."
        )
    elif len(space.shape) >= 3 or (space.dtype == np.uint8 and len(space.shape) == 2):
        raise FtflError(
            f"{task} observes pixels{f' in {path!r}' if path else ''} (shape {space.shape}, "
            f"{space.dtype}); only vectors are supported, so give the state instead."
        )
    else:
        yield path or "obs", space


def find_attribute(env: Any, name: str, default: Any = None) -> Any:
    """Look ``name`` up on ``env`` and then on what it wraps (Gymnasium does not forward names)."""
    while env is not None:
        value = getattr(env, name, _MISSING)
        if value is not _MISSING:
            return value
        env = getattr(env, "env", None)
    return default


def _is_number(value: Any) -> bool:
    if isinstance(value, float):
        return True  # by far the usual case, and NumPy's questions take microseconds
    try:
        array = np.asarray(value)
    except Exception:  # noqa: BLE001 - ragged lists, tensors on another device
        return False
    return array.ndim == 0 and array.dtype.kind in "fiub"


def _time_limit(env: Any, task: str) -> int | None:
    limit = find_attribute(env, "_max_episode_steps")
    if limit is None:
        limit = getattr(getattr(env, "spec", None), "max_episode_steps", None)
    if limit is None:
        return None
    if not isinstance(limit, (int, np.integer)) or limit < 1:
        raise FtflError(
            f"{task} has a time limit of {shown(limit)} steps; it must be a whole number of at "
            "least 1, or None."
        )
    return int(limit)


def _seconds_per_step(env: Any) -> float | None:
    for name in ("seconds_per_step", "dt"):
        value = find_attribute(env, name)
        if isinstance(value, (int, float)) and value > 0:
            return float(value)
    return None
