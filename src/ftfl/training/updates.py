"""How many agent updates an environment step pays for, and their metrics in the mean."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from ftfl.config import Config
from ftfl.sac import SacState
from ftfl.types import Key, Metrics

_LARGEST = "agent/q_max_abs_scaled"  # of all updates, where the others are means

Told = tuple[Metrics, Bool[Array, "*U 2"]]
"""What an update says: its metrics, and what ``sentinels.is_bad`` says of its batch."""
Update = Callable[[SacState, Key], tuple[SacState, Told]]


def run(
    one: Update, agent: SacState, key: Key, usable: Int[Array, ""], config: Config
) -> tuple[SacState, Told, Metrics]:
    """``sac.updates_per_step`` updates, or with rollouts.updates=stored as many as data allow.

    Returns:
        The agent; what each update said, stacked (of updates left out, what the last one said);
        and their metrics: means, of Q the largest.
    """
    per_step = config.sac.updates_per_step
    if config.rollouts is None or config.rollouts.updates == "fixed":
        agent, told = jax.lax.scan(one, agent, jax.random.split(key, per_step))
        means = {k: jnp.mean(v) for k, v in told[0].items()}
    else:
        count = allowed(usable, config.rollouts.retained_rows, per_step)
        agent, told = _as_many(one, agent, jax.random.split(key, 2 * per_step), count)
        done = jnp.arange(2 * per_step, dtype=jnp.int32) < count
        means = {
            k: jnp.sum(jnp.where(done, v, 0.0)) / count.astype(jnp.float32)
            for k, v in told[0].items()
        }
    return agent, told, means | {_LARGEST: jnp.max(told[0][_LARGEST])}


def _as_many(
    one: Update, agent: SacState, keys: Array, count: Int[Array, ""]
) -> tuple[SacState, Told]:
    """The first ``count`` ≥ 1 of so many updates as there are keys."""
    nothing = jax.tree.map(
        lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(one, agent, keys[0])[1]
    )

    def step(carry: tuple[SacState, Told], x: tuple[Array, Key]) -> tuple[Any, Told]:
        i, key = x
        agent, told = jax.lax.cond(i < count, lambda: one(carry[0], key), lambda: carry)
        return (agent, told), told

    numbers = jnp.arange(keys.shape[0], dtype=jnp.int32)
    (agent, _), told = jax.lax.scan(step, (agent, nothing), (numbers, keys))
    return agent, told


def allowed(usable: Int[Array, ""], retained: int, per_step: int) -> Int[Array, ""]:
    """MACURA's ⌊2 G usable/retained⌋ updates, but at least one, so that none is a step unlearned.

    Args:
        usable: synthetic rows that updates may draw from.
        retained: rows there would be if nothing were kept out.
        per_step: G.
    """
    share = usable.astype(jnp.float32) / retained
    # The allowance: a share that is exact in decimals may lie just below in binary.
    count = jnp.floor(2.0 * per_step * share + 1e-4).astype(jnp.int32)
    return jnp.clip(count, 1, 2 * per_step)


def counted(before: int, done: Callable[[], Any], config: Config) -> int:
    """Updates after one more learn step; the device is asked only where data decide how many."""
    if config.rollouts is None or config.rollouts.updates == "fixed":
        return before + config.sac.updates_per_step
    return int(done())
