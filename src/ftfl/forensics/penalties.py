"""What a run's screen takes from synthetic rewards: the price of uncertainty in MOPO and M2AC.

Instruments compare the model's reward with the true one *before* a screen has changed it. What the
screen takes is measured apart, so that deliberate pessimism is not mistaken for a wrong model.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ftfl.config import Config
from ftfl.dynamics import predict as dynamics
from ftfl.forensics.judging import REDRAWING
from ftfl.forensics.learned import batched
from ftfl.rollouts import registry
from ftfl.rollouts.generate import length_at
from ftfl.rollouts.memory import channel_scale
from ftfl.rollouts.screens import Predictions
from ftfl.training.state import RunState

Penalty: TypeAlias = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(obs (N, O), action (N, A)) → what is taken from the reward (N,), in the task's own unit."""

JUDGING = frozenset({"keep-all", "macura", "certainty"})
"""Screens that only choose rows and never touch a reward."""


def make_penalty(state: RunState, config: Config, obs_dim: int) -> Penalty | None:
    """What the screen takes at each row, mean over elites; None where it takes nothing by design.

    A screen of one's own is asked as it would be at the first step of a branch.
    """
    if config.rollouts is None or state.dynamics is None or state.screen is None:
        return None
    if config.rollouts.screen in JUDGING | REDRAWING:
        return None
    length, memory = length_at(state.env_steps, config), state.screen.screen

    def penalty(obs: np.ndarray, action: np.ndarray) -> np.ndarray:
        ask = functools.partial(_taken, state.dynamics, memory, length, config, obs_dim)
        return batched(ask, obs, action).astype(np.float64) / config.task.reward_unit

    return penalty


def note(config: Config) -> str | None:
    """What a reader must know of the screen before reading any number; None: nothing."""
    name = "keep-all" if config.rollouts is None else config.rollouts.screen
    if name == "keep-all":
        return None
    before = f"the screen {name} judges what the model draws, and the instruments look before it"
    if name in REDRAWING:
        return (
            f"{before}: rewards and states that it draws anew from all elites are not what is"
            " measured here."
        )
    if name in JUDGING:
        return f"{before}: of the rows measured here it stores only some."
    return (
        f"{before}: the model's reward is compared with the simulator's before the penalty, which"
        " the critic account lists by itself."
    )


@functools.partial(jax.jit, static_argnums=(3, 4))
def _taken(
    state: dynamics.DynamicsState,
    memory: Any,
    length: Array,
    config: Config,
    size: int,
    obs: Float[Array, "B O"],
    action: Float[Array, "B A"],
) -> Float[Array, "B"]:
    assert config.dynamics is not None
    rule = registry.build(config, size)
    members = dynamics.predict(state, obs, action, config.dynamics)
    rows = jnp.arange(obs.shape[0], dtype=jnp.int32)
    scale = channel_scale(state, size)

    def one(elite: Array) -> Float[Array, "B"]:
        member = jnp.full(rows.shape, elite, jnp.int32)
        mean = members.mean[member, rows]
        learned = mean.shape[1] > size
        # A given reward is left at 0: what is taken from it does not depend on it.
        reward = mean[:, -1] if learned else jnp.zeros(rows.shape)
        shown = Predictions(obs, action, members, member, mean[:, :size], reward, scale, length)
        judged = rule.screen(
            jax.random.key(0), shown, jnp.int32(0), jnp.ones(rows.shape, bool), memory
        )
        return reward - judged.reward

    return jnp.mean(jax.vmap(one)(state.elites), axis=0)
