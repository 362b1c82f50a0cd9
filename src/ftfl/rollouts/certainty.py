"""Certainty weights (WIMLE, arXiv 2602.14351 in part): doubtful rows count less, none is refused.

w = 1/(1 + mean over channels of std(s') + std(r)), with the standard deviations of the ensemble's
mixture. Instead of multiplying a row's loss by w, the row is stored with probability w: an update
batch then holds it as often as a weight would have counted it, in the mean and up to a factor that
all rows share.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from ftfl.config import Config
from ftfl.rollouts import screens
from ftfl.rollouts.screens import Predictions, Screened, ScreenRule
from ftfl.rollouts.uncertainty import mixture_std
from ftfl.types import Key


def make(config: Config, outputs: int) -> ScreenRule:
    """The rule for this configuration; needs nothing to know of the number of outputs."""
    del outputs

    def screen(
        key: Key, shown: Predictions, step: Int[Array, ""], active: Bool[Array, "B"], state: Any
    ) -> Screened:
        del step
        std = screens.in_units(mixture_std(shown.members), shown.scale, config)
        size = shown.next_obs.shape[1]
        # A known reward is certain.
        doubt = jnp.mean(std[:, :size], axis=1) + jnp.sum(std[:, size:], axis=1)
        kept = jax.random.uniform(key, active.shape) < 1.0 / (1.0 + doubt)
        everyone = jnp.ones_like(active)
        return Screened(shown.next_obs, shown.reward, kept, everyone, state, doubt)

    return ScreenRule(screen)
