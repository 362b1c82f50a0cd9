"""What a run has learned, as functions on NumPy batches: policy, critics, dynamics model.

Rows come first everywhere. Rewards and values are in the task's own unit: the environment's dial
(``task.reward_unit``) and the agent's own scale (``sac.reward_scale``) are turned back.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from ftfl import sac
from ftfl.config import Config
from ftfl.dynamics import predict as dynamics
from ftfl.dynamics.predict import DynamicsState
from ftfl.envs.spec import EnvSpec
from ftfl.nets import MLP
from ftfl.sac import SacState

_FEW, _MANY = 256, 2_048
"""Rows of a compiled call: batches are padded to one of the two, so that each compiles once."""


@dataclass(frozen=True)
class Agent:
    """Policy and critics of one moment."""

    act: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
    """(obs (N, O), standard normal noise (N, A)) → actions (N, A) of the sampled policy and their
    log densities (N,) in nats."""
    q: Callable[[np.ndarray, np.ndarray], np.ndarray]
    """(obs (N, O), action (N, A)) → both critics' values (N, 2)."""
    q_gradient: Callable[[np.ndarray, np.ndarray], np.ndarray]
    """(obs, action) → gradient (N, A) of the smaller critic with respect to the action."""
    temperature: float
    """α: what a nat of entropy is worth in reward."""
    discount: float
    act_dim: int


class Imagined(NamedTuple):
    """What K elites say of N transitions."""

    next_obs: np.ndarray
    """(N, K, O)"""
    reward: np.ndarray
    """(N, K)"""
    terminated: np.ndarray
    """(N, K), bool: by the termination rule, on the imagined next observation."""
    reward_std: np.ndarray
    """(N, K): predicted spread of the reward; 0 where the reward is a given function."""


@dataclass(frozen=True)
class WorldModel:
    """The dynamics model's elites of one moment."""

    imagine: Callable[[np.ndarray, np.ndarray, np.ndarray | None], Imagined]
    """(obs (N, O), action (N, A), noise): with standard normal noise (N, K, D) one draw of each
    elite, as rollouts make them before a screen judges them; with None each elite's mean."""
    elites: int
    """K"""
    outputs: int
    """D: observation entries, and the reward if it is learned."""
    penalty: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None
    """(obs (N, O), action (N, A)) → what the run's screen takes from the rewards of these rows
    (N,); None where it takes nothing."""

    def noise(self, generator: np.random.Generator, rows: int) -> np.ndarray:
        """Standard normal noise for ``rows`` rows."""
        return generator.standard_normal((rows, self.elites, self.outputs), np.float32)


