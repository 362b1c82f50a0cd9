"""Models trained anew on one run's own transitions, with equal numbers of updates.

A refit changes one thing and keeps the rest: rows, number of updates, seed. What only decides
after training (which members are elites, how a reward is drawn) or only at the start (bounds and
start of the log-variance, which the network carries with it) does not compile a second time.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ftfl.config import DynamicsConfig
from ftfl.dynamics import fit as fitting
from ftfl.dynamics import predict
from ftfl.dynamics.elites import choose_elites
from ftfl.dynamics.holdout import holdout_score
from ftfl.dynamics.predict import DynamicsState
from ftfl.errors import FtflError
from ftfl.forensics.evidence import Estimate
from ftfl.forensics.moments import ratio_estimate
from ftfl.replay import Replay, Split
from ftfl.types import Key, RewardFn, Transition


def refit(ring: Replay, config: DynamicsConfig, seed: int, updates: int) -> DynamicsState:
    """A fresh model trained for exactly ``updates`` on ``ring``, elites by ``config``'s own rule.

    One stored row in ``config.holdout_every`` is kept for the choice of elites. To measure how
    good the model is, use rows that are not in ``ring`` at all (`rows.held_apart`).

    Args:
        ring: rows to train on.
        config: cell, doors and network; how training stops is overruled.
        seed: of weights, bootstrap and minibatches.
        updates: of every member.
    """
    return elect(train(ring, config, seed, updates), ring, config, seed)


def train(ring: Replay, config: DynamicsConfig, seed: int, updates: int) -> DynamicsState:
    """The first half of ``refit``: members without elites. See ``trains_alike``."""
    key = jax.random.key(seed)
    sizes = ring.rows.obs.shape[1], ring.rows.action.shape[1]
    state = predict.init(jax.random.fold_in(key, 0), *sizes, config)
    fit_key = jax.random.fold_in(key, 1)
    return _fit(state, ring, holdout_seed(seed), fit_key, _plain(config, updates))


def elect(state: DynamicsState, ring: Replay, config: DynamicsConfig, seed: int) -> DynamicsState:
    """The second half: elites among the members that ``train`` made with the same seed."""
    split = Split(config.holdout_every, holdout_seed(seed))
    score = _score(state, ring, split, _scored(config))
    return dataclasses.replace(state, elites=choose_elites(score, config.elites))


def trains_alike(one: DynamicsConfig, other: DynamicsConfig) -> bool:
    """Whether both train the same members, and differ in what follows at most."""
    return one == dataclasses.replace(
        other, holdout_score=one.holdout_score, reward_draw=one.reward_draw
    )


def holdout_seed(seed: int) -> Array:
    """Which rows a refit with this seed holds out."""
    return jax.random.bits(jax.random.fold_in(jax.random.key(seed), 2), (), jnp.uint32)


def _plain(config: DynamicsConfig, updates: int) -> DynamicsConfig:
    """What decides a training of so many updates; the rest as in the defaults."""
    default = DynamicsConfig()
    return dataclasses.replace(
        config,
        max_updates=updates,
        check_every=updates,
        holdout="persistent",
        early_stopping=False,
        best_weights=False,
        carry_statistics=False,  # there is only one refit
        holdout_score=default.holdout_score,
        reward_draw=default.reward_draw,
        logvar_min=default.logvar_min,
        logvar_max=default.logvar_max,
        logvar_start=default.logvar_start,
    )


def _scored(config: DynamicsConfig) -> DynamicsConfig:
    """The same with the rule that ranks members, whatever the number of updates was."""
    return dataclasses.replace(_plain(config, 1), holdout_score=config.holdout_score)


@functools.partial(jax.jit, static_argnames="config")
def _fit(
    state: DynamicsState, ring: Replay, holdout_seed: Array, key: Key, config: DynamicsConfig
) -> DynamicsState:
    return fitting.fit(state, ring, holdout_seed, key, config)[0]


@functools.partial(jax.jit, static_argnames="config")
def _score(state: DynamicsState, ring: Replay, split: Split, config: DynamicsConfig) -> Array:
    return holdout_score(state.ensemble, ring, split, state.statistics, config)


class Predicted(NamedTuple):
    """What each elite says of some rows, in physical units, on the host and in float64."""

    mean: np.ndarray
    """(K, B, D) of [next_obs, reward]; the reward last, also when it is given."""
    std: np.ndarray
    """(K, B, D): what draws add; 0 for a given reward, and where rewards are drawn as means."""
    truth: np.ndarray
    """(B, D)."""


def predictions(
    state: DynamicsState,
    rows: Transition,
    config: DynamicsConfig,
    reward_fn: RewardFn | None = None,
) -> Predicted:
    """Elites' predictions of these rows, as rollouts would draw them.

    Raises:
        FtflError: ``reward_model='given'`` without ``reward_fn``.
    """
    obs, action = jnp.asarray(rows.obs), jnp.asarray(rows.action)
    members = _predict(state, obs, action, _plain(config, 1))
    mean, std = (np.asarray(x, np.float64)[np.asarray(state.elites)] for x in members)
    size = obs.shape[1]
    if config.reward_model == "given":
        if reward_fn is None:
            raise FtflError("reward_model=given needs the task's reward function.")
        given = np.stack(
            [np.asarray(reward_fn(obs, action, jnp.asarray(m, jnp.float32))) for m in mean]
        )
        mean = np.concatenate([mean, given[..., None]], axis=-1)
        std = np.concatenate([std, np.zeros_like(given)[..., None]], axis=-1)
    elif config.reward_draw == "mean":
        std[..., size:] = 0.0
    truth = np.column_stack([rows.next_obs, rows.reward]).astype(np.float64)
    return Predicted(mean, std, truth)


@functools.partial(jax.jit, static_argnames="config")
def _predict(
    state: DynamicsState, obs: Array, action: Array, config: DynamicsConfig
) -> tuple[Array, Array]:
    out = predict.predict(state, obs, action, config)
    return out.mean, out.std


@dataclasses.dataclass(frozen=True)
class Fidelity:
    """How much of the truth a model's draws carry, per output; 1 is perfect, 0 as good as nothing.

    For a channel, nothing is persistence (ŝ′ = s): skill = 1 − MSE(ŝ′)/MSE(s). For the reward it is
    the mean of the rows measured on: R².
    """

    drawn: tuple[Estimate, ...]
    """(D,): of what rollouts put into the synthetic replay: one member's mean and its noise."""
    member: tuple[Estimate, ...]
    """(D,): of one member's mean, without noise."""
    averaged: tuple[Estimate, ...]
    """(D,): of the elites' average, which no rollout uses: it hides what members do."""


