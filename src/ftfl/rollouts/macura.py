"""MACURA's screen (arXiv 2405.19014): a branch goes on while its members agree.

The measure is the mean pairwise geometric Jensen-Shannon divergence. At the first step of every
batch of branches its percentile ζ over the batch, times ξ, joins an average over all batches so
far; rows strictly below that average are stored and go on, all others end unstored.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ftfl.config import Config
from ftfl.rollouts import screens
from ftfl.rollouts.screens import Predictions, Screened, ScreenRule
from ftfl.rollouts.uncertainty import mean_pairwise_gjs
from ftfl.types import Key


class Threshold(NamedTuple):
    """MACURA's memory. The source forgets after 2,000 batches, which none of its runs reaches."""

    batches: Int[Array, ""]
    value: Float[Array, ""]
    """κ, in nats."""


def recalibrate(
    threshold: Threshold,
    uncertainty: Float[Array, "B"],
    active: Bool[Array, "B"],
    percentile: float,
    factor: float,
) -> Threshold:
    """Let one batch's percentile join the average; a batch without any finite value does not."""
    usable = active & jnp.isfinite(uncertainty)
    base = factor * jnp.nanpercentile(jnp.where(usable, uncertainty, jnp.nan), percentile)
    some = jnp.any(usable)
    batches = threshold.batches + some.astype(jnp.int32)
    share = 1.0 / jnp.maximum(batches, 1).astype(jnp.float32)
    moved = threshold.value + jnp.where(some, base - threshold.value, 0.0) * share
    return Threshold(batches, moved)


def make(config: Config, outputs: int) -> ScreenRule:
    """The rule for this configuration; needs nothing to know of the number of outputs."""
    del outputs
    assert config.rollouts is not None
    screens.require_members("macura", config)
    constants = config.rollouts.screening

    def screen(
        key: Key,
        shown: Predictions,
        step: Int[Array, ""],
        active: Bool[Array, "B"],
        state: Threshold,
    ) -> Screened:
        del key
        uncertainty = mean_pairwise_gjs(shown.members)
        threshold = jax.lax.cond(
            step == 0,
            lambda: recalibrate(
                state,
                uncertainty,
                active,
                constants.threshold_percentile,
                constants.threshold_factor,
            ),
            lambda: state,
        )
        sure = uncertainty < threshold.value
        return Screened(shown.next_obs, shown.reward, sure, sure, threshold, uncertainty)

    return ScreenRule(screen, Threshold(jnp.int32(0), jnp.float32(0)))
