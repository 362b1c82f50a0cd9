"""DeepMind Control tasks: ``dmc/DOMAIN-TASK``, from proprioceptive observations.

The adapter is ours because each reset must be exact for its seed and no step may reset by itself.
OpenGL is touched only when rendering was asked for; which backend renders is the caller's choice
through the environment variable MUJOCO_GL, before the process starts.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from ftfl.envs.faults import Violation
from ftfl.envs.physics import (
    LOAD_ERRORS,
    RENDER_ERRORS,
    cannot_load,
    listen_to_mujoco,
    require_picture_backend,
    without_display_warnings,
)
from ftfl.envs.spaces import ActionRange, ObsLayout
from ftfl.envs.spec import EnvSpec
from ftfl.errors import FtflError, unknown
from ftfl.termination import never
from ftfl.types import Step

PICTURE_SIZE = 480


def list_dmc_tasks() -> list[str]:
    """Canonical names of all tasks that can be trained, e.g. ``dmc/ball-in-cup-catch``."""
    return sorted(f"dmc/{name}" for name, (domain, _) in _tasks().items() if domain != "lqr")


class DmcEnvironment:
    """One task of the suite, with actions in [-1, 1] and flat float32 observations."""

    def __init__(self, name: str, render: bool):
        domain, task = _find(name)
        canonical = f"dmc/{_canonical(domain, task)}"
        suite = _import_suite()
        with _quiet():
            self._env: Any = suite.load(domain, task)
        self._physics_error = _physics_error()
        if render:
            require_picture_backend(canonical)
        else:
            # quadruped-escape uploads its terrain to a context it would open only for that.
            self._env.physics._make_rendering_contexts = lambda: None
        self._render = render
        action_spec = self._env.action_spec()
        self._range = ActionRange.of(action_spec.minimum, action_spec.maximum, canonical)
        self._layout = ObsLayout(
            tuple((key, tuple(part.shape)) for key, part in self._env.observation_spec().items())
        )
        self.spec = EnvSpec(
            task=canonical,
            obs_dim=self._layout.dim,
            act_dim=len(self._range.low),
            # The suite counts in simulated time; it stops at the first count not below the limit.
            max_episode_steps=math.ceil(self._env._step_limit),
            termination=never,
            learned_termination=False,
            reward_fn=None,
            replayable=True,
            seconds_per_step=float(self._env.control_timestep()),
            obs_names=self._layout.names,
            action_low=tuple(self._range.low.tolist()),
            action_high=tuple(self._range.high.tolist()),
        )

    @property
    def physics(self) -> Any:
        """The ``dm_control`` physics, for code that sets states or reads the model."""
        return self._env.physics

    def reset(self, seed: int) -> np.ndarray:
        """Start the episode of ``seed``: the same one in a fresh and in a used environment."""
        # The task keeps one generator for its whole life; an episode of its own needs a new one.
        self._env.task._random = np.random.RandomState(seed)
        try:
            return self._flatten(self._env.reset().observation)
        except self._physics_error as error:
            raise Violation("simulator", " ".join(str(error).split())) from error

    def step(self, action: np.ndarray) -> Step:
        """Advance one control step; discount 0 is a termination, the end of time is not."""
        try:
            moment = self._env.step(self._range.to_env(action))
        except self._physics_error as error:
            raise Violation("simulator", " ".join(str(error).split())) from error
        last = moment.last()
        terminated = last and moment.discount == 0
        obs = self._flatten(moment.observation)
        return Step(obs, float(moment.reward), bool(terminated), bool(last and not terminated))

    def render(self) -> np.ndarray:
        """Return a picture from the first camera, uint8 of shape (480, 480, 3)."""
        if not self._render:
            raise FtflError(f"{self.spec.task} was made without render=True.")
        try:
            with _quiet():
                return self._env.physics.render(PICTURE_SIZE, PICTURE_SIZE, camera_id=0)
        except RENDER_ERRORS as error:
            raise FtflError(
                f"no picture of {self.spec.task}: OpenGL did not start ({error}); start the "
                "process with another MUJOCO_GL (egl, osmesa or glfw)."
            ) from error

    def close(self) -> None:
        """Give back the rendering context, if there is one."""
        self._env.close()

    def simulator_warnings(self) -> np.ndarray:
        """Return MuJoCo's counters by warning since reset."""
        return self._env.physics.data.warning.number

    def _flatten(self, observation: dict[str, Any]) -> np.ndarray:
        return self._layout.flatten(observation.__getitem__)


def _canonical(domain: str, task: str) -> str:
    return f"{domain}-{task}".replace("_", "-")


def _find(name: str) -> tuple[str, str]:
    tasks = _tasks()
    given = name.replace("_", "-").lower()
    by_lower = {canonical.lower(): canonical for canonical in tasks}
    if given not in by_lower:
        trainable = [f"dmc/{known}" for known, (domain, _) in tasks.items() if domain != "lqr"]
        raise unknown("task", f"dmc/{name}", trainable)
    domain, task = tasks[by_lower[given]]
    if domain == "lqr":
        raise FtflError(
            f"dmc/{by_lower[given]} has unbounded actions, which cannot be scaled to [-1, 1]: "
            "choose a task with bounded actions, e.g. dmc/point-mass-easy, or wrap it with "
            "clipped actions as your_package.module:make_env."
        )
    return domain, task


@functools.cache
def _tasks() -> dict[str, tuple[str, str]]:
    return {_canonical(*pair): pair for pair in _import_suite().ALL_TASKS}


def _physics_error() -> type[Exception]:
    from dm_control.rl.control import PhysicsError

    return PhysicsError


@functools.cache
def _import_suite() -> Any:
    try:
        with _quiet():
            from dm_control import suite
    except LOAD_ERRORS as error:
        raise cannot_load("dm_control", error) from error
    listen_to_mujoco()  # dm_control has just made itself the listener
    return suite


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence what dm_control says of displays it does not need and of its own old XML."""
    absl = logging.getLogger("absl")
    level = absl.level
    absl.setLevel(logging.ERROR)
    try:
        with without_display_warnings():
            yield
    finally:
        absl.setLevel(level)
