"""A trained policy, loaded from a run directory to be played, filmed or exported."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Float

from ftfl import sac
from ftfl.config import Config, SacConfig, from_dict
from ftfl.envs.make import make_task
from ftfl.envs.spec import Environment, EnvSpec
from ftfl.errors import FtflError
from ftfl.nets import MLP
from ftfl.store.checkpoint import Checkpoint, latest_valid, list_checkpoints, load_checkpoint
from ftfl.store.listing import step_of
from ftfl.store.rundir import RunDir
from ftfl.training.evaluate import Policy
from ftfl.training.state import restore

_NOISE_DOMAIN = 2  # a sampled policy's randomness, apart from every episode's seed


@dataclass(frozen=True)
class LoadedPolicy:
    """The policy of one checkpoint; calling `act` plays it."""

    config: Config
    spec: EnvSpec
    step: int
    """Environment steps after which the checkpoint was written."""
    damage: tuple[str, ...]
    """What is wrong with newer checkpoints, which were passed over."""
    actor: MLP

    def act(self, obs: np.ndarray) -> np.ndarray:
        """The deterministic action, float32 (A,) in [-1, 1], at an observation (O,)."""
        return np.asarray(_mode(self.actor, self._checked(obs), self.config.sac))

    def sampler(self, seed: int) -> Policy:
        """A policy that draws its actions; equal seeds draw equal ones."""
        rng = np.random.default_rng((seed, _NOISE_DOMAIN))

        def draw(obs: np.ndarray) -> np.ndarray:
            noise = rng.standard_normal(self.spec.act_dim, np.float32)
            return np.asarray(_draw(self.actor, self._checked(obs), noise, self.config.sac))

        return draw

    def make_env(self, render: bool = False) -> Environment:
        """The task as the run met it: same action repeat, same unit of reward."""
        return make_task(self.config.task, render)

    def _checked(self, obs: np.ndarray) -> np.ndarray:
        obs = np.asarray(obs, np.float32)
        if obs.shape != (self.spec.obs_dim,):
            raise FtflError(
                f"the observation has shape {obs.shape}, but {self.spec.task} gives"
                f" ({self.spec.obs_dim},)."
            )
        return obs


def load_policy(run_dir: Path, step: int | None = None) -> LoadedPolicy:
    """The policy of a run's newest valid checkpoint, or of the one written at ``step``.

    Raises:
        FtflError: no run directory, no (valid) checkpoint, no such step, or a task that cannot be
            made or does not fit the checkpoint.
    """
    run = RunDir.open(Path(run_dir))
    config = from_dict(run.config())
    checkpoint, damage = _checkpoint(run, step)
    env = make_task(config.task)
    try:
        spec = env.spec
    finally:
        env.close()
    key = jax.random.key(0)  # only shapes matter: every array is replaced
    template = eqx.filter_eval_shape(
        sac.init, key, spec.obs_dim, spec.act_dim, config.sac, spec.view
    )
    arrays = {
        name.removeprefix("actor/"): value
        for name, value in checkpoint.components.get("agent", {}).items()
        if name.startswith("actor/")
    }
    actor = restore("the actor", template.actor, arrays)
    return LoadedPolicy(config, spec, checkpoint.step, tuple(damage), actor)


def _checkpoint(run: RunDir, step: int | None) -> tuple[Checkpoint, list[str]]:
    if step is None:
        return latest_valid(run.checkpoints_path, tables=False)
    paths = list_checkpoints(run.checkpoints_path)
    steps = {step_of(path): path for path in paths}
    if step not in steps:
        have = ", ".join(map(str, steps)) or "none"
        raise FtflError(f"{run.path} has no checkpoint at step {step}; it has: {have}.")
    return load_checkpoint(steps[step], tables=False), []


@functools.partial(jax.jit, static_argnames="config")
def _mode(actor: MLP, obs: Float[Array, "O"], config: SacConfig) -> Float[Array, "A"]:
    return sac.policy(actor, obs[None], config).mode()[0]


@functools.partial(jax.jit, static_argnames="config")
def _draw(
    actor: MLP, obs: Float[Array, "O"], noise: Float[Array, "A"], config: SacConfig
) -> Float[Array, "A"]:
    return sac.policy(actor, obs[None], config).transform(noise[None])[0][0]
