"""Multi-step value targets: critics bootstrap after some steps of the model instead of at once.

y = r + Σ_{t=1..H} γᵗ alive_t (r̂_t − α log π(a_t|s_t)) + γ^(H+1) alive_{H+1} V(s_{H+1}), with s₁ the
row's next observation and a_t drawn from the policy: the soft value of s₁ written out H steps. What
DHMBPO (arXiv 2512.15439) calls a training rollout, without its gradients through the model.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ftfl import sac
from ftfl.config import Config
from ftfl.dynamics import predict as dyn
from ftfl.dynamics.predict import DynamicsState
from ftfl.rollouts.generate import Ends
from ftfl.sac import SacState
from ftfl.types import Key, Transition


class Ahead(NamedTuple):
    """An update batch whose targets look ahead, for ``sac.update``."""

    batch: Transition
    """Rewards summed over the steps, the observation after them, whether a branch ended."""
    discount: Float[Array, "B"]
    """γ to the number of steps summed: what a row's bootstrap counts."""
    failed: Bool[Array, "B"]
    """Rows whose look ahead was not finite; they bootstrap at once, as without."""


def one_member(dynamics: DynamicsState, key: Key) -> DynamicsState:
    """The model as an ensemble of one elite, drawn uniformly."""
    member = jax.random.choice(key, dynamics.elites)
    trunks = jax.tree.map(lambda x: x[member][None], dynamics.ensemble.trunks)
    ensemble = dataclasses.replace(dynamics.ensemble, trunks=trunks)
    return dataclasses.replace(dynamics, ensemble=ensemble)


def look_ahead(
    key: Key,
    batch: Transition,
    agent: SacState,
    dynamics: DynamicsState,
    ends: Ends,
    config: Config,
) -> Ahead:
    """Write the value of each row's next observation out over ``rollouts.value_steps`` steps.

    Args:
        key: of this batch; one elite is drawn for all of it.
        batch: rewards in the agent's unit.
        agent: its policy acts, its temperature prices entropy.
        dynamics: the model.
        ends: how branches end and pay.
        config: the run's.
    """
    assert config.rollouts is not None
    gamma = config.sac.discount
    member_key, step_key = jax.random.split(key)
    model = one_member(dynamics, member_key)
    alpha = jnp.exp(agent.log_temperature)

    def step(carry: tuple[Transition, Array], k: Key) -> tuple[tuple[Transition, Array], None]:
        rows, discount = carry
        act_key, noise_key = jax.random.split(k)
        action, log_prob = sac.policy(agent.actor, rows.next_obs, config.sac).sample(act_key)
        reward, next_obs, terminated = _imagined(
            noise_key, rows.next_obs, action, model, ends, config
        )
        paid = reward * config.agent_reward_scale - alpha * log_prob
        over = rows.terminated
        further = Transition(
            rows.obs,
            rows.action,
            rows.reward + jnp.where(over, 0.0, discount * paid),
            jnp.where(over[:, None], rows.next_obs, next_obs),
            over | terminated,
        )
        return (further, discount * gamma), None

    first = jnp.full(batch.reward.shape, gamma)
    keys = jax.random.split(step_key, config.rollouts.value_steps)
    (ahead, discount), _ = jax.lax.scan(step, (batch, first), keys)
    failed = ~(jnp.isfinite(ahead.reward) & jnp.all(jnp.isfinite(ahead.next_obs), axis=1))

    def unless_failed(new: Array, old: Array) -> Array:
        return jnp.where(failed.reshape(-1, *[1] * (new.ndim - 1)), old, new)

    rows = jax.tree.map(unless_failed, ahead, batch)
    return Ahead(rows, unless_failed(discount, first), failed)


def _imagined(
    key: Key,
    obs: Float[Array, "B O"],
    action: Float[Array, "B A"],
    model: DynamicsState,
    ends: Ends,
    config: Config,
) -> tuple[Float[Array, "B"], Float[Array, "B O"], Bool[Array, "B"]]:
    """One step of the model: reward, next observation, whether it ends."""
    assert config.dynamics is not None
    said = dyn.predict(model, obs, action, config.dynamics)
    mean, std = said.mean[0], said.std[0]
    drawn = mean + std * jax.random.normal(key, mean.shape)
    next_obs = drawn[:, : obs.shape[1]]
    if config.dynamics.reward_model == "given":
        assert ends.reward is not None
        reward = ends.reward(obs, action, next_obs)
    else:
        reward = mean[:, -1] if config.dynamics.reward_draw == "mean" else drawn[:, -1]
    if ends.termination is None:
        return reward, next_obs, dyn.learned_termination(model, next_obs)
    return reward, next_obs, ends.termination(obs, action, next_obs)
