"""Infoprop's screen (arXiv 2501.16918): roll on without epistemic noise, count what it cost.

The next state is drawn from the fused ensemble conditioned on the drawn member's outcome; the bits
that conditioning leaves open are the information lost. A row ends unstored once any output loses
more in a step, or over its branch, than limits taken from replayed transitions allow.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ftfl.config import Config
from ftfl.dynamics.predict import Prediction
from ftfl.rollouts import screens
from ftfl.rollouts.screens import Calibration, Predictions, Screened, ScreenRule
from ftfl.rollouts.uncertainty import conditional, fuse, information
from ftfl.types import Key


class Limits(NamedTuple):
    """Infoprop's memory, all in bits per output."""

    step: Float[Array, "D"]
    """λ₁: what one step may lose."""
    path: Float[Array, "D"]
    """λ₂: what a branch may lose."""
    lost: Float[Array, "B D"]
    """What each branch of the batch under way has lost so far."""


def make(config: Config, outputs: int) -> ScreenRule:
    """The rule for this configuration and D = ``outputs`` of the model."""
    assert config.rollouts is not None
    assert config.dynamics is not None
    screens.require_members("infoprop", config)
    constants = config.rollouts.screening
    longest = config.rollouts.max_length
    mean_reward = config.dynamics.reward_draw == "mean"

    def bits(std: Float[Array, "B D"], scale: Float[Array, "D"]) -> Float[Array, "B D"]:
        return information(screens.in_units(std, scale, config), constants.quantum)

    def measure(members: Prediction, scale: Float[Array, "D"]) -> Float[Array, "B D"]:
        return bits(conditional(fuse(members)).std, scale)

    def settle(values: Float[Array, "N D"], state: Limits) -> Limits:
        return Limits(
            jnp.nanquantile(values, constants.step_quantile, axis=0),
            longest * jnp.nanquantile(values, constants.path_quantile, axis=0),
            state.lost,
        )

    def screen(
        key: Key, shown: Predictions, step: Int[Array, ""], active: Bool[Array, "B"], state: Limits
    ) -> Screened:
        del key
        fused = fuse(shown.members)
        gain, std = conditional(fused)
        rows, size = shown.next_obs.shape
        drawn = shown.next_obs
        learned_reward = gain.shape[1] > size
        if learned_reward:
            drawn = jnp.concatenate([drawn, shown.reward[:, None]], axis=1)
        chosen = (shown.member, jnp.arange(rows, dtype=jnp.int32))
        centre, width = shown.members.mean[chosen], shown.members.std[chosen]
        # y = centre + width ε, and x′ = μ_f + K (y − μ_f) + std ε′: given the member, the noise of
        # x′ is one Gaussian of variance (K width)² + std², for which ε serves.
        noise = (drawn - centre) / jnp.where(width > 0, width, 1.0)
        spread = jnp.sqrt((gain * width) ** 2 + std**2)
        outcome = fused.mean + gain * (centre - fused.mean) + spread * noise
        if learned_reward:
            reward = fused.mean[:, -1] if mean_reward else outcome[:, -1]
        else:
            reward = shown.reward
        now = bits(std, shown.scale)
        lost = jnp.where(step == 0, 0.0, state.lost) + now
        # A limit or a loss that is not a number lets nothing through.
        sure = jnp.all(now <= jnp.broadcast_to(state.step, now.shape), axis=1)
        sure &= jnp.all(lost <= jnp.broadcast_to(state.path, lost.shape), axis=1)
        kept = state._replace(lost=lost)
        return Screened(outcome[:, :size], reward, sure, sure, kept, jnp.mean(now, axis=1))

    nothing = jnp.zeros(outputs)
    initial = Limits(nothing, nothing, jnp.zeros((config.rollouts.chunks[1], outputs)))
    return ScreenRule(screen, initial, Calibration(constants.calibration_rows, measure, settle))
