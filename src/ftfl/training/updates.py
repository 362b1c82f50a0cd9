"""How many agent updates an environment step pays for, and their metrics in the mean."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from ftfl.config import Config
from ftfl.sac import SacState
from ftfl.types import Key, Metrics

Update = Callable[[SacState, Key], tuple[SacState, Metrics]]
_LARGEST = "agent/q_max_abs_scaled"  # of all updates, where the others are means


def run(
    one: Update, agent: SacState, key: Key, usable: Int[Array, ""], config: Config
) -> tuple[SacState, Metrics]:
    """``sac.updates_per_step`` updates, or with rollouts.updates=stored as many as data allow."""
    per_step = config.sac.updates_per_step
    if config.rollouts is None or config.rollouts.updates == "fixed":
        agent, per_update = jax.lax.scan(one, agent, jax.random.split(key, per_step))
        metrics = {k: jnp.mean(v) for k, v in per_update.items()}
        metrics[_LARGEST] = jnp.max(per_update[_LARGEST])
        return agent, metrics

    count = allowed(usable, config.rollouts.retained_rows, per_step)
    keys = jax.random.split(key, 2 * per_step)
    shapes = jax.eval_shape(one, agent, keys[0])[1]

    def add(i: Array, carry: tuple[SacState, Metrics]) -> tuple[SacState, Metrics]:
        agent, sums = carry
        agent, news = one(agent, keys[i])
        total = {k: sums[k] + v for k, v in news.items()}
        return agent, total | {_LARGEST: jnp.maximum(sums[_LARGEST], news[_LARGEST])}

    zero = {k: jnp.zeros(x.shape, x.dtype) for k, x in shapes.items()}
    agent, sums = jax.lax.fori_loop(0, count, add, (agent, zero))
    means = {k: v / count.astype(jnp.float32) for k, v in sums.items()}
    return agent, means | {_LARGEST: sums[_LARGEST]}


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