def fidelity(found: Predicted, obs: np.ndarray, clusters: np.ndarray | None = None) -> Fidelity:
    """Skill of every channel and R² of the reward, the reward last.

    NaN for a channel that did not change at all and for a constant reward.

    Args:
        found: elites' predictions.
        obs: (B, O) observations the predictions start from.
        clusters: (B,) episode of each row.
    """
    nothing = _nothing(found, obs)
    error = (found.mean - found.truth) ** 2
    averaged = (found.mean.mean(axis=0) - found.truth) ** 2

    def score(squares: np.ndarray) -> tuple[Estimate, ...]:
        return tuple(
            _one_minus(ratio_estimate(top, bottom, clusters))
            for top, bottom in zip(squares.T, (nothing**2).T, strict=True)
        )

    member = error.mean(axis=0)
    return Fidelity(score(member + (found.std**2).mean(axis=0)), score(member), score(averaged))


def reward_line(found: Predicted) -> tuple[float, float, float]:
    """ρ, b and noise of the rewards that elites draw: r̂ = r̄ + b + ρ (r − r̄) + noise.

    Each elite's own line, averaged over elites; NaN for a constant reward.
    """
    told, true = found.mean[..., -1], found.truth[:, -1]
    centred = true - true.mean()
    variance = float(np.mean(centred**2))
    if variance == 0:
        return float("nan"), float("nan"), float("nan")
    slope = told @ centred / (len(true) * variance)
    shift = (told - true).mean(axis=1)
    left = told - true.mean() - shift[:, None] - slope[:, None] * centred
    noise = np.sqrt((left**2 + found.std[..., -1] ** 2).mean(axis=1))
    return float(slope.mean()), float(shift.mean()), float(noise.mean())


def scores(found: Predicted, obs: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of one refit: ``fidelity`` of draws (D,) and of members (D,), and ``reward_line`` (3,).

    A refit that diverged is a result: −∞ where the truth varies, NaN elsewhere.
    """
    if not (np.isfinite(found.mean).all() and np.isfinite(found.std).all()):
        varies = (_nothing(found, obs) ** 2).sum(axis=0) > 0
        worthless = np.where(varies, -np.inf, np.nan)
        return worthless, worthless, np.full(3, np.nan)
    look = fidelity(found, obs)
    drawn, member = (np.array([e.value for e in x]) for x in (look.drawn, look.member))
    return drawn, member, np.array(reward_line(found))


def _nothing(found: Predicted, obs: np.ndarray) -> np.ndarray:
    """Errors of knowing nothing, (B, D): no channel moves, and the reward is its mean."""
    errors = found.truth.copy()
    errors[:, :-1] -= np.asarray(obs, np.float64)
    errors[:, -1] -= found.truth[:, -1].mean()
    return errors


def _one_minus(ratio: Estimate) -> Estimate:
    if np.isinf(ratio.value):
        return dataclasses.replace(ratio, value=float("nan"))
    return Estimate(1 - ratio.value, 1 - ratio.high, 1 - ratio.low, ratio.n, ratio.method)
