"""One imagined step: what every member says of each row, and the draw of one elite."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ftfl.config import Config
from ftfl.dynamics import predict as dyn
from ftfl.dynamics.elites import draw_elites
from ftfl.dynamics.predict import DynamicsState
from ftfl.rollouts.memory import channel_scale
from ftfl.rollouts.screens import Predictions
from ftfl.types import Key, RewardFn


def draw(
    elite_key: Key,
    noise_key: Key,
    dynamics: DynamicsState,
    obs: Float[Array, "B O"],
    action: Float[Array, "B A"],
    length: Int[Array, ""],
    reward_fn: RewardFn | None,
    config: Config,
) -> Predictions:
    """What a screen is shown: every row draws one elite, and that elite the outcome.

    ``reward_fn`` is the task's own, for ``dynamics.reward_model=given``.
    """
    assert config.dynamics is not None
    rows, size = obs.shape
    members = dyn.predict(dynamics, obs, action, config.dynamics)
    member = draw_elites(dynamics.elites, elite_key, rows)
    chosen = (member, jnp.arange(rows, dtype=jnp.int32))
    mean, std = members.mean[chosen], members.std[chosen]
    drawn = mean + std * jax.random.normal(noise_key, mean.shape)
    next_obs = drawn[:, :size]
    if config.dynamics.reward_model == "given":
        assert reward_fn is not None
        reward = reward_fn(obs, action, next_obs)
    else:
        reward = mean[:, -1] if config.dynamics.reward_draw == "mean" else drawn[:, -1]
    # The barrier: without it XLA computes every member's std anew inside each of a screen's sums.
    return Predictions(
        obs, action, jax.lax.optimization_barrier(members), member, next_obs, reward,
        channel_scale(dynamics, size), length,
    )  # fmt: skip
