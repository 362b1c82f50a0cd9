"""Small configurations, environments without simulators and replays that several tests share."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ftfl import presets
from ftfl import replay as rings
from ftfl.envs.spec import EnvSpec
from ftfl.termination import never
from ftfl.types import Transition

TINY = {
    "sac.hidden": (16, 16),
    "sac.batch_size": 32,
    "sac.updates_per_step": 2,
    "dynamics.hidden": (16, 16),
    "dynamics.weight_decay": (2.5e-5, 5e-5, 1e-4),
    "dynamics.members": 3,
    "dynamics.elites": 2,
    "dynamics.batch_size": 32,
    "dynamics.max_updates": 20,
    "dynamics.check_every": 10,
    "dynamics.train_every": 20,
    "dynamics.holdout_rows": 50,
    "rollouts.per_step": 8,
    "rollouts.retention_steps": 50,
    "warmup_steps": 40,
    "steps": 100,
    "eval_every": 1_000_000,
    "checkpoint_every": 1_000_000,
}


def every_preset(*quick):
    """All presets as parameters of a test: those named always, the others in `make test-long`."""
    return [
        pytest.param(algo, marks=() if algo in quick else pytest.mark.long)
        for algo in presets.PRESETS
    ]


def seldom(algo):
    """Changes with which presets that roll out seldom do so within a short run, for `tiny`."""
    if presets.PRESETS[algo].changes.get("rollouts.every", 1) > 1:
        return {"rollouts__every": 20, "dynamics__check_every": 0}
    return {}


def tiny(algo="ftfl", task="gym/Pendulum-v1", **changes):
    """A preset shrunk to milliseconds a step; keyword names use ``__`` for the dot."""
    values = dict(TINY)
    values.update({name.replace("__", "."): value for name, value in changes.items()})
    if presets.PRESETS[algo].changes.get("dynamics", "") is None:
        values = {k: v for k, v in values.items() if not k.startswith(("dynamics.", "rollouts."))}
    return presets.build(task, algo, "laptop", values)


def spec(obs_dim=3, act_dim=2, termination=never, reward_fn=None, learned_termination=False):
    """A task without an environment behind it."""
    return EnvSpec(
        task="test/none",
        obs_dim=obs_dim,
        act_dim=act_dim,
        max_episode_steps=None,
        termination=termination,
        learned_termination=learned_termination,
        reward_fn=reward_fn,
        replayable=False,
        seconds_per_step=None,
        obs_names=tuple(f"obs[{i}]" for i in range(obs_dim)),
    )


def transitions(rows, obs_dim=3, act_dim=2, seed=0, terminated=0.2):
    """Random but learnable transitions as NumPy float32: next_obs and reward follow obs, action."""
    rng = np.random.default_rng(seed)
    obs = rng.normal(size=(rows, obs_dim)) * np.arange(1, obs_dim + 1)
    action = rng.uniform(-1, 1, (rows, act_dim))
    push = action @ rng.normal(size=(act_dim, obs_dim))
    next_obs = 0.9 * obs + 0.3 * push + 0.01 * rng.normal(size=(rows, obs_dim))
    reward = 0.05 * np.tanh(obs[:, 0]) - 0.01 * (action**2).sum(axis=1)
    return Transition(
        obs.astype(np.float32),
        action.astype(np.float32),
        reward.astype(np.float32),
        next_obs.astype(np.float32),
        rng.random(rows) < terminated,
    )


def filled(rows: Transition, capacity=None):
    """A replay that holds these rows."""
    count = len(rows.reward)
    ring = rings.empty(capacity or count, rows.obs.shape[1], rows.action.shape[1])
    return rings.insert(ring, jax.tree.map(jnp.asarray, rows))


def to64(tree):
    """Floating leaves as float64; inside ``jax.enable_x64()`` only."""
    return jax.tree.map(
        lambda x: x.astype(jnp.float64) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree
    )


def equal_bits(a, b):
    """Whether two pytrees hold the same bits, NaN included."""
    left, right = jax.tree.leaves(a), jax.tree.leaves(b)
    return len(left) == len(right) and all(
        np.asarray(x).tobytes() == np.asarray(y).tobytes()
        for x, y in zip(map(_plain, left), map(_plain, right), strict=True)
    )


def _plain(x):
    return jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x


def compilations(function):
    """How often one of a learner's functions was compiled."""
    return getattr(function, "compiled", function)._cache_size()
