"""M2AC's screen (arXiv 2010.04893): store the rows the ensemble agrees on most, for a small price.

At step h of H the share w_h = (H − h)/(2(H + 1)) with the lowest one-vs-rest divergence is stored
(½ if H = 1), each paying penalty × divergence. Nobody is stopped: rows that are not stored roll on.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from ftfl.config import Config
from ftfl.rollouts import screens
from ftfl.rollouts.screens import Predictions, Screened, ScreenRule
from ftfl.rollouts.uncertainty import one_vs_rest
from ftfl.types import Key


def stored_rows(rows: int, step: Int[Array, ""], length: Int[Array, ""]) -> Int[Array, ""]:
    """⌊rows × w_h⌋, exactly."""
    share = rows * (length - step) // (2 * (length + 1))
    return jnp.where(length == 1, rows // 2, share)


def make(config: Config, outputs: int) -> ScreenRule:
    """The rule for this configuration; needs nothing to know of the number of outputs."""
    del outputs
    assert config.rollouts is not None
    screens.require_members("m2ac", config)
    screens.require_learned_reward("m2ac", config)
    penalty = config.rollouts.screening.kl_penalty

    def screen(
        key: Key, shown: Predictions, step: Int[Array, ""], active: Bool[Array, "B"], state: Any
    ) -> Screened:
        del key
        uncertainty = one_vs_rest(shown.members, shown.member)
        rows = active.shape[0]
        # Rows that ended still hold their places in the ranking, as in the code this follows.
        order = jnp.argsort(uncertainty)
        rank = jnp.zeros(rows, jnp.int32).at[order].set(jnp.arange(rows, dtype=jnp.int32))
        return Screened(
            shown.next_obs,
            shown.reward - penalty * screens.price(shown.scale, config) * uncertainty,
            rank < stored_rows(rows, step, shown.length),
            jnp.ones_like(active),
            state,
            uncertainty,
        )

    return ScreenRule(screen)
