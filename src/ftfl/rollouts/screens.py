"""Rules that filter, penalise or reject synthetic transitions: one function shape for all.

A screen is ``(key, predictions, step, active, state) → Screened``. It sees what every member says
of every row, the branch step (0 first) and which rows are still alive, and answers what to store,
what to continue, and its own new memory. What a method needs beyond that is a second function, not
a hook: Infoprop's limits are a ``Calibration``. Names become rules in ``rollouts/registry.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ftfl.config import Config
from ftfl.dynamics.predict import Prediction
from ftfl.errors import FtflError
from ftfl.types import Key


class Predictions(NamedTuple):
    """What a screen is shown of one step of a batch of branches."""

    obs: Float[Array, "B O"]
    action: Float[Array, "B A"]
    members: Prediction
    """All members' means and stds of [next_obs, reward], physical units, (E, B, D). Without the
    reward (D = O) when dynamics.reward_model is given."""
    member: Int[Array, "B"]
    """The elite drawn for each row."""
    next_obs: Float[Array, "B O"]
    """Drawn from that elite."""
    reward: Float[Array, "B"]
    scale: Float[Array, "D"]
    """Standard deviation of each channel of obs, and of the reward, over the model's training rows;
    0 for what never changed. The same in every target cell."""
    length: Int[Array, ""]
    """Steps a branch may take at this moment of the run."""


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
    uncertainty: Float[Array, "B"] | None = None
    """What the screen judged each row by, for ``rollout/uncertainty_mean_screen``."""


Screen = Callable[[Key, Predictions, Int[Array, ""], Bool[Array, "B"], Any], Screened]


class Calibration(NamedTuple):
    """What a screen learns from one-step predictions at replayed pairs, after every refit."""

    rows: int
    measure: Callable[[Prediction, Float[Array, "D"]], Float[Array, "B M"]]
    """(members, scale) → M numbers a row."""
    settle: Callable[[Float[Array, "N M"], Any], Any]
    """(those of all rows, memory) → memory."""


class ScreenRule(NamedTuple):
    """A screen and its initial memory."""

    screen: Screen
    initial: Any = ()
    """A pytree of arrays; it is part of every checkpoint."""
    calibration: Calibration | None = None


def keep_all(
    key: Key, shown: Predictions, step: Int[Array, ""], active: Bool[Array, "B"], state: Any
) -> Screened:
    """MBPO's rule: every living row is stored and goes on."""
    del key, step
    everyone = jnp.ones_like(active)
    return Screened(shown.next_obs, shown.reward, everyone, everyone, state)


def in_units(
    std: Float[Array, "*B D"], scale: Float[Array, "D"], config: Config
) -> Float[Array, "*B D"]:
    """Standard deviations in the units that ``rollouts.screening.units`` asks for.

    Nothing is lost in the environment's own units; in units of the data, a channel that never
    changed counts nothing.
    """
    assert config.rollouts is not None
    if config.rollouts.screening.units == "raw":
        return std
    scale = jnp.broadcast_to(scale, std.shape)
    alive = scale > 0
    return jnp.where(alive, std / jnp.where(alive, scale, 1.0), 0.0)


def price(scale: Float[Array, "D"], config: Config) -> Float[Array, ""]:
    """What 1 of a penalty is in stored rewards: one reward of the task, or one std of its rewards.

    The task's own unit of reward, whatever the unit dial says: the dial turns the model's targets
    alone.
    """
    assert config.rollouts is not None
    if config.rollouts.screening.units == "raw":
        return jnp.float32(config.task.reward_unit)
    return scale[-1]


def require_learned_reward(name: str, config: Config) -> None:
    """Refuse a penalty in stds of the reward when the model does not know the reward."""
    assert config.rollouts is not None
    assert config.dynamics is not None
    unit = config.rollouts.screening.units == "unit"
    if unit and config.dynamics.reward_model == "given":
        raise FtflError(
            f"screen {name} with rollouts.screening.units=unit counts in standard deviations of a"
            " learned reward, but dynamics.reward_model is given: use units=raw, or a joint or"
            " separate reward."
        )


def require_members(name: str, config: Config) -> None:
    """Refuse an ensemble that cannot disagree."""
    assert config.dynamics is not None
    if config.dynamics.members < 2:
        raise FtflError(
            f"screen {name} compares members, but dynamics.members is {config.dynamics.members}:"
            " it needs 2 or more."
        )
