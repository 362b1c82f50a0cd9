"""One refit: statistics, per-member bootstrap, holdout checks, stopping, elites, report.

The whole refit is one compiled call whatever the number of stored rows or updates: rows are
found by arithmetic on counters (``replay.Split``), and a member's bootstrap resample is a hash
of (draw number, member seed) rather than a table, so it costs no memory and never repeats a
compilation.
"""

from __future__ import annotations

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, UInt

from ftfl.config import DynamicsConfig
from ftfl.dynamics import ensemble as ens
from ftfl.dynamics.ensemble import Ensemble, Gaussian
from ftfl.dynamics.predict import DynamicsState
from ftfl.dynamics.targets import (
    Scaler,
    Statistics,
    floor_shift,
    measure,
    model_input,
    model_target,
    next_obs_of,
    training_scaler,
)
from ftfl.nets import adam
from ftfl.replay import Replay, Split, mix, take
from ftfl.types import Key, Metrics, RewardFn


class _Progress(NamedTuple):
    ensemble: Ensemble
    optimiser: optax.OptState
    best: Ensemble
    best_score: Float[Array, "E"]
    mark: Float[Array, "E"]  # the score that the next relative improvement is measured from
    score: Float[Array, "E"]
    stale: Int[Array, ""]
    updates: Int[Array, ""]
    checks: Int[Array, ""]
    loss: Float[Array, ""]


