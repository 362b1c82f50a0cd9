"""Questions that seeds trained together must answer as one."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool


def any_seed(condition: Bool[Array, ""], axis: str | None) -> Bool[Array, ""]:
    """Whether it holds for one of the seeds vmapped over ``axis``; itself where that is None.

    Where a loop or a conditional might go differently for each seed, XLA computes all of it for all
    of them at every step, and copies what they have to choose afterwards.
    """
    if axis is None:
        return condition
    return jax.lax.pmax(condition.astype(jnp.int32), axis) > 0
