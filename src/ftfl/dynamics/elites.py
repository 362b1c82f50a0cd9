"""Elites: the members that rollouts draw from."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ftfl.types import Key


def choose_elites(score: Float[Array, "E"], count: int) -> Int[Array, "K"]:
    """The ``count`` members with the lowest holdout scores, best first.

    A member that diverged has no finite score and is no elite while another lives: with fewer
    living members than ``count`` they are named again, in the same order.
    """
    lives = jnp.isfinite(score)
    order = jnp.argsort(jnp.where(lives, score, jnp.inf))
    alive, place = jnp.sum(lives, dtype=jnp.int32), jnp.arange(count, dtype=jnp.int32)
    return order[jnp.where(alive > 0, place % jnp.maximum(alive, 1), place)].astype(jnp.int32)


def draw_elites(elites: Int[Array, "K"], key: Key, rows: int) -> Int[Array, "B"]:
    """One elite per row, uniformly."""
    return elites[jax.random.randint(key, (rows,), 0, elites.shape[0])]