def make_agent(state: SacState, config: Config) -> Agent:
    """The functions of an agent's state."""
    scale = config.sac.reward_scale

    def act(obs: np.ndarray, noise: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return batched(functools.partial(_act, state.actor, config), obs, noise)

    def q(obs: np.ndarray, action: np.ndarray) -> np.ndarray:
        return batched(functools.partial(_q, state.critic), obs, action) / scale

    def q_gradient(obs: np.ndarray, action: np.ndarray) -> np.ndarray:
        return batched(functools.partial(_q_gradient, state.critic), obs, action) / scale

    return Agent(
        act=act,
        q=q,
        q_gradient=q_gradient,
        temperature=float(jnp.exp(state.log_temperature)) / scale,
        discount=config.sac.discount,
        act_dim=state.actor.layers[-1].bias.shape[0] // 2,
    )


def make_world_model(
    state: DynamicsState,
    config: Config,
    spec: EnvSpec,
    penalty: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None,
) -> WorldModel:
    """The functions of a dynamics model's state, with what the screen takes (``penalties``)."""
    assert config.dynamics is not None
    outputs, elites = int(state.statistics.target.mean.shape[0]), int(state.elites.shape[0])
    unit = config.task.reward_unit

    def imagine(obs: np.ndarray, action: np.ndarray, noise: np.ndarray | None) -> Imagined:
        if noise is None:
            noise = np.zeros((len(obs), elites, outputs), np.float32)
        told = batched(functools.partial(_imagine, state, config, spec), obs, action, noise)
        return Imagined(told[0], told[1] / unit, told[2], told[3] / unit)

    return WorldModel(imagine, elites, outputs, penalty)


def expected_reward(
    model: WorldModel, obs: np.ndarray, action: np.ndarray, generator: np.random.Generator
) -> np.ndarray:
    """The elites' mean reward (N,); of a given reward function, the mean of one draw each."""
    told = model.imagine(obs, action, None)
    if not told.reward_std.any():
        told = model.imagine(obs, action, model.noise(generator, len(obs)))
    return told.reward.astype(np.float64).mean(axis=1)


def single_act(state: SacState, config: Config) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """The sampled policy at one observation (O,) with noise (A,), in NumPy.

    `sac.policy` again, to rounding: handing one row at a time to JAX takes longer than a step of
    the simulator.
    """
    layers = [(np.asarray(x.weight), np.asarray(x.bias)) for x in state.actor.layers]
    low, high = config.sac.log_std_min, config.sac.log_std_max
    squash = config.sac.log_std_map == "tanh"
    view = state.actor.view

    def act(obs: np.ndarray, noise: np.ndarray) -> np.ndarray:
        x = obs if view is None else view(obs)
        for weight, bias in layers[:-1]:
            x = np.maximum(x @ weight + bias, 0)
        out = x @ layers[-1][0] + layers[-1][1]
        mean, raw = out[: len(noise)], out[len(noise) :]
        log_std = low + (high - low) * (1 + np.tanh(raw)) / 2 if squash else np.clip(raw, low, high)
        return np.tanh(mean + np.exp(log_std) * noise).astype(np.float32)

    return act


def batched(function: Callable[..., Any], *arrays: np.ndarray) -> Any:
    """Apply a compiled function to rows in pieces of fixed shape; its outputs as NumPy arrays."""
    count = len(arrays[0])
    size = _FEW if count <= _FEW else _MANY
    pieces = []
    for start in range(0, max(count, 1), size):
        rows = [np.asarray(array[start : start + size], np.float32) for array in arrays]
        missing = size - len(rows[0])
        padded = [np.pad(r, [(0, missing)] + [(0, 0)] * (r.ndim - 1)) for r in rows]
        pieces.append(jax.tree.map(np.asarray, function(*padded)))
    return jax.tree.map(lambda *parts: np.concatenate(parts)[:count], *pieces)


@functools.partial(jax.jit, static_argnums=1)
def _act(
    actor: MLP, config: Config, obs: Float[Array, "B O"], noise: Float[Array, "B A"]
) -> tuple[Float[Array, "B A"], Float[Array, "B"]]:
    return sac.policy(actor, obs, config.sac).transform(noise)


@jax.jit
def _q(critic: MLP, obs: Float[Array, "B O"], action: Float[Array, "B A"]) -> Float[Array, "B 2"]:
    return sac.q_values(critic, obs, action).T


@jax.jit
def _q_gradient(
    critic: MLP, obs: Float[Array, "B O"], action: Float[Array, "B A"]
) -> Float[Array, "B A"]:
    return jax.grad(lambda a: jnp.sum(jnp.min(sac.q_values(critic, obs, a), axis=0)))(action)


@functools.partial(jax.jit, static_argnums=(1, 2))
def _imagine(
    state: DynamicsState,
    config: Config,
    spec: EnvSpec,
    obs: Float[Array, "B O"],
    action: Float[Array, "B A"],
    noise: Float[Array, "B K D"],
) -> tuple[Float[Array, "B K O"], Float[Array, "B K"], Bool[Array, "B K"], Float[Array, "B K"]]:
    assert config.dynamics is not None
    told = dynamics.predict(state, obs, action, config.dynamics)
    mean, std = (jnp.swapaxes(x[state.elites], 0, 1) for x in told)
    drawn = mean + std * noise
    size = obs.shape[-1]
    next_obs = drawn[..., :size]
    starts, actions = (
        jnp.broadcast_to(x[:, None], (*mean.shape[:2], x.shape[-1])) for x in (obs, action)
    )
    if config.dynamics.reward_model == "given":
        assert spec.reward_fn is not None
        reward, spread = spec.reward_fn(starts, actions, next_obs), jnp.zeros(mean.shape[:2])
    else:
        spread = std[..., -1]
        reward = mean[..., -1] if config.dynamics.reward_draw == "mean" else drawn[..., -1]
    if spec.termination is None:
        flat = next_obs.reshape(-1, size)
        terminated = dynamics.learned_termination(state, flat).reshape(mean.shape[:2])
    else:
        terminated = spec.termination(starts, actions, next_obs)
    return next_obs, reward, terminated, spread
