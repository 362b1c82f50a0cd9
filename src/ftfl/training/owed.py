"""Learning that real steps have earned: updates of the agent, and refits of the model before them.

With ``update_between_episodes`` it waits until the environment rests.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import jax

from ftfl.config import Config
from ftfl.training import updates
from ftfl.training.faults import EnvironmentLost
from ftfl.training.progress import Progress
from ftfl.training.recorder import Recorder
from ftfl.training.seat import Request, Work

_MOST_OWED = 10_000


class Owed:
    """Counts what is owed and asks the device for it."""

    def __init__(self, config: Config, recorder: Recorder, updates_done: Callable[[], Any]):
        """``updates_done`` asks the device how many updates the agent has had."""
        self.config, self.recorder, self.updates_done = config, recorder, updates_done
        self.metrics: dict[str, Any] = dict(self.progress.metrics)
        """Of the newest learning, by name: device values."""

    @property
    def progress(self) -> Progress:
        """Of the run, as its recorder has it."""
        return self.recorder.progress

    def take_over(self) -> None:
        """Go on from the progress the recorder has now."""
        self.metrics = dict(self.progress.metrics)

    def add(self) -> None:
        """A real step has been stored.

        Raises:
            EnvironmentLost: learning waits for the end of an episode that never comes.
        """
        progress = self.progress
        if progress.env_steps < self.config.warmup_steps or not self._enough_rows():
            return
        progress.owed.append(self._refit_due())
        if len(progress.owed) > _MOST_OWED:
            raise EnvironmentLost(
                f"no episode has ended in {_MOST_OWED} steps, and update_between_episodes"
                " learns only then: give the environment a time limit."
            )

    def learn(self) -> Work[None]:
        """Do all that is owed."""
        progress = self.progress
        for refit in progress.owed:
            yield from self.reset_agent_when_due()
            if refit:
                yield from self._fit()
            metrics = yield Request("learn")
            if "rollout/rows_count" in metrics and self._skipped_rollouts():
                metrics = {k: v for k, v in metrics.items() if not k.startswith("rollout/")}
            progress.learn_steps += 1
            progress.updates = updates.counted(progress.updates, self.updates_done, self.config)
            self.metrics |= metrics
        progress.owed.clear()

    def reset_agent_when_due(self) -> Work[None]:
        """Just before the agent is used again: what is evaluated and kept has learned."""
        every, progress = self.config.sac.reset_every_updates, self.progress
        if every and progress.updates // every > progress.agent_resets:
            yield Request("reset_agent")
            progress.agent_resets += 1

    def _enough_rows(self) -> bool:
        """A model needs a held-out row and one to train on, twice."""
        model = self.config.dynamics
        return model is None or self.progress.rows >= 2 * model.holdout_every

    def _refit_due(self) -> bool:
        if self.config.dynamics is None:
            return False
        since = self.progress.env_steps - self.config.warmup_steps
        due = since % self.config.dynamics.train_every == 0 or not self.progress.fitted
        self.progress.fitted = True
        return due

    def _skipped_rollouts(self) -> bool:
        rollouts = self.config.rollouts
        return rollouts is not None and self.progress.learn_steps % rollouts.every != 0

    def _fit(self) -> Work[None]:
        clock = self.recorder.clock
        clock.lap("learn")
        start = time.perf_counter()
        metrics = yield Request("fit")
        jax.block_until_ready(metrics)
        self.metrics |= metrics | {"model/fit_seconds": time.perf_counter() - start}
        clock.lap("fit")
