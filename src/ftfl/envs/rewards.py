"""Rewards that are exact functions of (obs, action, next_obs); actions in [-1, 1].

Only what the observation determines is here: in most MuJoCo tasks the reward reads positions that
the observation leaves out. Valid at action repeat 1 only. Source: Gymnasium 1.4.
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

from ftfl.termination import inverted_pendulum, mountain_car
from ftfl.types import RewardFn

Obs = Float[Array, "*B O"]
Action = Float[Array, "*B A"]
Reward = Float[Array, "*B"]


def pendulum(obs: Obs, action: Action, next_obs: Obs) -> Reward:
    """Pay −(θ² + 0.1 θ̇² + 0.001 u²) of the state *before* the step; the torque u is 2·action."""
    angle = jnp.arctan2(obs[..., 1], obs[..., 0])
    torque = 2.0 * action[..., 0]
    return -(angle**2 + 0.1 * obs[..., 2] ** 2 + 0.001 * torque**2)


def mountain_car_continuous(obs: Obs, action: Action, next_obs: Obs) -> Reward:
    """Pay 100 at the goal, less 0.1 per squared action."""
    goal = jnp.where(mountain_car(obs, action, next_obs), 100.0, 0.0)
    return goal - 0.1 * action[..., 0] ** 2


def upright(obs: Obs, action: Action, next_obs: Obs) -> Reward:
    """InvertedPendulum-v4: pay 1 for every step, the last one too."""
    return jnp.ones_like(next_obs[..., 0])


def upright_while_alive(obs: Obs, action: Action, next_obs: Obs) -> Reward:
    """InvertedPendulum-v5: pay 1 for every step but the one that ends the episode."""
    return jnp.where(inverted_pendulum(obs, action, next_obs), 0.0, 1.0)


REWARD: dict[str, RewardFn] = {
    "InvertedPendulum-v4": upright,
    "InvertedPendulum-v5": upright_while_alive,
    "MountainCarContinuous-v0": mountain_car_continuous,
    "Pendulum-v1": pendulum,
}
"""Reward function by Gymnasium id."""
