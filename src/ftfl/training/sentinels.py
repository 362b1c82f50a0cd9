"""Sentinels: what must never be seen in a healthy run, noticed inside the compiled steps.

Every watched quantity remembers when it first went bad. Of what is not finite, only the first in
the order of computation is remembered: all that is computed from it follows within an update, and
users should read the cause. Nothing here feeds back into learning. What is remembered and told is
in ``ftfl.training.alarms``; thresholds and their reasons are in docs/sentinels.md.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ftfl import sac
from ftfl.config import Config, DynamicsConfig
from ftfl.sac import SacState
from ftfl.training import alarms as memory
from ftfl.training.alarms import Alarms, Quantity, note, note_first
from ftfl.types import Metrics, Transition

Q_FACTOR = 2.0
"""Q may pass its bound by this factor: networks err where they have no data."""
NATS_PER_ACTION = 5.0
"""So far below its target, per action dimension, entropy is dead: 1/150 of the spread aimed at."""
MEMORIES = 5.0
"""Q and entropy must stay bad for so many memories (1/τ updates) of the target network."""


def see_rewards(alarms: Alarms, reward: Float[Array, "*B"]) -> Alarms:
    """Note real rewards, logged ones included, as the environment paid them."""
    # One that is not finite is told when it is sampled; here it would lift the bound for good.
    largest = jnp.max(jnp.where(jnp.isfinite(reward), jnp.abs(reward), 0.0))
    return dataclasses.replace(alarms, largest_reward=jnp.maximum(alarms.largest_reward, largest))


def forget_agent(alarms: Alarms) -> Alarms:
    """After a reset of the agent: its fresh networks are measured anew."""
    new = memory.init()
    return dataclasses.replace(alarms, entropy_value=new.entropy_value, since=new.since)


def q_bound(alarms: Alarms, bonus: Float[Array, ""], config: Config) -> Float[Array, ""]:
    """The largest |Q| that rewards seen and entropy allow: r_max/(1−γ) + γ (E + α h).

    ``bonus`` is α h. A critic target is y = r + γ (min Q̄(s′, a′) − α log π(a′|s′)), whose mean over
    a′ is r + γ (⟨min Q̄⟩ + α H). If |Q̄| ≤ r_max/(1−γ) + E for the target network, then with h ≥ |H|

        |⟨y⟩| ≤ r_max + γ (r_max/(1−γ) + E + α h) = r_max/(1−γ) + γ (E + α h),

    which also bounds a critic that fits its targets. The target network follows it by τ an update:

        E ← (1−τ) E + τ γ (E + α h),   which rests at γ α h / (1−γ).

    h: entropy on [−1, 1]^A is at most |A| log 2 (the uniform policy) but has no lower end, and soft
    values may lie far below −r_max/(1−γ) where a policy is saturated, as fresh actors often are. So
    h = max(|A| log 2, −H) with H as measured. E begins with what fresh critics say of their first
    batch and is forgotten as fast as bootstrapping forgets, by τ (1−γ) an update, so that a short
    while of high temperature or of saturation loosens the bound little.
    """
    gamma = config.sac.discount
    largest = alarms.largest_reward * config.agent_reward_scale
    return largest / (1.0 - gamma) + gamma * (jnp.maximum(alarms.entropy_value, 0.0) + bonus)


def is_bad(batch: Transition) -> Bool[Array, "2"]:
    """Whether a batch's states or actions, and whether its rewards, are not all finite."""
    # A sum is not finite if a term is not, and costs less than asking each.
    rows = jnp.sum(batch.obs) + jnp.sum(batch.action) + jnp.sum(batch.next_obs)
    return ~jnp.isfinite(jnp.stack([rows, jnp.sum(batch.reward)]))


def check_refit(
    alarms: Alarms,
    metrics: Metrics,
    refits: Int[Array, ""],
    env_steps: Int[Array, ""],
    config: DynamicsConfig,
) -> Alarms:
    """After a refit, from its metrics.

    Fatal is a refit that no member survives or that breaks what members share; other dead members
    are a warning, because the living ones carry on.
    """
    dead, renewed = metrics["model/dead_members_count"], metrics["model/renewed_members_count"]
    none_left = dead == config.members
    shared = metrics["model/renewed_shared_count"] > 0
    bad = jnp.stack(
        [
            none_left & ~jnp.isfinite(metrics["model/train_loss_nats"]),
            none_left & (renewed > 0) | shared,
            none_left,
        ]
    )
    alarms = note_first(alarms, Quantity.MODEL_LOSS, bad[:, None], refits, env_steps)
    count = jnp.where(none_left, 0.0, dead).astype(jnp.int32)
    return note(alarms, Quantity.DEAD_MEMBER, count[None], refits[None], env_steps[None])


def check_rollouts(
    alarms: Alarms, metrics: Metrics, updates: Int[Array, ""], env_steps: Int[Array, ""]
) -> Alarms:
    """After a batch of branches, from its metrics (NaN when none was due)."""
    names = ("rollout/nonfinite_rows_count", "rollout/absurd_rows_count")
    count = jnp.nan_to_num(jnp.stack([metrics[name] for name in names])).astype(jnp.int32)
    now = jnp.broadcast_to(updates, (2,)), jnp.broadcast_to(env_steps, (2,))
    return note(alarms, Quantity.NONFINITE_ROWS, count, *now)