def fit(
    state: DynamicsState,
    replay: Replay,
    holdout_seed: UInt[Array, ""],
    key: Key,
    config: DynamicsConfig,
    reward_fn: RewardFn | None = None,
) -> tuple[DynamicsState, Metrics]:
    """Train the warm-started ensemble on what the replay holds.

    Args:
        state: model of the last refit.
        replay: real transitions; at least ``2 × holdout_every`` rows.
        holdout_seed: which rows are held out under ``holdout='persistent'``.
        key: of this refit.
        config: cell, doors, network and training.
        reward_fn: known reward, for ``reward_model='given'``.

    Returns:
        The trained model with new units and elites, and ``model/…`` metrics measured on held-out
        rows.
    """
    seed_key, loop_key = jax.random.split(key)
    member_seed = jax.random.bits(seed_key, (config.members,), jnp.uint32)
    fresh_seed = jax.random.bits(jax.random.fold_in(seed_key, 1), (), jnp.uint32)

    def split_at(check: Int[Array, ""]) -> Split:
        seed = {
            "persistent": holdout_seed,
            "per_refit": fresh_seed,
            "redrawn": mix(fresh_seed + check.astype(jnp.uint32)),
        }[config.holdout]
        return Split(config.holdout_every, seed)

    first = split_at(jnp.int32(0))
    statistics = measure(replay, first, config)
    if config.carry_head and config.scale == "unit":
        moved = _carry_head(state.ensemble, state.statistics.target, statistics.target)
        known = state.refits > 0
        ensemble = jax.tree.map(lambda a, b: jnp.where(known, a, b), moved, state.ensemble)
    else:
        ensemble = state.ensemble

    epoch = -(-first.train_count(replay) // config.batch_size)
    check_every = epoch if config.check_every == 0 else jnp.int32(config.check_every)

    def units(split: Split) -> Statistics:
        # STFL refits its normaliser with every redrawn split; otherwise one measurement serves.
        return measure(replay, split, config) if config.holdout == "redrawn" else statistics

    def body(p: _Progress) -> _Progress:
        split = split_at(p.checks)
        unit = units(split)
        count = jnp.minimum(check_every, config.max_updates - p.updates)

        def one(i: Array, carry: tuple) -> tuple:
            net, optimiser, _ = carry
            k = jax.random.fold_in(loop_key, p.updates + i)
            return _update(net, optimiser, replay, split, unit, member_seed, k, config)

        net, optimiser, loss = jax.lax.fori_loop(
            0, count, one, (p.ensemble, p.optimiser, jnp.float32(0))
        )
        score = holdout_score(net, replay, split, unit, config)
        better = score < p.best_score
        best = jax.tree.map(
            lambda new, old: _per_member(better, new, old, config.members), net, p.best
        )
        counts = (p.mark - score) > config.min_improvement * jnp.abs(p.mark)
        counts = counts | ~jnp.isfinite(p.mark)
        return _Progress(
            net,
            optimiser,
            best,
            jnp.minimum(score, p.best_score),
            jnp.where(counts, score, p.mark),
            score,
            jnp.where(jnp.any(counts), 0, p.stale + 1),
            p.updates + count,
            p.checks + 1,
            loss,
        )

    def unfinished(p: _Progress) -> Array:
        go = p.updates < config.max_updates
        return go & (p.stale < config.patience) if config.early_stopping else go

    worst = jnp.full(config.members, jnp.inf)
    p = jax.lax.while_loop(
        unfinished,
        body,
        _Progress(ensemble, state.optimiser, ensemble, worst, worst, worst, jnp.int32(0),
                  jnp.int32(0), jnp.int32(0), jnp.float32(0)),
    )  # fmt: skip
    split = split_at(p.checks - 1)
    statistics = units(split)
    if config.best_weights:
        trained, score = p.best, p.best_score
    else:
        trained, score = p.ensemble, p.score
    # A member that diverged scores NaN; it must sort last, not first.
    order = jnp.argsort(jnp.where(jnp.isnan(score), jnp.inf, score))
    fitted = DynamicsState(
        ensemble=trained,
        optimiser=p.optimiser,
        statistics=statistics,
        elites=order[: config.elites].astype(jnp.int32),
        updates=state.updates + p.updates,
        refits=state.refits + 1,
    )
    metrics = holdout_report(fitted, replay, split, config, reward_fn)
    return fitted, metrics | {
        "model/train_loss_nats": p.loss,
        "model/updates_count": fitted.updates.astype(jnp.float32),
    }


def bootstrap_rows(
    draw: Int[Array, "*B"], member_seed: UInt[Array, ""], count: Int[Array, ""]
) -> Int[Array, "*B"]:
    """Training row behind each draw of a member's bootstrap resample of ``count`` draws.

    The resample is a fixed multiset of ``count`` rows chosen with replacement, about 63 % of them
    distinct, like a table of random indices.
    """
    hashed = mix(mix(draw.astype(jnp.uint32)) + member_seed)
    return (hashed % jnp.maximum(count, 1).astype(jnp.uint32)).astype(jnp.int32)


def minibatch_rows(
    key: Key, member_seed: UInt[Array, "E"], count: Int[Array, ""], config: DynamicsConfig
) -> Int[Array, "E B"]:
    """Training rows of one update for every member."""
    if config.member_data == "shared":
        rows = jax.random.randint(key, (config.batch_size,), 0, count)
        return jnp.broadcast_to(rows, (config.members, config.batch_size))
    draw = jax.random.randint(key, (config.members, config.batch_size), 0, count)
    return jax.vmap(lambda d, s: bootstrap_rows(d, s, count))(draw, member_seed)


def _update(
    net: Ensemble,
    optimiser: optax.OptState,
    replay: Replay,
    split: Split,
    unit: Statistics,
    member_seed: UInt[Array, "E"],
    key: Key,
    config: DynamicsConfig,
) -> tuple[Ensemble, optax.OptState, Float[Array, ""]]:
    """One Adam step of all members."""
    rows = minibatch_rows(key, member_seed, split.train_count(replay), config)
    batch = take(replay, split.train_slot(rows))
    scaler = training_scaler(unit, config)
    x = unit.input.to_unit(model_input(batch))
    z = scaler.to_unit(model_target(config.target, config.reward_model != "given", batch))
    shift = floor_shift(unit, scaler, config)

    def total(n: Ensemble) -> tuple[Array, Array]:
        model = ens.loss(n, x, z, shift, config)
        if n.termination is None:
            return model, model
        size = batch.obs.shape[-1]
        obs_unit = Scaler(unit.input.mean[:size], unit.input.std[:size])
        next_obs = obs_unit.to_unit(batch.next_obs[0])
        return model + ens.termination_loss(n.termination, next_obs, batch.terminated[0]), model

    (_, value), grads = jax.value_and_grad(total, has_aux=True)(net)
    steps, optimiser = adam(config.learning_rate).update(grads, optimiser)
    return optax.apply_updates(net, steps), optimiser, value


def _per_member(better: Array, new: Array, old: Array, members: int) -> Array:
    """Take ``new`` where the member got better; leaves without a member axis stay new."""
    if new.ndim == 0 or new.ndim == 1 or new.shape[0] != members:
        return new
    return jnp.where(better.reshape(-1, *([1] * (new.ndim - 1))), new, old)


def _carry_head(ensemble: Ensemble, old: Scaler, new: Scaler) -> Ensemble:
    """Rewrite output layers so that predictions in physical units survive new statistics.

    Exact for means: W′ = W c_old/c_new, b′ = (c_old b + m_old − m_new)/c_new. Log-variances shift
    by 2 ln(c_old/c_new) before the soft bound, which is exact away from the bounds
    (ALGORITHMS.md §1.4). Dimensions constant before or now are left alone.
    """
    usable = (old.std > 0) & (new.std > 0)
    divisor = jnp.where(usable, new.std, 1.0)
    ratio = jnp.where(usable, old.std / divisor, 1.0)
    offset = jnp.where(usable, (old.mean - new.mean) / divisor, 0.0)
    start = 0
    trunks = []
    for trunk in ensemble.trunks:
        head = trunk.layers[-1]
        size = head.bias.shape[-1] // 2
        r, o = ratio[start : start + size], offset[start : start + size]
        start += size
        weight = head.weight.at[..., :size].multiply(r[None, None])
        bias = head.bias.at[:, :size].multiply(r[None])
        bias = bias.at[:, :size].add(o[None])
        bias = bias.at[:, size:].add(2.0 * jnp.log(r)[None])
        trunks.append(
            eqx.tree_at(lambda t: (t.layers[-1].weight, t.layers[-1].bias), trunk, (weight, bias))
        )
    return eqx.tree_at(lambda e: e.trunks, ensemble, trunks)


class _Holdout(NamedTuple):
    out: Gaussian
    z: Float[Array, "B D"]
    target: Float[Array, "B D"]
    rows: tuple
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
    target = model_target(config.target, config.reward_model != "given", batch)
    weight = (i < used).astype(jnp.float32) / used.astype(jnp.float32)
    return _Holdout(out, scaler.to_unit(target), target, (batch,), weight)


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
    (batch,) = h.rows
    scores = _scores(h, unit, config)
    scaler = training_scaler(unit, config)
    elite = scaler.from_unit(h.out.mean)[state.elites]
    mean = jnp.mean(elite, axis=0)
    size = batch.obs.shape[-1]
    next_obs = next_obs_of(config.target, batch.obs, mean[:, :size])
    reward = (
        reward_fn(batch.obs, batch.action, next_obs)
        if config.reward_model == "given" and reward_fn is not None
        else mean[:, -1]
    )
    w = h.weight
    centre = jnp.sum(w * batch.reward)
    variance = jnp.sum(w * (batch.reward - centre) ** 2)
    reward_error = jnp.sum(w * (reward - batch.reward) ** 2)
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
        "model/reward_r2": 1.0 - reward_error / jnp.where(variance > 0, variance, jnp.nan),
        "model/reward_bias_reward": jnp.sum(w * (reward - batch.reward)),
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
