"""Episodes of the training environment: begun, brought back, abandoned, ended."""

from __future__ import annotations

import numpy as np

from ftfl.config import Config
from ftfl.envs.faults import EnvFault
from ftfl.envs.spec import Environment
from ftfl.errors import FtflError
from ftfl.training.evaluate import episode_seed
from ftfl.training.faults import EnvironmentLost, Faults
from ftfl.training.recorder import Recorder


class Episodes:
    """Every episode is reset with a seed derived from the run's seed and the episode's number."""

    def __init__(self, config: Config, env: Environment, recorder: Recorder, faults: Faults):
        self.config, self.env, self.recorder, self.faults = config, env, recorder, faults

    def resume(self) -> np.ndarray:
        """Start the first episode, or bring the interrupted one back by replaying it.

        Raises:
            EnvironmentLost: as ``reset``.
        """
        progress = self.recorder.progress
        if not progress.actions:
            return self.reset()
        why = "the environment is not declared replayable"
        if self.env.spec.replayable:
            try:
                obs = self.env.reset(episode_seed(self.config.seed, progress.episode))
                for action in progress.actions:
                    obs = self.env.step(action).obs
                if progress.obs is not None and np.array_equal(obs, progress.obs):
                    return obs
                why = "replaying the interrupted one did not lead to the same observation"
            except EnvFault as fault:
                self.faults.add(fault)
                why = f"replaying the interrupted one failed: {fault}"
            except FtflError as error:
                why = f"replaying the interrupted one failed: {error}"
        self.recorder.notices["episode"] = (
            f"a new episode was begun at step {progress.env_steps}: {why}"
        )
        self.abandon()
        return self.reset()

    def reset(self) -> np.ndarray:
        """Begin the next episode that can be begun.

        Raises:
            EnvironmentLost: it failed more often than allowed, or cannot be made again.
        """
        while True:
            try:
                return self.env.reset(
                    episode_seed(self.config.seed, self.recorder.progress.episode)
                )
            except EnvFault as fault:
                self.faults.add(fault)
                self.abandon()
            except FtflError as error:
                raise EnvironmentLost(str(error)) from error

    def abandon(self) -> None:
        """Count the episode, and forget what was played of it."""
        progress = self.recorder.progress
        progress.episode += 1
        progress.episode_return, progress.actions, progress.obs = 0.0, [], None

    def end(self) -> None:
        """Record an episode that ended by itself."""
        progress = self.recorder.progress
        self.recorder.write(
            {
                "train/episode_return_reward": progress.episode_return
                / self.config.task.reward_unit,
                "train/episode_length_steps": len(progress.actions),
                "train/episodes_count": progress.episode + 1,
            }
        )
        self.abandon()
