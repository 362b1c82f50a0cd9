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
from jaxtyping import Array, Bool, Float, Int, Integer, UInt

from ftfl.config import DynamicsConfig
from ftfl.dynamics import ensemble as ens
from ftfl.dynamics.carry import carry
from ftfl.dynamics.elites import choose_elites
from ftfl.dynamics.ensemble import Ensemble
from ftfl.dynamics.holdout import holdout_report, holdout_score
from ftfl.dynamics.members import train_members
from ftfl.dynamics.predict import DynamicsState
from ftfl.dynamics.renew import find_broken, per_member, renew
from ftfl.dynamics.targets import (
    Statistics,
    floor_shift,
    measure,
    measure_reversion,
    model_input,
    model_target,
    training_scaler,
)
from ftfl.nets import Optimiser
from ftfl.replay import Replay, Split, mix, take
from ftfl.types import Key, Metrics, RewardFn, Transition


class _Progress(NamedTuple):
    ensemble: Ensemble
    optimiser: optax.OptState
    best: Ensemble
    best_score: Float[Array, "E"]
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
    kept = None
    if config.target == "innovation":
        # Chosen once: no network can be rewritten for another κ (dynamics/carry.py).
        kept, before = measure_reversion(replay, first, config), state.statistics.reversion
        if before is not None:
            kept = jnp.where(state.refits > 0, before, kept)
    statistics = measure(replay, first, config, kept)
    if config.carry_statistics:
        moved = carry(state.ensemble, state.statistics, statistics, config)
        known = state.refits > 0
        ensemble = jax.tree.map(lambda a, b: jnp.where(known, a, b), moved, state.ensemble)
    else:
        ensemble = state.ensemble

    check_every = jnp.int32(config.check_every)
    if config.check_every == 0:
        check_every = -(-first.train_count(replay) // config.batch_size)
    if not (config.early_stopping or config.best_weights or config.holdout == "redrawn"):
        check_every = jnp.int32(config.max_updates)  # nobody asks before the end

    def units(split: Split) -> Statistics:
        # STFL refits its normaliser with every redrawn split; otherwise one measurement serves.
        return measure(replay, split, config, kept) if config.holdout == "redrawn" else statistics

    def body(p: _Progress) -> _Progress:
        split = split_at(p.checks)
        unit = units(split)
        count = jnp.minimum(check_every, config.max_updates - p.updates)

        def train(
            net: Ensemble, optimiser: optax.OptState, member: Int[Array, "M"]
        ) -> tuple[Ensemble, optax.OptState, Array]:
            def one(i: Array, so_far: tuple) -> tuple:
                net, optimiser, _ = so_far
                k = jax.random.fold_in(loop_key, p.updates + i)
                rows = minibatch_rows(k, member, member_seed, split.train_count(replay), config)
                batch = take(replay, split.train_slot(rows))
                return _update(net, optimiser, batch, unit, config)

            return jax.lax.fori_loop(0, count, one, (net, optimiser, jnp.float32(0)))

        net, optimiser, loss = train_members(train, p.ensemble, p.optimiser, config)
        score = holdout_score(net, replay, split, unit, config)
        # A diverged member's NaN is never better.
        first_score = jnp.isinf(p.best_score) & jnp.isfinite(score)
        gain = p.best_score - score > config.min_improvement * jnp.abs(p.best_score)
        better = first_score | gain
        return _Progress(
            net,
            optimiser,
            _per_member(better, net, p.best),
            jnp.where(better, score, p.best_score),
            score,
            jnp.where(jnp.any(better), 0, p.stale + 1),
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
        _Progress(ensemble, state.optimiser, ensemble, worst, worst, jnp.int32(0), jnp.int32(0),
                  jnp.int32(0), jnp.float32(0)),
    )  # fmt: skip
    split = split_at(p.checks - 1)
    statistics = units(split)
    if config.best_weights:
        trained, score = p.best, p.best_score
    else:
        trained, score = p.ensemble, p.score
    broken = find_broken(p.optimiser)
    score = jnp.where(broken.members, jnp.inf, score)
    elites = choose_elites(score, config.elites)
    trained, optimiser = renew(trained, p.optimiser, broken, ensemble, elites[0])
    fitted = DynamicsState(
        ensemble=trained,
        optimiser=optimiser,
        statistics=statistics,
        elites=elites,
        updates=state.updates + p.updates,
        refits=state.refits + 1,
    )
    metrics = holdout_report(fitted, replay, split, config, reward_fn)
    return fitted, metrics | {
        "model/train_loss_nats": p.loss,
        "model/updates_count": fitted.updates.astype(jnp.float32),
        "model/dead_members_count": jnp.sum(~jnp.isfinite(score), dtype=jnp.float32),
        "model/renewed_members_count": jnp.sum(broken.members, dtype=jnp.float32),
        "model/renewed_shared_count": broken.shared.astype(jnp.float32),
    }


def bootstrap_rows(
    draw: Integer[Array, "*B"], member_seed: UInt[Array, ""], count: Int[Array, ""]
) -> Int[Array, "*B"]:
    """Training row behind each draw of a member's bootstrap resample of ``count`` draws.

    The resample is a fixed multiset of ``count`` rows chosen with replacement, about 63 % of them
    distinct, like a table of random indices.
    """
    hashed = mix(mix(draw.astype(jnp.uint32)) + member_seed)
    return (hashed % jnp.maximum(count, 1).astype(jnp.uint32)).astype(jnp.int32)


def minibatch_rows(
    key: Key,
    member: Int[Array, "M"],
    member_seed: UInt[Array, "E"],
    count: Int[Array, ""],
    config: DynamicsConfig,
) -> Int[Array, "M B"]:
    """Training rows of one update for these members, whoever else is trained beside them."""
    if config.member_data == "shared":
        rows = jax.random.randint(key, (config.batch_size,), 0, count)
        return jnp.broadcast_to(rows, (*member.shape, config.batch_size))

    def own(m: Array) -> Array:
        # Any 32 bits will do, since they are hashed: ``randint`` would draw twice as many.
        draw = jax.random.bits(jax.random.fold_in(key, m), (config.batch_size,), jnp.uint32)
        return bootstrap_rows(
            draw % jnp.maximum(count, 1).astype(jnp.uint32), member_seed[m], count
        )

    return jax.vmap(own)(member)


def _update(
    net: Ensemble,
    optimiser: optax.OptState,
    batch: Transition,
    unit: Statistics,
    config: DynamicsConfig,
) -> tuple[Ensemble, optax.OptState, Float[Array, ""]]:
    """One Adam step of all members, each on its own rows of ``batch`` (M, B)."""
    scaler = training_scaler(unit, config)
    x = unit.input.to_unit(model_input(batch))
    learn_reward = config.reward_model != "given"
    z = scaler.to_unit(model_target(config.target, learn_reward, batch, unit.reversion))
    shift = floor_shift(unit, scaler, config)

    def total(n: Ensemble) -> tuple[Array, Array]:
        model = ens.loss(n, x, z, shift, config)
        if n.termination is None:
            return model, model
        size = batch.obs.shape[-1]
        # One classifier for all members: it trains on all their rows, so that rare ends are seen.
        next_obs = unit.input.first(size).to_unit(batch.next_obs).reshape(-1, size)
        ends = batch.terminated.reshape(-1)
        return model + ens.termination_loss(n.termination, next_obs, ends), model

    (_, value), grads = jax.value_and_grad(total, has_aux=True)(net)
    net, optimiser = Optimiser(config.learning_rate).step(net, grads, optimiser)
    return net, optimiser, value


def _per_member(better: Bool[Array, "E"], new: Ensemble, old: Ensemble) -> Ensemble:
    """The new members that got better, and the old ones that did not; all else stays new."""
    trunks = per_member(better, new.trunks, old.trunks)
    return eqx.tree_at(lambda e: e.trunks, new, trunks)