def check_updates(
    alarms: Alarms,
    before: SacState,
    after: SacState,
    bad_batch: Bool[Array, "U 2"],
    per_update: Metrics,
    env_steps: Int[Array, ""],
    act_dim: int,
    config: Config,
) -> tuple[Alarms, Metrics]:
    """After one learn step; with what the step's metrics say of all this.

    Args:
        alarms: so far.
        before: the agent before its updates.
        after: the agent after them.
        bad_batch: ``is_bad`` of each update's batch.
        per_update: the metrics of ``sac.update``, each of shape (U,).
        env_steps: environment steps so far.
        act_dim: |A|.
        config: of the run.
    """
    bad = _agent_is_bad(before, after, bad_batch, per_update)
    alarms = note_first(alarms, Quantity.REPLAY_ROWS, bad, before.updates, env_steps)
    alarms, bonus = _follow_entropy(alarms, before, per_update, act_dim, config)
    bound = q_bound(alarms, bonus, config)
    lowest = sac.target_entropy(act_dim, config.sac) - NATS_PER_ACTION * act_dim
    high = jnp.min(per_update["agent/q_max_abs_scaled"]) > Q_FACTOR * bound
    dead = jnp.mean(per_update["agent/entropy_nats"]) < lowest
    alarms = _note_lasting(alarms, jnp.stack([high, dead]), before, after, env_steps, config)
    fatal, warnings = memory.raised(alarms)
    return alarms, {
        "agent/q_bound_scaled": bound,
        "sentinel/fatal_count": fatal.astype(jnp.float32),
        "sentinel/warnings_count": warnings.astype(jnp.float32),
    }


def _agent_is_bad(
    before: SacState, after: SacState, bad_batch: Bool[Array, "U 2"], per_update: Metrics
) -> Bool[Array, "8 M"]:
    """From ``REPLAY_ROWS`` to ``TEMPERATURE``: what is bad at moment m, in update m or after it.

    Parameters show in the values of the next update: the actor's in entropy, the critic's in Q.
    After the last update they show in Adam's second moments, the running squares of all gradients:
    not finite once a gradient was not, nor once its square overflowed, which leaves parameters
    finite but never moves them again.
    """
    wrong = {name: ~jnp.isfinite(values) for name, values in per_update.items()}
    rows, rewards = bad_batch[:, 0], bad_batch[:, 1]
    temperature = ~jnp.isfinite(before.log_temperature)

    def during(x: Bool[Array, "U"]) -> Bool[Array, "M"]:
        return jnp.concatenate([jnp.zeros(1, bool), x])

    def left(seen_next: Bool[Array, "U"], optimiser: Any) -> Bool[Array, "M"]:
        squares = jnp.stack([jnp.sum(x) for x in jax.tree.leaves(optimiser[0].nu)])
        # A row that is not finite would give the same picture.
        return jnp.concatenate([seen_next & ~rows, ~jnp.isfinite(jnp.sum(squares))[None]])

    return jnp.stack(
        [
            during(rows),
            during(rewards),
            during(wrong["agent/target_q_mean_scaled"]),
            during(wrong["agent/critic_loss"]),
            left(wrong["agent/q_mean_scaled"], after.critic_optimiser),
            during(wrong["agent/actor_loss"]),
            left(wrong["agent/entropy_nats"], after.actor_optimiser),
            jnp.concatenate([temperature[None], wrong["agent/temperature"]]),
        ]
    )


def _follow_entropy(
    alarms: Alarms, before: SacState, per_update: Metrics, act_dim: int, config: Config
) -> tuple[Alarms, Float[Array, ""]]:
    """E of ``q_bound`` after these updates, and the largest α h among them."""
    gamma, tau = config.sac.discount, config.sac.target_update_rate
    entropy, temperature = per_update["agent/entropy_nats"], per_update["agent/temperature"]
    alpha = jnp.maximum(jnp.max(temperature), jnp.exp(before.log_temperature))
    bonus = alpha * jnp.maximum(act_dim * math.log(2.0), -jnp.min(entropy))
    first = per_update["agent/q_max_abs_scaled"][0]
    old = jnp.where(alarms.entropy_value < 0, first, alarms.entropy_value)
    kept = (1.0 - tau * (1.0 - gamma)) ** entropy.shape[0]
    new = kept * old + (1.0 - kept) * bonus * (gamma / (1.0 - gamma))
    # What is not finite is told elsewhere, and must not silence the bound for good.
    new = jnp.where(jnp.isfinite(new), new, alarms.entropy_value)
    return dataclasses.replace(alarms, entropy_value=new), bonus


def _note_lasting(
    alarms: Alarms,
    bad: Bool[Array, "2"],
    before: SacState,
    after: SacState,
    env_steps: Int[Array, ""],
    config: Config,
) -> Alarms:
    """Raise what has been bad for longer than a start or a reset explains, dated back."""
    now = jnp.stack([before.updates, env_steps])
    since = jnp.where(alarms.since < 0, now[None], alarms.since)
    since = jnp.where(bad[:, None], since, -1)
    so_far, own = after.updates - since[:, 0], after.updates - before.updates
    patience = math.ceil(MEMORIES / config.sac.target_update_rate)
    known = alarms.record[Quantity.Q_VALUES :, 0] >= 0
    count = jnp.where(bad & (so_far >= patience), jnp.where(known, own, so_far), 0)
    alarms = dataclasses.replace(alarms, since=since)
    return note(alarms, Quantity.Q_VALUES, count, since[:, 0] + 1, since[:, 1])
