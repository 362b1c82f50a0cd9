"""Nothing non-finite and no false physics gets past this wrapper.

MuJoCo answers a diverged simulation by resetting itself: the observation and the reward stay
finite, the episode goes on, and a teleport enters the replay buffer. Only its warning counters
tell, so they are read after every step.
"""

from __future__ import annotations

from typing import Literal, Protocol, runtime_checkable

import numpy as np

from ftfl.envs.spec import EnvSpec
from ftfl.errors import FtflError
from ftfl.types import Step

Cause = Literal["action", "observation", "reward", "simulator"]


@runtime_checkable  # tests check annotations at run time
class Adapter(Protocol):
    """An environment of one suite, before it is guarded."""

    spec: EnvSpec

    def reset(self, seed: int) -> np.ndarray: ...  # noqa: D102
    def step(self, action: np.ndarray) -> Step: ...  # noqa: D102
    def render(self) -> np.ndarray: ...  # noqa: D102
    def close(self) -> None: ...  # noqa: D102

    def simulator_warnings(self) -> np.ndarray | None:
        """Return MuJoCo's counters by ``mjtWarning``, or None without MuJoCo."""
        ...


class EnvFault(FtflError):
    """The environment (or the action sent to it) broke its contract; the transition is void."""

    def __init__(
        self, task: str, cause: Cause, what: str, seed: int, step: int, action: np.ndarray | None
    ):
        self.cause, self.seed, self.step, self.action = cause, seed, step, action
        where, history = "reset", f"reset(seed={seed})"
        if action is not None:
            where = f"step {step} of the episode"
            history += f" and the same {step} actions, the last {np.asarray(action).tolist()}"
        super().__init__(f"{task}: {what} (at {where}; to reproduce: {history}).")


class Guarded:
    """An environment whose actions, observations, rewards and physics are checked at each step.

    ``clipped_actions`` counts the steps whose action had to be clipped into [-1, 1].
    """

    def __init__(self, inner: Adapter):
        self.inner = inner
        self.spec = inner.spec
        self.clipped_actions = 0
        self._seed = 0
        self._steps = 0
        self._running = False

    def reset(self, seed: int) -> np.ndarray:
        """Start the episode that ``seed`` names."""
        seed = int(seed)
        if not 0 <= seed < 2**32:
            raise FtflError(f"seed {seed} is out of range: an episode seed is in [0, 2**32).")
        self._seed, self._steps, self._running = seed, 0, False
        try:
            obs = self.inner.reset(seed)
        except FtflError as error:
            raise self._fault("simulator", str(error), None) from error
        self._check_obs(obs, None)
        self._check_simulator(None)
        self._running = True
        return obs

    def step(self, action: np.ndarray) -> Step:
        """Apply one action, or raise `EnvFault` and wait for a reset."""
        if not self._running:
            raise FtflError(f"{self.spec.task}: the episode is over; call reset(seed) before step.")
        self._running = False
        self._steps += 1
        action = self._checked_action(action)
        try:
            result = self.inner.step(action)
        except FtflError as error:
            raise self._fault("simulator", str(error), action) from error
        self._check_simulator(action)
        self._check_obs(result.obs, action)
        # Replay holds float32: what overflows there is as bad as NaN.
        if not abs(result.reward) <= np.finfo(np.float32).max:
            raise self._fault("reward", f"the reward is {result.reward}", action)
        self._running = not (result.terminated or result.truncated)
        return result

    def render(self) -> np.ndarray:
        """Return the current picture."""
        return self.inner.render()

    def close(self) -> None:
        """Give back windows and contexts."""
        self._running = False
        self.inner.close()

    def _checked_action(self, action: np.ndarray) -> np.ndarray:
        action = np.asarray(action, np.float32)
        if action.shape != (self.spec.act_dim,):
            what = f"the action has shape {action.shape}, expected is ({self.spec.act_dim},)"
            raise self._fault("action", what, action)
        if not np.isfinite(action).all():
            raise self._fault("action", "the action is not finite", action)
        clipped = np.clip(action, -1, 1)
        self.clipped_actions += bool((clipped != action).any())
        return clipped

    def _check_obs(self, obs: np.ndarray, action: np.ndarray | None) -> None:
        if obs.shape != (self.spec.obs_dim,):
            what = f"the observation has shape {obs.shape}, declared is ({self.spec.obs_dim},)"
            raise self._fault("observation", what, action)
        finite = np.isfinite(obs)
        if not finite.all():
            names = [self.spec.obs_names[i] for i in np.flatnonzero(~finite)[:5]]
            raise self._fault("observation", f"not finite: {', '.join(names)}", action)

    def _check_simulator(self, action: np.ndarray | None) -> None:
        counts = self.inner.simulator_warnings()
        if counts is None or not counts.any():
            return
        from ftfl.envs.physics import warning_names  # already imported by MuJoCo's adapters

        what = f"MuJoCo warned {warning_names(counts)}: the simulated state is not valid"
        raise self._fault("simulator", what, action)

    def _fault(self, cause: Cause, what: str, action: np.ndarray | None) -> EnvFault:
        return EnvFault(self.spec.task, cause, what, self._seed, self._steps, action)
