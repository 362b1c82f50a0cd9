"""Branches of synthetic transitions from real states, written into the synthetic replay.

Starts are drawn uniformly from all real states; at every step every row draws one elite of its
own and an action from the current policy; rows that terminate, or that a screen stops, end
(MBPO, arXiv 1906.08253 §4). Length is a traced number: schedules never recompile.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ftfl import sac
from ftfl.config import Config
from ftfl.dynamics import predict as dyn
from ftfl.dynamics.predict import DynamicsState
from ftfl.nets import MLP
from ftfl.replay import Replay, insert, newest, sample_slots, take
from ftfl.rollouts import registry
from ftfl.rollouts.draws import draw
from ftfl.rollouts.memory import Memory, calibrated, older
from ftfl.rollouts.screens import ScreenRule
from ftfl.rollouts.seeds import any_seed
from ftfl.types import Key, Metrics, RewardFn, TerminationFn, Transition

_ABSURD_STDS = 1e4
"""No row of n lies farther than √(n − 1) standard deviations from the mean of all n (Samuelson's
inequality): this is ten times what a replay of a million rows can hold."""


class Ends(NamedTuple):
    """How synthetic rows end and pay: closed forms of the task, or what the model learned."""

    termination: TerminationFn | None
    """None: ask the model's own classifier."""
    reward: RewardFn | None


class _World(NamedTuple):
    """What stays the same through a batch of branches."""

    actor: MLP
    dynamics: DynamicsState
    ends: Ends
    rule: ScreenRule
    length: Int[Array, ""]
    config: Config


_SUMS = (
    "stored",
    "alive",
    "ended",
    "broken",
    "absurd",
    "reward",
    "square",
    "penalty",
    "uncertainty",
)


class _Branch(NamedTuple):
    obs: Float[Array, "B O"]
    active: Bool[Array, "B"]
    synthetic: Replay
    screen: Any
    sums: dict[str, Array]


def length_at(env_steps: Int[Array, ""], config: Config) -> Int[Array, ""]:
    """Branch length of the schedule at this step ("[e0,e1,l0,l1]" of MBPO, truncated)."""
    assert config.rollouts is not None
    first, last, before, after = config.rollouts.length
    share = (env_steps - first).astype(jnp.float32) / float(last - first)
    length = before + jnp.clip(share, 0.0, 1.0) * (after - before)
    return jnp.floor(length + 1e-4).astype(jnp.int32)


def kept_rows(env_steps: Int[Array, ""], config: Config) -> Int[Array, ""]:
    """Newest synthetic rows that training may use now: retention follows branch length."""
    assert config.rollouts is not None
    return length_at(env_steps, config) * (
        config.rollouts.retention_steps * config.rollouts.per_step
    )


def usable_rows(
    synthetic: Replay, memory: Memory, env_steps: Int[Array, ""], config: Config
) -> Int[Array, ""]:
    """Newest synthetic rows that training may use now."""
    if memory.stored is None:
        return jnp.minimum(synthetic.size, kept_rows(env_steps, config))
    return jnp.minimum(synthetic.size, jnp.sum(memory.stored))


def generate(
    key: Key,
    actor: MLP,
    dynamics: DynamicsState,
    real: Replay,
    synthetic: Replay,
    memory: Memory,
    env_steps: Int[Array, ""],
    ends: Ends,
    config: Config,
    axis: str | None = None,
) -> tuple[Replay, Memory, Metrics]:
    """Start ``per_step × every`` branches and append what they bring to ``synthetic``.

    ``axis`` is the one that seeds are vmapped over, if any.

    Returns:
        The synthetic replay, what rollouts remember, and ``rollout/…`` metrics of this batch.
    """
    assert config.rollouts is not None
    assert config.dynamics is not None
    total = config.rollouts.per_step * config.rollouts.every
    chunks, rows = config.rollouts.chunks
    rule = registry.build(config, real.rows.obs.shape[1])
    world = _World(actor, dynamics, ends, rule, length_at(env_steps, config), config)
    memory = calibrated(jax.random.fold_in(key, chunks), memory, rule, dynamics, real, config, axis)
    zero = {k: jnp.float32(0) for k in _SUMS}

    def chunk(i: Array, carry: tuple) -> tuple:
        synthetic, screen, sums = carry
        start_key, branch_key = jax.random.split(jax.random.fold_in(key, i))
        obs = take(real, sample_slots(real, start_key, rows)).obs
        # The last chunk may be asked for fewer rows than its shape holds.
        active = jnp.arange(rows, dtype=jnp.int32) + i * rows < total

        def going(carry: tuple[Array, _Branch]) -> Bool[Array, ""]:
            t, b = carry
            return any_seed((t < world.length) & jnp.any(b.active), axis)

        def step(carry: tuple[Array, _Branch]) -> tuple[Array, _Branch]:
            t, b = carry
            b = b._replace(active=b.active & (t < world.length))
            return t + 1, _step(jax.random.fold_in(branch_key, t), t, b, world)

        start = (jnp.int32(0), _Branch(obs, active, synthetic, screen, sums))
        _, b = jax.lax.while_loop(going, step, start)
        return b.synthetic, b.screen, b.sums

    synthetic, screen, sums = jax.lax.fori_loop(0, chunks, chunk, (synthetic, memory.screen, zero))
    memory = older(memory, screen, sums["stored"])
    return synthetic, memory, _metrics(sums, world.length)


