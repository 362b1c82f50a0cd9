"""The doors through which a choice of targets can harm a model, as changes to its configuration.

A cell is one of the four combinations of target and scale. A door changes one thing and leaves the
cell as it is, so that what only a repair of the whole target does can be told from what one
mechanism does.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from ftfl.config import DynamicsConfig
from ftfl.config.aliases import option_of

Changes = Mapping[str, Any]
"""Fields of ``DynamicsConfig`` with their new values."""

CELLS: dict[str, Changes] = {
    "residual, raw": {"target": "residual", "scale": "raw"},
    "residual, unit": {"target": "residual", "scale": "unit"},
    "direct, raw": {"target": "direct", "scale": "raw"},
    "direct, unit": {"target": "direct", "scale": "unit"},
}
TO_CELLS = ("scale", "target")
"""Doors that lead from one cell to another: refits of all cells open them as well."""
GIVEN = "given-reward"
"""The task's own reward function in the place of a learned one: a remedy that knows every reward
whatever spoilt the learned one, and so the sign of no cause."""
AS_IS = "as it is"
_MARGIN = 0.1  # nats: a log-variance must start inside its bounds


def doors(config: DynamicsConfig, reward_variance: float, knows_reward: bool) -> dict[str, Changes]:
    """Every door that is not already as it would be opened, by name.

    Args:
        config: the model as it is.
        reward_variance: of the rewards it trains on, in physical units.
        knows_reward: the task has a reward function.
    """
    scaled = 1.0 if config.scale == "unit" else max(reward_variance, 1e-30)
    low, high = config.logvar_min + _MARGIN, config.logvar_max - _MARGIN
    start = min(max(math.log(scaled), low), high)
    score = config.scale if config.holdout_score == "trained" else config.holdout_score
    other_score = "unit" if score == "raw" else "raw"
    every: dict[str, Changes] = {
        # whole repairs of the target
        "scale": {"scale": "raw" if config.scale == "unit" else "unit"},
        "target": {"target": "residual" if config.target == "direct" else "direct"},
        # neither target: what a channel's own last value does not say
        "innovation": {"target": "innovation"},
        # the trunk that reward and state share
        "separate-reward": {"reward_model": "separate"},
        GIVEN: {"reward_model": "given"},
        # bounds and start of the log-variance: −25 and 10 are stds of 4e-6 and 148
        "floor": {"logvar_min": -25.0},
        "cap": {"logvar_max": 10.0},
        "start": {"logvar_start": start},
        "slow-channel-floor": {"logvar_floor": "change"},
        # the likelihood's discount of what is predicted badly
        "nll-beta": {"nll_beta": 0.5},
        # noise that rollouts add to the reward
        "mean-reward": {"reward_draw": "mean"},
        # which members rollouts draw from
        "elites": {"holdout_score": other_score},
        # the absolute length of Adam's steps
        "small-steps": {"learning_rate": config.learning_rate / 10},
    }
    if config.reward_model == "given" or not knows_reward:
        del every[GIVEN]
    if config.reward_model == "given":
        for name in ("separate-reward", "mean-reward", "start"):
            del every[name]
    now = dataclasses.asdict(config)
    return {
        name: changes
        for name, changes in every.items()
        if any(now[field] != value for field, value in changes.items())
        and not (name == "floor" and config.logvar_min <= -25.0)
        and not (name == "cap" and config.logvar_max >= 10.0)
    }


def flags(changes: Changes) -> str:
    """The same as options of ``ftfl train``."""
    return " ".join(
        f"{option_of(f'dynamics.{field}')} {value:g}"
        if isinstance(value, float)
        else f"{option_of(f'dynamics.{field}')} {value}"
        for field, value in changes.items()
    )
