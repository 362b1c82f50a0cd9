"""An environment in a process of its own: it may hang or die, and the run goes on.

A step that takes longer than the limit is a fault "hang", a process that ends (a segmentation
fault, ``os._exit``, no memory left) a fault "died"; both carry the place in the Python code where
it happened. ``restart`` starts another process.

The same code runs there as would here, so the bits are the same. A step costs 90 µs more (median
of Pendulum's 123 against 33 on a busy 2-core x86-64 laptop-class VM): waking up another process.

The environment is also made once in this process and closed again before the other one makes
its own, because its functions for JAX cannot cross. That making is not limited: what hangs or dies
there does so before anything has been learned.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from ftfl.envs.channel import RENDER, RESET, STEP, pack_seed, unpack_picture, unpack_step
from ftfl.envs.process import EnvProcess, Order
from ftfl.envs.spec import EnvSpec
from ftfl.errors import FtflError
from ftfl.types import Step


class Isolated:
    """An adapter (see `envs.guard`) whose environment is elsewhere; starts at the first reset."""

    def __init__(self, order: Order, spec: EnvSpec, step_limit_seconds: float):
        self.spec = spec
        self.process: EnvProcess | None = None
        self._order, self._limit = order, step_limit_seconds
        self._warnings: np.ndarray | None = None

    def started(self) -> Isolated:
        """Start the process and make the environment in it; raises FtflError if it cannot."""
        self.process = EnvProcess(self._order, self._limit)
        names = tuple(self.process.made["obs_names"])
        self.spec = dataclasses.replace(
            self.spec, obs_dim=len(names), obs_names=names, act_dim=self.process.made["act_dim"]
        )
        return self

    def reset(self, seed: int) -> np.ndarray:
        """Start the episode of ``seed``."""
        process = self.process or self.started().process
        assert process is not None
        answer = process.ask(RESET, pack_seed(seed), "reset")
        step, self._warnings = unpack_step(answer)
        return step.obs

    def step(self, action: np.ndarray) -> Step:
        """Apply one action (float32) there; the guard sees to it that a reset came before."""
        assert self.process is not None
        answer = self.process.ask(STEP, action.tobytes(), "step")
        step, self._warnings = unpack_step(answer)
        return step

    def render(self) -> np.ndarray:
        """Draw the picture there, where the drawing context is."""
        if self.process is None:
            raise FtflError(f"{self.spec.task}: call reset(seed) before render.")
        return unpack_picture(self.process.ask(RENDER, b"", "drawing a picture"))

    def simulator_warnings(self) -> np.ndarray | None:
        """Return the counters that came with the last answer."""
        return self._warnings

    def close(self) -> None:
        """Let the environment close itself, and end its process in any case."""
        if self.process is not None:
            self.process.close()
