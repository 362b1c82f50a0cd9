"""What the model knows about rows it never trained on: member scores and the report of a refit."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from ftfl.config import DynamicsConfig
from ftfl.dynamics import ensemble as ens
from ftfl.dynamics.ensemble import Ensemble, Gaussian
from ftfl.dynamics.predict import DynamicsState
from ftfl.dynamics.targets import (
    Statistics,
    floor_shift,
    model_input,
    model_target,
    next_obs_of,
    training_scaler,
)
from ftfl.replay import Replay, Split, take
from ftfl.types import Metrics, RewardFn, Transition


class _Holdout(NamedTuple):
    out: Gaussian
    z: Float[Array, "B D"]
    target: Float[Array, "B D"]
    batch: Transition
    weight: Float[Array, "B"]


def _on_holdout(
    net: Ensemble, replay: Replay, split: Split, unit: Statistics, config: DynamicsConfig
) -> _Holdout:
    """Predictions on held-out rows: all of them, or ``holdout_rows`` spread evenly over time."""
    blocks = split.blocks(replay)
    count = min(config.holdout_rows, max(replay.capacity // config.holdout_every, 1))
    used = jnp.minimum(blocks, count)
    i = jnp.arange(count, dtype=jnp.int32)
    # float32 places up to 2^24 blocks; the clip keeps rounding inside the range.
    stride = blocks.astype(jnp.float32) / used.astype(jnp.float32)
    block = jnp.minimum(jnp.floor(i.astype(jnp.float32) * stride).astype(jnp.int32), blocks - 1)
    batch = take(replay, split.holdout_slot(block))
    scaler = training_scaler(unit, config)
    out = ens.forward(
        net, unit.input.to_unit(model_input(batch)), floor_shift(unit, scaler, config)
    )
    target = model_target(config.target, config.reward_model != "given", batch, unit.reversion)
    weight = (i < used).astype(jnp.float32) / used.astype(jnp.float32)
    return _Holdout(out, scaler.to_unit(target), target, batch, weight)


def holdout_score(
    net: Ensemble, replay: Replay, split: Split, unit: Statistics, config: DynamicsConfig
) -> Float[Array, "E"]:
    """Each member's score on held-out rows; lower is better."""
    h = _on_holdout(net, replay, split, unit, config)
    return _scores(h, unit, config)[_score_name(config)]


def _score_name(config: DynamicsConfig) -> str:
    return config.scale if config.holdout_score == "trained" else config.holdout_score


def _scores(h: _Holdout, unit: Statistics, config: DynamicsConfig) -> dict[str, Array]:
    scaler = training_scaler(unit, config)
    raw_error = scaler.from_unit(h.out.mean) - jnp.broadcast_to(h.target, h.out.mean.shape)
    live = ~unit.target.constant
    unit_error = raw_error / jnp.broadcast_to(
        jnp.where(live, unit.target.std, 1.0), raw_error.shape
    )
    unit_error = jnp.where(jnp.broadcast_to(live, raw_error.shape), unit_error, 0.0)
    weight = jnp.broadcast_to(h.weight[None], raw_error.shape[:2])

    def over_rows(per_output: Array) -> Array:
        return jnp.sum(weight * jnp.mean(per_output, axis=-1), axis=1)

    return {
        "raw": over_rows(raw_error**2),
        "unit": over_rows(unit_error**2),
        "nll": over_rows(ens.nll(h.out, h.z)),
    }


def holdout_report(
    state: DynamicsState,
    replay: Replay,
    split: Split,
    config: DynamicsConfig,
    reward_fn: RewardFn | None = None,
) -> Metrics:
    """What the elites know about held-out rows, as ``model/…`` metrics."""
    unit = state.statistics
    h = _on_holdout(state.ensemble, replay, split, unit, config)
    batch = h.batch
    scores = _scores(h, unit, config)
    scaler = training_scaler(unit, config)
    elite = scaler.from_unit(h.out.mean)[state.elites]
    mean = jnp.mean(elite, axis=0)
    size = batch.obs.shape[-1]
    next_obs = next_obs_of(config.target, batch.obs, mean[:, :size], unit.reversion)
    w = h.weight
    if config.reward_model == "given" and reward_fn is not None:
        average = reward_fn(batch.obs, batch.action, next_obs)
        member = average[None]
    else:
        average, member = mean[:, -1], elite[..., -1]
    centre = jnp.sum(w * batch.reward)
    variance = jnp.sum(w * (batch.reward - centre) ** 2)

    def r2(predicted: Float[Array, "M B"]) -> Float[Array, ""]:
        error = (predicted - jnp.broadcast_to(batch.reward, predicted.shape)) ** 2
        mse = jnp.mean(jnp.sum(error * jnp.broadcast_to(w, error.shape), axis=1))
        return 1.0 - mse / jnp.where(variance > 0, variance, jnp.nan)

    rows = jnp.broadcast_to(w[:, None], batch.obs.shape)
    error = jnp.sum(rows * (next_obs - batch.next_obs) ** 2, axis=0)
    still = jnp.sum(rows * (batch.obs - batch.next_obs) ** 2, axis=0)
    moves = still > 0
    skill = jnp.where(moves, 1.0 - error / jnp.where(moves, still, 1.0), jnp.nan)

    low = state.ensemble.logvar_min + floor_shift(unit, scaler, config)
    floor = scaler.spread_from_unit(jnp.exp(0.5 * low))
    spread = jnp.exp(0.5 * h.out.logvar[state.elites]) * jnp.broadcast_to(
        jnp.where(unit.target.constant, 0.0, scaler.std / _safe(unit.target.std)), elite.shape
    )
    disagreement = jnp.std(elite, axis=0) / jnp.broadcast_to(_safe(unit.target.std), mean.shape)
    live = ~unit.target.constant
    metrics = {
        "model/holdout_mse_raw": jnp.mean(scores["raw"][state.elites]),
        "model/holdout_mse_unit": jnp.mean(scores["unit"][state.elites]),
        "model/holdout_nll_nats": jnp.mean(scores["nll"][state.elites]),
        "model/reward_r2": r2(member),
        "model/reward_r2_averaged": r2(average[None]),
        "model/reward_bias_reward": jnp.sum(w * (average - batch.reward)),
        "model/skill_over_persistence": jnp.nanmedian(skill),
        "model/predicted_std_unit": _weighted(spread, w[None, :, None]),
        "model/disagreement_unit": _weighted(
            jnp.where(jnp.broadcast_to(live, mean.shape), disagreement, 0.0), w[:, None]
        ),
        "model/floor_exceeds_change_channels_count": jnp.sum(
            (floor[:size] > unit.change[:size]) & (unit.change[:size] > 0)
        ).astype(jnp.float32),
        "model/constant_targets_count": jnp.sum(unit.target.constant).astype(jnp.float32),
    }
    if config.reward_model != "given":
        metrics["model/reward_floor_over_std"] = floor[-1] / jnp.where(
            unit.change[-1] > 0, unit.change[-1], jnp.nan
        )
    return metrics


def _safe(x: Array) -> Array:
    return jnp.where(x > 0, x, 1.0)


def _weighted(x: Array, weight: Array) -> Array:
    """Mean over outputs (and members) of the weighted mean over rows."""
    total = jnp.sum(x * jnp.broadcast_to(weight, x.shape), axis=-2)
    return jnp.mean(total)
