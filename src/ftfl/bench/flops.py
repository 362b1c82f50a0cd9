"""Floating-point operations of matrix products, counted from shapes; two per multiply-add.

Only products are counted: everything else is overhead against the limit that they set.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from ftfl.config import Config


def layers(sizes: Sequence[int]) -> int:
    """One row forward through dense layers of these widths."""
    return 2 * sum(i * o for i, o in itertools.pairwise(sizes))


def training(sizes: Sequence[int]) -> int:
    """One row forward and backward: two products more per layer, of the first only the weight's."""
    return 3 * layers(sizes) - layers(sizes[:2])


def act(config: Config, obs_dim: int, act_dim: int) -> int:
    """One observation to one action."""
    return layers(_actor(config, obs_dim, act_dim))


def sac_update(config: Config, obs_dim: int, act_dim: int) -> int:
    """One update of critics, actor and temperature on one batch."""
    actor = _actor(config, obs_dim, act_dim)
    critic = [obs_dim + act_dim, *config.sac.hidden, 1]
    targets = layers(actor) + 2 * layers(critic)
    critics = 2 * training(critic)
    # The critics pass the actor's gradient on and learn nothing themselves.
    improved = training(actor) + 2 * 2 * layers(critic)
    return config.sac.batch_size * (targets + critics + improved)


def ensemble_update(config: Config, obs_dim: int, act_dim: int) -> int:
    """One update of all members of the dynamics model, each on its own rows."""
    model = config.dynamics
    assert model is not None
    rows = model.members * model.batch_size
    return rows * sum(training(sizes) for sizes in _model(config, obs_dim, act_dim))


def rollouts(config: Config, obs_dim: int, act_dim: int, length: int) -> int:
    """One environment step's share of branches, if all last ``length`` steps."""
    assert config.dynamics is not None
    assert config.rollouts is not None
    ensemble = sum(layers(sizes) for sizes in _model(config, obs_dim, act_dim))
    row = layers(_actor(config, obs_dim, act_dim)) + config.dynamics.members * ensemble
    return config.rollouts.per_step * length * row


def _actor(config: Config, obs_dim: int, act_dim: int) -> list[int]:
    return [obs_dim, *config.sac.hidden, 2 * act_dim]


def _model(config: Config, obs_dim: int, act_dim: int) -> list[list[int]]:
    model = config.dynamics
    assert model is not None
    outputs = {"joint": [obs_dim + 1], "separate": [obs_dim, 1], "given": [obs_dim]}
    return [[obs_dim + act_dim, *model.hidden, 2 * size] for size in outputs[model.reward_model]]
