"""The trained model as others meet it: state, and predictions in physical units."""

from __future__ import annotations

from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from ftfl.config import DynamicsConfig
from ftfl.dynamics import ensemble as ens
from ftfl.dynamics.ensemble import Ensemble
from ftfl.dynamics.targets import Scaler, Statistics, floor_shift, next_obs_of, training_scaler
from ftfl.nets import Optimiser
from ftfl.types import Key


class DynamicsState(eqx.Module):
    """All that the dynamics model is."""

    # network and optimiser, kept warm across refits
    ensemble: Ensemble
    optimiser: optax.OptState
    # units of the last refit
    statistics: Statistics
    # choice of the last refit: members with the best holdout scores, best first
    elites: Int[Array, "K"]
    # counters
    updates: Int[Array, ""]
    refits: Int[Array, ""]


class Prediction(NamedTuple):
    """Per-member predictions of [next_obs, reward] in physical units (no reward when given)."""

    mean: Float[Array, "E B D"]
    std: Float[Array, "E B D"]


def init(
    key: Key, obs_dim: int, act_dim: int, config: DynamicsConfig, learn_termination: bool = False
) -> DynamicsState:
    """An untrained model."""
    ensemble = ens.init(key, obs_dim, act_dim, config, learn_termination)
    outputs = ensemble.logvar_min.shape[0]
    statistics = Statistics(
        Scaler.identity(obs_dim + act_dim),
        Scaler.identity(outputs),
        jnp.ones(outputs),
        jnp.float32(0),
        jnp.zeros(obs_dim) if config.target == "innovation" else None,
    )
    return DynamicsState(
        ensemble=ensemble,
        optimiser=Optimiser(config.learning_rate).init(ensemble),
        statistics=statistics,
        elites=jnp.arange(config.elites, dtype=jnp.int32),
        updates=jnp.int32(0),
        refits=jnp.int32(0),
    )


def predict(
    state: DynamicsState,
    obs: Float[Array, "B O"],
    action: Float[Array, "B A"],
    config: DynamicsConfig,
) -> Prediction:
    """What every member says of next observation and reward."""
    scaler = training_scaler(state.statistics, config)
    x = state.statistics.input.to_unit(jnp.concatenate([obs, action], axis=-1))
    shift = floor_shift(state.statistics, scaler, config)
    mean, std = ens.mean_and_std(state.ensemble, x, shift)
    mean, std = scaler.from_unit(mean), scaler.spread_from_unit(std)
    size = obs.shape[-1]
    next_obs = next_obs_of(
        config.target,
        jnp.broadcast_to(obs, (*mean.shape[:-1], size)),
        mean[..., :size],
        state.statistics.reversion,
    )
    return Prediction(jnp.concatenate([next_obs, mean[..., size:]], axis=-1), std)


def learned_termination(state: DynamicsState, next_obs: Float[Array, "B O"]) -> Bool[Array, "B"]:
    """The learned classifier's verdict; for tasks that ask for one."""
    net = state.ensemble.termination
    if net is None:
        raise ValueError("this model was built without a termination network")
    units = state.statistics.input.first(next_obs.shape[-1])
    return ens.termination_logit(net, units.to_unit(next_obs)) > 0
