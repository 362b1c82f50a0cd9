"""Rules that filter, penalise or reject synthetic transitions: one function shape for all.

A screen is ``(key, predictions, step, active, screen_state) → Screened``. It sees what every
member says of every row, the branch step (0 first) and which rows are still alive, and answers
what to store, what to continue, and its own new state.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ftfl.dynamics.predict import Prediction
from ftfl.errors import unknown
from ftfl.types import Key


class Predictions(NamedTuple):
    """What a screen is shown of one step of a batch of branches."""

    obs: Float[Array, "B O"]
    action: Float[Array, "B A"]
    members: Prediction
    """All members' means and stds of [next_obs, reward], physical units, (E, B, D)."""
    member: Int[Array, "B"]
    """The elite drawn for each row."""
    next_obs: Float[Array, "B O"]
    """Drawn from that elite."""
    reward: Float[Array, "B"]


class Screened(NamedTuple):
    """What a screen answers."""

    next_obs: Float[Array, "B O"]
    reward: Float[Array, "B"]
    store: Bool[Array, "B"]
    """Rows that enter the synthetic replay."""
    proceed: Bool[Array, "B"]
    """Rows whose branch goes on (if they did not terminate)."""
    state: Any
    """The screen's own memory, a pytree of fixed shapes."""


Screen = Callable[[Key, Predictions, Int[Array, ""], Bool[Array, "B"], Any], Screened]


class ScreenRule(NamedTuple):
    """A screen and its initial memory."""

    screen: Screen
    initial: Any
    summary: str


def keep_all(
    key: Key, shown: Predictions, step: Int[Array, ""], active: Bool[Array, "B"], state: Any
) -> Screened:
    """MBPO's rule: every living row is stored and goes on."""
    del key, step
    everyone = jnp.ones_like(active)
    return Screened(shown.next_obs, shown.reward, everyone, everyone, state)


SCREENS: dict[str, ScreenRule] = {
    "keep-all": ScreenRule(keep_all, (), "store every synthetic transition (MBPO)"),
}


def get(name: str) -> ScreenRule:
    """The rule of that name, or an error with near misses."""
    if name not in SCREENS:
        raise unknown("screen", name, SCREENS)
    return SCREENS[name]
