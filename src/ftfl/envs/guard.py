"""Nothing non-finite and no false physics gets past this wrapper, and no exception but its own.

MuJoCo answers a diverged simulation by resetting itself: the observation and the reward stay
finite, the episode goes on, and a teleport enters the replay buffer. Only its warning counters
tell, so they are read after every step.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol, runtime_checkable

import numpy as np

from ftfl.envs.faults import NEEDS_RESTART, Cause, EnvFault, Violation, as_violation
from ftfl.envs.spec import EnvSpec
from ftfl.errors import FtflError, in_a_line
from ftfl.types import Step

__all__ = ["Adapter", "EnvFault", "Guarded"]

_LARGEST = float(np.finfo(np.float32).max)
SUSPICIOUS = 1e6
"""A reward this many times the usual one is finite, and hardly meant."""
_USUAL_AFTER = 100
_log = logging.getLogger(__name__)


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


class Guarded:
    """An environment whose actions, observations, rewards and physics are checked at each step.

    Whatever goes wrong in ``reset`` or ``step`` is an `EnvFault` and leaves no transition; only
    ``reset`` is allowed then, and makes the environment anew if its inner state cannot be trusted
    any more (it raised, hung or died). ``clipped_actions`` counts the steps whose action
    had to be clipped into [-1, 1], ``suspicious_rewards`` those that paid more than a million
    times the mean so far (of absolute rewards, after 100 steps); both are kept in a restart.
    """

    def __init__(self, make: Callable[[], Adapter], inner: Adapter | None = None):
        """Guard ``inner``, or what ``make`` makes; ``make`` is called again by `restart`."""
        self._make = make
        self.inner: Adapter = make() if inner is None else inner
        self.spec = self.inner.spec
        self.clipped_actions = 0
        self.suspicious_rewards = 0
        self._seed = 0
        self._steps = 0
        self._running = False
        self._broken = False
        self._rewards, self._usual = 0, 0.0  # how many, and the mean of their absolute values

    def reset(self, seed: int) -> np.ndarray:
        """Start the episode that ``seed`` names."""
        seed = int(seed)
        if not 0 <= seed < 2**32:
            raise FtflError(f"seed {seed} is out of range: an episode seed is in [0, 2**32).")
        if self._broken:
            self.restart()
        self._seed, self._steps, self._running = seed, 0, False
        try:
            obs = self.inner.reset(seed)
        except Exception as error:
            raise self._violated(as_violation(error, "reset"), None) from error
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
        except Exception as error:
            raise self._violated(as_violation(error, "step"), action) from error
        self._check_simulator(action)
        self._check_obs(result.obs, action)
        self._check_reward(result.reward, action)
        self._running = not (result.terminated or result.truncated)
        return result

    def render(self) -> np.ndarray:
        """Return the current picture; raises FtflError where none can be drawn."""
        try:
            return self.inner.render()
        except FtflError:
            raise
        except Exception as error:
            raise FtflError(f"no picture of {self.spec.task}: {in_a_line(error)}.") from error

    def close(self) -> None:
        """Give back windows and contexts; an environment that cannot is reported, not raised."""
        self._running = False
        try:
            self.inner.close()
        except Exception as error:  # noqa: BLE001 - what was learned must not be lost with it
            _log.warning("%s: close raised %s", self.spec.task, in_a_line(error))

    def restart(self) -> None:
        """Close the environment and make it anew; `reset` comes next.

        Raises:
            FtflError: it cannot be made again, or has other spaces now.
        """
        self.close()
        try:
            self.inner = self._make()
        except FtflError as error:
            reason = str(error).rstrip(".")
            raise FtflError(f"{self.spec.task} cannot be restarted: {reason}.") from error
        self._broken = False
        before, now = self.spec, self.inner.spec
        if (before.obs_names, before.act_dim) != (now.obs_names, now.act_dim):
            raise FtflError(
                f"{before.task} cannot be restarted: made anew, it has {now.obs_dim} observations "
                f"and {now.act_dim} actions, before it had {before.obs_dim} and {before.act_dim} "
                "(or they have other names); its spaces must not change."
            )

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
            raise self._fault("contract", what, action)
        finite = np.isfinite(obs)
        if not finite.all():
            names = [self.spec.obs_names[i] for i in np.flatnonzero(~finite)[:5]]
            raise self._fault("observation", f"not finite: {', '.join(names)}", action)

    def _check_reward(self, reward: float, action: np.ndarray) -> None:
        size = abs(reward)
        # Replay holds float32: what overflows there is as bad as NaN.
        if not size <= _LARGEST:
            raise self._fault("reward", f"the reward is {reward}", action)
        if self._rewards >= _USUAL_AFTER and size > SUSPICIOUS * self._usual > 0:
            self.suspicious_rewards += 1
            return  # and does not count as usual
        self._rewards += 1
        self._usual += (size - self._usual) / self._rewards

    def _check_simulator(self, action: np.ndarray | None) -> None:
        counts = self.inner.simulator_warnings()
        if counts is None or not counts.any():
            return
        from ftfl.envs.physics import warning_names  # already imported by MuJoCo's adapters

        what = f"MuJoCo warned {warning_names(counts)}: the simulated state is not valid"
        raise self._fault("simulator", what, action)

    def _violated(self, violation: Violation, action: np.ndarray | None) -> EnvFault:
        return self._fault(violation.cause, str(violation), action, violation.details)

    def _fault(
        self, cause: Cause, what: str, action: np.ndarray | None, details: str = ""
    ) -> EnvFault:
        self._broken = self._broken or cause in NEEDS_RESTART
        return EnvFault(self.spec.task, cause, what, self._seed, self._steps, action, details)
