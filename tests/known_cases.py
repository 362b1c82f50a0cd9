"""Systems whose answers are known, as transitions for the instruments."""

import jax
import jax.numpy as jnp
import numpy as np

from ftfl import presets, sac
from ftfl.dynamics import ensemble as ens
from ftfl.dynamics import fit as fitting
from ftfl.dynamics import predict
from ftfl.forensics.rows import ring_of
from ftfl.replay import take
from ftfl.types import Transition

HOLDOUT = 7
SMALL = {
    "dynamics.hidden": (32, 32),
    "dynamics.members": 4,
    "dynamics.elites": 3,
    "dynamics.batch_size": 64,
    "dynamics.max_updates": 300,
    "dynamics.check_every": 300,
}


def model(algo="mbpo", **changes):
    """A small model's configuration; keyword names are fields of ``dynamics``."""
    values = SMALL | {f"dynamics.{name}": value for name, value in changes.items()}
    return presets.build("gym/Pendulum-v1", algo, "probe", values).dynamics


def transitions(obs, action, reward, next_obs, terminated=None):
    """float32 rows of these arrays."""
    ends = np.zeros(len(reward), bool) if terminated is None else terminated
    return Transition(*(np.asarray(x, np.float32) for x in (obs, action, reward, next_obs)), ends)


def linear(rows, change_scales, reward_scale, noise=0.0, seed=0):
    """Linear-Gaussian: every target is its scale × a unit-norm combination of normal inputs."""
    rng = np.random.default_rng(seed)
    size = len(change_scales)
    obs, action = rng.normal(size=(rows, size)), rng.normal(size=(rows, 2))
    inputs = np.concatenate([obs, action], axis=1)
    weights = rng.normal(size=(size + 2, size + 1))
    unit = inputs @ (weights / np.linalg.norm(weights, axis=0))
    unit = np.sqrt(1 - noise**2) * unit + noise * rng.normal(size=unit.shape)
    scaled = unit * np.append(change_scales, reward_scale)
    return transitions(obs, action, scaled[:, -1], obs + scaled[:, :-1])


def autoregressive(episodes, steps, kappas, reward_scale=1.0, seed=0):
    """Stationary channels s′ = κ s + √(1 − κ²) ε of std 1, in order; the reward follows channel 0.

    The noise is an action where κ < 1, so that every channel can be predicted.
    """
    rng = np.random.default_rng(seed)
    kappas = np.asarray(kappas, np.float64)
    out = []
    for _ in range(episodes):
        state = rng.normal(size=kappas.size)
        for _ in range(steps):
            action = rng.normal(size=kappas.size)
            after = kappas * state + np.sqrt(1 - kappas**2) * action
            out.append((state, action, reward_scale * state[0], after))
            state = after
    return transitions(*map(np.stack, zip(*out, strict=True)))


def fitted(rows, config, seed=0):
    """A model trained on these rows, and their replay."""
    ring = ring_of(rows)
    state = predict.init(jax.random.key(seed), rows.obs.shape[1], rows.action.shape[1], config)
    fit = jax.jit(lambda s, r, k: fitting.fit(s, r, jnp.uint32(HOLDOUT), k, config)[0])
    return fit(state, ring, jax.random.key(seed + 100)), ring


def untrained(rows, config):
    """A model that was never fitted, and the replay of these rows."""
    sizes = rows.obs.shape[1], rows.action.shape[1]
    return predict.init(jax.random.key(0), *sizes, config), ring_of(rows)


def trained_on(ring, split):
    """The rows that ``split`` leaves to training."""
    return take(ring, split.train_slot(jnp.arange(int(split.train_count(ring)))))


def likelihood(net, x, z):
    """(E, D): what a member pays for an output, (z − μ)² e^{−ℓ} + ℓ over these rows and outputs."""
    mean, logvar = ens.forward(net, x, jnp.zeros(z.shape[1]))
    return jnp.mean((z[None] - mean) ** 2 * jnp.exp(-logvar) + logvar, axis=1) / z.shape[1]


def heteroscedastic(rows, seed=0):
    """Linear channels whose noise depends on the first one: std 0.1 where s₀ < 0, else 0.5."""
    rng = np.random.default_rng(seed)
    obs, action = rng.normal(size=(rows, 3)), rng.uniform(-1, 1, size=(rows, 2))
    spread = np.where(obs[:, :1] < 0, 0.1, 0.5)
    push = np.concatenate([action, action[:, :1]], axis=1)
    next_obs = 0.5 * obs + push + spread * rng.normal(size=obs.shape)
    return transitions(obs, action, obs[:, 1] + spread[:, 0] * rng.normal(size=rows), next_obs)


def agent_trained(rows, updates, config, seed=0):
    """SAC on a fixed set of rows."""
    agent = sac.init(jax.random.key(seed), rows.obs.shape[1], rows.action.shape[1], config)

    def one(i, state):
        row_key, key = jax.random.split(jax.random.fold_in(jax.random.key(seed + 1), i))
        chosen = jax.random.randint(row_key, (config.batch_size,), 0, len(rows.reward))
        batch = jax.tree.map(lambda x: jnp.asarray(x)[chosen], rows)
        return sac.update(state, batch, key, config)[0]

    return jax.jit(lambda s, n: jax.lax.fori_loop(0, n, one, s))(agent, jnp.int32(updates))
