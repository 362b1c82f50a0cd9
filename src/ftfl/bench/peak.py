"""What this core can do at most: a plain square matrix product."""

from __future__ import annotations

import time

import jax
import jax.numpy as jnp
import numpy as np

_SIZES = (512, 1024)
_ROUNDS = 20


def matmul_peak(precision: str) -> float:
    """10⁹ operations a second of the best plain square matrix product."""
    dtype = jnp.bfloat16 if precision == "bf16" else jnp.float32
    best = 0.0
    for size in _SIZES:
        a = jnp.ones((size, size), dtype)
        product = jax.jit(lambda a, b: jax.lax.dot(a, b, preferred_element_type=jnp.float32))
        product(a, a).block_until_ready()
        taken = []
        for _ in range(_ROUNDS):
            start = time.perf_counter()
            product(a, a).block_until_ready()
            taken.append(time.perf_counter() - start)
        best = max(best, 2 * size**3 / float(np.median(taken)) / 1e9)
    return best
