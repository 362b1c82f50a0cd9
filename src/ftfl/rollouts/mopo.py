"""MOPO's penalty (arXiv 2005.13239): rewards pay for the widest member's standard deviation.

r̃ = r̂ − λ max_e ‖σ_e(s, a)‖₂ over all outputs, reward included. Everything is stored.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from ftfl.config import Config
from ftfl.rollouts import screens
from ftfl.rollouts.screens import Predictions, Screened, ScreenRule
from ftfl.rollouts.uncertainty import largest_norm
from ftfl.types import Key


def make(config: Config, outputs: int) -> ScreenRule:
    """The rule for this configuration; needs nothing to know of the number of outputs."""
    del outputs
    assert config.rollouts is not None
    screens.require_learned_reward("mopo", config)
    penalty = config.rollouts.screening.std_penalty

    def screen(
        key: Key, shown: Predictions, step: Int[Array, ""], active: Bool[Array, "B"], state: Any
    ) -> Screened:
        del key, step
        uncertainty = largest_norm(screens.in_units(shown.members.std, shown.scale, config))
        everyone = jnp.ones_like(active)
        return Screened(
            shown.next_obs,
            shown.reward - penalty * screens.price(shown.scale, config) * uncertainty,
            everyone,
            everyone,
            state,
            uncertainty,
        )

    return ScreenRule(screen)
