"""Elites: the members that rollouts draw from."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ftfl.types import Key


def choose_elites(score: Float[Array, "E"], count: int) -> Int[Array, "K"]:
    """The ``count`` members with the lowest holdout scores, best first.

    A member that diverged scores NaN and comes last.
    """
    order = jnp.argsort(jnp.where(jnp.isnan(score), jnp.inf, score))
    return order[:count].astype(jnp.int32)


def draw_elites(elites: Int[Array, "K"], key: Key, rows: int) -> Int[Array, "B"]:
    """One elite per row, uniformly."""
    return elites[jax.random.randint(key, (rows,), 0, elites.shape[0])]
