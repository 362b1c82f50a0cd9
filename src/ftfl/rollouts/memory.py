"""What rollouts remember between batches of branches: the screen's memory, and ages of rows."""

from __future__ import annotations

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ftfl.config import Config
from ftfl.config.rollouts import ROWS_AT_ONCE
from ftfl.dynamics import predict as dyn
from ftfl.dynamics.predict import DynamicsState
from ftfl.replay import Replay, sample_slots, take
from ftfl.rollouts import registry
from ftfl.rollouts.screens import ScreenRule
from ftfl.rollouts.seeds import any_seed
from ftfl.types import Key


class Memory(eqx.Module):
    """Part of a run's state; without a leaf where a configuration needs none."""

    screen: Any
    """The screen's own memory."""
    calibrated: Int[Array, ""] | None
    """The refit of the model that the screen was last calibrated on."""
    stored: Int[Array, "R"] | None
    """Rows stored by each of the newest batches, in a ring; None when retention counts rows."""
    batches: Int[Array, ""] | None
    """Batches of branches so far."""


def remember(config: Config, obs_dim: int) -> Memory:
    """The memory before the first batch of branches."""
    assert config.rollouts is not None
    rule = registry.build(config, obs_dim)
    # A run's state is given away to every compiled call: no leaf may be another's or the rule's.
    screen = jax.tree.map(jnp.copy, rule.initial)
    never = None if rule.calibration is None else jnp.int32(-1)
    if config.rollouts.retention == "rows":
        return Memory(screen, never, None, None)
    batches = config.rollouts.retention_steps // config.rollouts.every
    return Memory(screen, never, jnp.zeros(batches, jnp.int32), jnp.int32(0))


def calibrated(
    key: Key,
    memory: Memory,
    rule: ScreenRule,
    dynamics: DynamicsState,
    real: Replay,
    config: Config,
    axis: str | None = None,
) -> Memory:
    """The screen after a look at what the model says of replayed pairs, if the model is new.

    ``axis`` is the one that seeds are vmapped over, if any.
    """
    calibration = rule.calibration
    if calibration is None or memory.calibrated is None:
        return memory
    at_once = min(calibration.rows, ROWS_AT_ONCE)
    scale = channel_scale(dynamics, real.rows.obs.shape[1])

    def measure(k: Key) -> Float[Array, "B M"]:
        assert config.dynamics is not None
        seen = take(real, sample_slots(real, k, at_once))
        members = dyn.predict(dynamics, seen.obs, seen.action, config.dynamics)
        return calibration.measure(members, scale)

    def settle() -> Any:
        keys = jax.random.split(key, -(-calibration.rows // at_once))
        values = jax.lax.map(measure, keys)
        return calibration.settle(values.reshape(-1, values.shape[-1]), memory.screen)

    new = memory.calibrated != dynamics.refits

    def renewed() -> Any:
        return jax.tree.map(lambda s, old: jnp.where(new, s, old), settle(), memory.screen)

    screen = jax.lax.cond(any_seed(new, axis), renewed, lambda: memory.screen)
    return dataclasses.replace(memory, screen=screen, calibrated=dynamics.refits)


def older(memory: Memory, screen: Any, stored: Float[Array, ""]) -> Memory:
    """After one more batch of branches, which stored so many rows."""
    memory = dataclasses.replace(memory, screen=screen)
    if memory.stored is None or memory.batches is None:
        return memory
    place = memory.batches % memory.stored.shape[0]
    counts = memory.stored.at[place].set(stored.astype(jnp.int32))
    return dataclasses.replace(memory, stored=counts, batches=memory.batches + 1)


def channel_scale(dynamics: DynamicsState, obs_dim: int) -> Float[Array, "D"]:
    """Std of each channel of obs, and of the reward if learned, over the model's training rows.

    Not the target's: that is another in each target cell, and a screen must not be.
    """
    statistics = dynamics.statistics
    return jnp.concatenate([statistics.input.std[:obs_dim], statistics.change[obs_dim:]])
