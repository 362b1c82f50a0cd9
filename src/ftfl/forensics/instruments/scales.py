"""Target scales: how large each target is, and what that size decides in a joint model.

A joint Gaussian likelihood over raw targets sees every output in its own unit. Sizes then decide
through definite doors: the trunk that all outputs share, the bounds on log-variance, the absolute
length of Adam's steps, and the choice of elites. Each is measured by itself.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt

from ftfl.config import DynamicsConfig
from ftfl.dynamics import ensemble as ens
from ftfl.dynamics.predict import DynamicsState
from ftfl.dynamics.targets import floor_shift, model_input, model_target, training_scaler
from ftfl.errors import FtflError
from ftfl.forensics.evidence import Finding, Numbers
from ftfl.forensics.instruments import shares as sharing
from ftfl.forensics.instruments.elites import elite_cost, elite_findings, elite_shares
from ftfl.forensics.instruments.scale_findings import bound_findings, reward_findings
from ftfl.forensics.instruments.shares import RewardShares
from ftfl.forensics.instruments.table import TargetTable, target_table
from ftfl.forensics.rows import holdout, in_order
from ftfl.replay import Replay, Split
from ftfl.types import Key, Transition

NEAR_A_BOUND = math.log(2.0)
"""Nats from a soft bound at which it passes on half of the gradient: softplus′(u) = 1 − e^{−(ℓ −
low)} = ½ at ℓ − low = ln 2. Nearer, the bound decides more than the data."""


@dataclass(frozen=True)
class Scales:
    """The result of `target_scales`."""

    table: TargetTable
    at_start: RewardShares | None
    """Shares of a fresh model on this replay; None where the reward is no output of a joint one."""
    trained: RewardShares | None
    """Shares of the model as it is."""
    near_floor: np.ndarray
    """(D,): share of held-out log-variances within ln 2 of the lower bound, trained model."""
    near_cap: np.ndarray
    """(D,): the same for the upper bound."""
    floor_std: np.ndarray
    """(D,): least std the model can predict, in physical units."""
    cap_std: np.ndarray
    held_out_rms: np.ndarray
    """(D,): held-out root mean square error of a member, in physical units."""
    elite_share: np.ndarray
    """(D,): covariance of a dimension's score with the whole score, over members, as a share."""
    elite_cost: float
    """By how much the elites' squared error exceeds that of members drawn at random, as a share,
    averaged over all outputs but the one that decides most; below 0 they are better."""
    cell: str
    draws_reward: bool
    """Rollouts draw rewards with the std that the model predicts."""
    tested_on: str
    """``held-out``, or ``training`` where no row is kept for good (``holdout`` not persistent)."""

    def numbers(self) -> Numbers:
        """Everything, by name; lists run over ``names``."""
        arrays = ("near_floor", "near_cap", "floor_std", "cap_std", "held_out_rms", "elite_share")
        return {
            "cell": self.cell,
            "tested_on": self.tested_on,
            **self.table.numbers(),
            "at_start": None if self.at_start is None else self.at_start.numbers(),
            "trained": None if self.trained is None else self.trained.numbers(),
            **{name: getattr(self, name).tolist() for name in arrays},
            "elite_cost_share": self.elite_cost,
        }

    def findings(self) -> list[Finding]:
        """What the sizes decide that the task should not care about."""
        name = self.table.names[int(np.argmax(self.elite_share))]
        elites = elite_findings(name, float(self.elite_share.max()), self.elite_cost)
        return [*reward_findings(self), *bound_findings(self), *elites]


def target_scales(
    state: DynamicsState,
    ring: Replay,
    holdout_seed: UInt[Array, ""] | int,
    key: Key,
    config: DynamicsConfig,
    names: tuple[str, ...] = (),
) -> Scales:
    """Measure sizes and their doors for a model and the replay it was trained on.

    Args:
        state: the trained model.
        ring: its real replay.
        holdout_seed: which rows were held out (``holdout='persistent'``).
        key: of the fresh model that "at the start" is measured on.
        config: the model's.
        names: of observation channels; default ``obs[i]``.

    Raises:
        FtflError: fewer rows than ``2 × holdout_every``.
    """
    if int(ring.size) < 2 * config.holdout_every:
        raise FtflError(
            f"the replay holds {int(ring.size)} rows, but target scales need at least"
            f" {2 * config.holdout_every} (2 × dynamics.holdout_every)."
        )
    split = Split(config.holdout_every, jnp.asarray(holdout_seed, jnp.uint32))
    joint = config.reward_model == "joint"
    at_start = trained = None
    if joint:
        fresh = sharing.fresh(key, ring, split, config)
        at_start = sharing.reward_shares(fresh, ring, split, config)
        trained = sharing.reward_shares(state, ring, split, config)
    seen = _held_out(state, holdout(ring, split), config)
    near_floor, near_cap, floor_std, cap_std, rms, score, relative = (
        np.asarray(x, np.float64) for x in seen
    )
    elite_share = elite_shares(score)
    return Scales(
        target_table(in_order(ring), config, names),
        at_start,
        trained,
        near_floor,
        near_cap,
        floor_std,
        cap_std,
        rms,
        elite_share,
        elite_cost(relative, np.asarray(state.elites), int(np.argmax(elite_share))),
        f"{config.target}, {config.scale}",
        config.reward_draw == "sample",
        "held-out" if config.holdout == "persistent" else "training",
    )


@functools.partial(jax.jit, static_argnames="config")
def _held_out(
    state: DynamicsState, batch: Transition, config: DynamicsConfig
) -> tuple[Array, Array, Array, Array, Array, Float[Array, "E D"], Float[Array, "E D"]]:
    """Nearness to bounds, the bounds and rms errors in physical units, scores by dimension, and
    squared errors in the target's variance."""
    scaler = training_scaler(state.statistics, config)
    shift = floor_shift(state.statistics, scaler, config)
    x = state.statistics.input.to_unit(model_input(batch))
    learn_reward = config.reward_model != "given"
    target = model_target(config.target, learn_reward, batch, state.statistics.reversion)
    out = ens.forward(state.ensemble, x, shift)
    low = state.ensemble.logvar_min + shift
    high = state.ensemble.logvar_max

    def near(distance: Array) -> Float[Array, "D"]:
        return jnp.mean((distance < NEAR_A_BOUND).astype(jnp.float32), axis=(0, 1))

    wide = out.logvar.shape
    error = scaler.from_unit(out.mean) - jnp.broadcast_to(target, wide)
    std = state.statistics.target.std
    live = std > 0
    relative = error / jnp.broadcast_to(jnp.where(live, std, 1.0), wide)
    per_row = {
        "raw": error**2,
        "unit": jnp.where(jnp.broadcast_to(live, wide), relative**2, 0.0),
        "nll": ens.nll(out, jnp.broadcast_to(scaler.to_unit(target), wide)),
    }
    rule = config.scale if config.holdout_score == "trained" else config.holdout_score
    return (
        near(out.logvar - jnp.broadcast_to(low, wide)),
        near(jnp.broadcast_to(high, wide) - out.logvar),
        scaler.spread_from_unit(jnp.exp(0.5 * low)),
        scaler.spread_from_unit(jnp.exp(0.5 * high)),
        jnp.sqrt(jnp.mean(error**2, axis=(0, 1))),
        jnp.mean(per_row[rule], axis=1),
        jnp.mean(per_row["unit"], axis=1),
    )