def _metrics(sums: dict[str, Array], length: Int[Array, ""]) -> Metrics:
    stored, alive = jnp.maximum(sums["stored"], 1.0), jnp.maximum(sums["alive"], 1.0)
    mean = sums["reward"] / stored
    spread = jnp.sqrt(jnp.maximum(sums["square"] / stored - mean**2, 0.0))
    return {
        "rollout/synthetic_reward_mean_reward": mean,
        "rollout/synthetic_reward_std_reward": spread,
        "rollout/penalty_mean_reward": sums["penalty"] / stored,
        "rollout/uncertainty_mean_screen": sums["uncertainty"] / alive,
        "rollout/terminated_share": sums["ended"] / stored,
        "rollout/nonfinite_rows_count": sums["broken"],
        "rollout/absurd_rows_count": sums["absurd"],
        "rollout/kept_share": sums["stored"] / alive,
        "rollout/length_steps": length.astype(jnp.float32),
        "rollout/rows_count": sums["stored"],
    }


def _step(key: Key, t: Int[Array, ""], b: _Branch, world: _World) -> _Branch:
    config, dynamics, ends = world.config, world.dynamics, world.ends
    assert config.rollouts is not None
    assert config.dynamics is not None
    act_key, elite_key, noise_key, screen_key = jax.random.split(key, 4)
    rows = b.obs.shape[0]
    action, _ = sac.policy(world.actor, b.obs, config.sac).sample(act_key)
    shown = draw(elite_key, noise_key, dynamics, b.obs, action, world.length, ends.reward, config)
    judged = world.rule.screen(screen_key, shown, t, b.active, b.screen)
    penalty = shown.reward - judged.reward
    paid = judged.reward
    if config.dynamics.reward_model == "given":
        assert ends.reward is not None
        # A screen may have moved the next observation, which the known reward may depend on.
        paid = ends.reward(b.obs, action, judged.next_obs) - penalty

    if ends.termination is None:
        terminated = dyn.learned_termination(dynamics, judged.next_obs)
    else:
        terminated = ends.termination(b.obs, action, judged.next_obs)
    finite = jnp.all(jnp.isfinite(judged.next_obs), axis=-1) & jnp.isfinite(paid)
    store = b.active & judged.store & finite
    synthetic = insert(
        b.synthetic, Transition(b.obs, action, paid, judged.next_obs, terminated), store
    )
    measure = jnp.zeros(rows) if judged.uncertainty is None else judged.uncertainty
    news = {
        "stored": store,
        "alive": b.active,
        "ended": store & terminated,
        "broken": b.active & ~finite,
        "absurd": store & _absurd(judged.next_obs, dynamics),
        "reward": jnp.where(store, paid, 0.0),
        "square": jnp.where(store, paid, 0.0) ** 2,
        "penalty": jnp.where(store, penalty, 0.0),
        "uncertainty": jnp.where(b.active & jnp.isfinite(measure), measure, 0.0),
    }
    return _Branch(
        obs=jnp.where(finite[:, None], judged.next_obs, 0.0),
        active=b.active & judged.proceed & finite & ~terminated,
        synthetic=synthetic,
        screen=judged.state,
        sums={k: b.sums[k] + jnp.sum(news[k].astype(jnp.float32)) for k in _SUMS},
    )


def _absurd(next_obs: Float[Array, "B O"], dynamics: DynamicsState) -> Bool[Array, "B"]:
    """Rows farther out than any that the model was fitted to could be."""
    known = dynamics.statistics.input.first(next_obs.shape[-1])
    return jnp.any(jnp.abs(known.to_unit(next_obs)) > _ABSURD_STDS, axis=-1)


def mixed_batch(
    key: Key,
    real: Replay,
    synthetic: Replay,
    memory: Memory,
    env_steps: Int[Array, ""],
    config: Config,
) -> Transition:
    """One update batch with exactly the real share asked for, or all of one kind by a coin's fall.

    While no synthetic row is usable (a screen kept none), real rows take their places.
    """
    assert config.rollouts is not None
    size = config.sac.batch_size
    valid = usable_rows(synthetic, memory, env_steps, config)
    some = valid > 0
    if config.rollouts.real_draw == "coin":
        coin_key, real_key, synthetic_key = jax.random.split(key, 3)
        some &= jax.random.uniform(coin_key) >= config.rollouts.real_ratio
        invented = size
    else:
        real_key, synthetic_key = jax.random.split(key)
        # The allowance: 1 − 0.8 is a little below 0.2 in binary, and ten rows then lack one.
        invented = int(size * (1.0 - config.rollouts.real_ratio) + 1e-9)
    real_rows = take(real, sample_slots(real, real_key, size))
    age = jax.random.randint(synthetic_key, (invented,), 0, jnp.maximum(valid, 1))
    synthetic_rows = take(synthetic, newest(synthetic, age))
    return jax.tree.map(
        lambda s, r: jnp.concatenate([jnp.where(some, s, r[:invented]), r[invented:]]),
        synthetic_rows,
        real_rows,
    )
