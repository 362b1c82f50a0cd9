"""A run's own screen, asked about real steps: what it stores, and what it measures of each.

Branches start at real states, so the first step of a branch can be compared with what really
happened. The screen is shown what it is shown in training, one elite's draw for each row.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from ftfl.config import Config
from ftfl.dynamics.predict import DynamicsState
from ftfl.envs.spec import EnvSpec
from ftfl.errors import FtflError
from ftfl.rollouts import registry
from ftfl.rollouts.draws import draw
from ftfl.rollouts.generate import length_at
from ftfl.training.state import RunState
from ftfl.types import Key

REDRAWING = frozenset({"infoprop"})
"""Screens that draw the outcome anew from all elites: no penalty, but other data than a draw."""


class Judged(NamedTuple):
    """What the screen made of N steps."""

    stored: np.ndarray
    """(N,), bool: the row would enter the synthetic replay."""
    uncertainty: np.ndarray | None
    """(N,): what the row was judged by; None where the screen does not tell."""
    reward: np.ndarray
    """(N,): the row's reward before any penalty, in the task's own unit."""
    next_obs: np.ndarray
    """(N, O)"""


def judge(
    state: RunState, config: Config, spec: EnvSpec, obs: np.ndarray, action: np.ndarray, seed: int
) -> Judged:
    """Ask the run's screen about one imagined step from each of N real rows, (N, O) and (N, A).

    Rows come in batches of the size that rollouts have, in random order, for a screen may compare
    the rows of a batch with each other; the last batch is filled up with rows seen before.

    Raises:
        FtflError: the run stores every row, or has no model yet.
    """
    if config.rollouts is None or config.rollouts.screen == "keep-all":
        raise FtflError("the run stores every synthetic row: no screen chooses among them")
    if state.dynamics is None or state.screen is None or int(state.dynamics.refits) == 0:
        raise FtflError("the dynamics model is not trained yet")
    count, size = len(obs), config.rollouts.chunks[1]
    order = np.random.default_rng(seed).permutation(count)
    ask = functools.partial(
        _judged, state.dynamics, state.screen.screen, length_at(state.env_steps, config)
    )
    pieces = []
    for number, start in enumerate(range(0, count, size)):
        rows = order[np.arange(start, start + size) % count]
        key = jax.random.fold_in(jax.random.key(seed), number)
        told = ask(config, spec, key, jnp.asarray(obs[rows]), jnp.asarray(action[rows]))
        pieces.append(jax.tree.map(np.asarray, tuple(told)))
    back = np.argsort(order)
    whole = Judged(*jax.tree.map(lambda *parts: np.concatenate(parts)[:count][back], *pieces))
    return whole._replace(reward=whole.reward.astype(np.float64) / config.task.reward_unit)


@functools.partial(jax.jit, static_argnums=(3, 4))
def _judged(
    state: DynamicsState,
    memory: Any,
    length: Array,
    config: Config,
    spec: EnvSpec,
    key: Key,
    obs: Float[Array, "B O"],
    action: Float[Array, "B A"],
) -> tuple[Bool[Array, "B"], Float[Array, "B"] | None, Float[Array, "B"], Float[Array, "B O"]]:
    assert config.dynamics is not None
    assert config.rollouts is not None
    elite_key, noise_key, screen_key = jax.random.split(key, 3)
    rows, size = obs.shape
    shown = draw(elite_key, noise_key, state, obs, action, length, spec.reward_fn, config)
    told = registry.build(config, size).screen(
        screen_key, shown, jnp.int32(0), jnp.ones(rows, bool), memory
    )
    if config.dynamics.reward_model == "given":
        assert spec.reward_fn is not None
        before = spec.reward_fn(obs, action, told.next_obs)
    else:
        before = told.reward if config.rollouts.screen in REDRAWING else shown.reward
    return told.store, told.uncertainty, before, told.next_obs
