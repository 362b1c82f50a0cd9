"""The compiled steps of a run: act, observe, fit, learn.

Every function takes the whole state and gives it back donated, samples on the device and never
waits for the host. Shapes depend on the configuration only, so each compiles once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ftfl import replay, sac
from ftfl.config import Config
from ftfl.dynamics import fit as fitting
from ftfl.envs.spec import EnvSpec, require_termination
from ftfl.errors import FtflError
from ftfl.nets import MLP
from ftfl.rollouts import registry
from ftfl.rollouts.generate import Ends, generate, mixed_batch, usable_rows
from ftfl.rollouts.lookahead import look_ahead
from ftfl.rollouts.seeds import any_seed
from ftfl.training import exploration, sentinels, updates
from ftfl.training.state import RunState, Stream, stream_key, with_parts
from ftfl.types import Metrics, Transition


@dataclass(frozen=True)
class Learner:
    """The compiled functions of one configuration on one task."""

    explore: Callable[[RunState], Array]
    """Uniformly random action (A,) of this step."""
    act: Callable[[RunState, Any], Array]
    """A draw from the policy at one observation (O,)."""
    mode: Callable[[MLP, Any], Array]
    """The deterministic action at one observation, from the actor alone."""
    observe: Callable[[RunState, Transition], RunState]
    """Append one real transition (no batch axis) and count the step."""
    fit: Callable[[RunState], tuple[RunState, Metrics]]
    """Refit the dynamics model."""
    learn: Callable[[RunState], tuple[RunState, Metrics]]
    """What one environment step pays for: rollouts, then UTD agent updates."""
    reset_agent: Callable[[RunState], RunState]
    """Fresh networks and optimisers under a fresh key; replay and model stay."""


@dataclass(frozen=True)
class _OfParts:
    """A compiled function that is given only the parts of a state it needs.

    What is called at every step: handing over the hundred arrays of a whole state takes longer than
    the work itself.
    """

    compiled: Any
    parts: Callable[[RunState], tuple[Any, ...]]

    def __call__(self, state: RunState, *rest: Any) -> Any:
        return self.compiled(*self.parts(state), *rest)


@dataclass(frozen=True)
class _Observe:
    """The same for the parts that a transition changes."""

    compiled: Any

    def __call__(self, state: RunState, transition: Transition) -> RunState:
        touched = {k: getattr(state, k) for k in ("real", "env_steps", "mismatches", "alarms")}
        return with_parts(state, self.compiled(touched, transition))


_READS: dict[str, Callable[[RunState], tuple[Any, ...]]] = {
    "explore": lambda s: (s.key, s.env_steps),
    "act": lambda s: (s.agent.actor, s.key, s.env_steps),
}


def require_compatible(config: Config, spec: EnvSpec) -> None:
    """Refuse an algorithm that needs of a task what it does not say."""
    if config.dynamics is None:
        return
    require_termination(spec)
    registry.require(config, spec.obs_dim, spec.act_dim)
    if config.dynamics.reward_model == "given" and spec.reward_fn is None:
        repeat = config.task.action_repeat
        raise FtflError(
            f"dynamics.reward_model=given needs a known reward, and {spec.task} names none"
            + (f" for action_repeat={repeat} (only for 1)" if repeat > 1 else "")
            + ": give its environment a reward_fn (obs, action, next_obs), or use joint or separate"
            " instead."
        )


def make_learner(config: Config, spec: EnvSpec, *, rollouts: bool = True) -> Learner:
    """The functions of this configuration, each compiled at its first call; see ``functions``."""
    written = functions(config, spec, rollouts=rollouts)
    return Learner(**{name: compiled(function, name) for name, function in written.items()})


def compiled(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    """One of ``functions`` jitted; what gives a state back is given its own to consume."""
    if name in _READS:
        return _OfParts(jax.jit(function), _READS[name])
    if name == "mode":
        return jax.jit(function)
    jitted = jax.jit(function, donate_argnums=0)
    return _Observe(jitted) if name == "observe" else jitted


def functions(
    config: Config, spec: EnvSpec, axis: str | None = None, *, rollouts: bool = True
) -> dict[str, Callable[..., Any]]:
    """The functions of this configuration as they are written, for one seed.

    ``explore``, ``act`` and ``observe`` take only the parts of a state they need (``compiled``).

    Args:
        config: of the run.
        spec: of its task.
        axis: name of the axis over which they will be vmapped, along which all are at the same
            learn step; None: they will not be.
        rollouts: False: ``learn`` makes up no new transitions, so that the rest can be timed.

    Raises:
        FtflError: a model-based algorithm on a task without a termination rule, or a given reward
            on a task without a known one.
    """
    require_compatible(config, spec)
    ends = Ends(spec.termination, spec.reward_fn)

    def explore(key: Array, env_steps: Array) -> Float[Array, "A"]:
        key = stream_key(key, Stream.EXPLORE, env_steps)
        return jax.random.uniform(key, (spec.act_dim,), minval=-1.0, maxval=1.0)

    def act(actor: MLP, key: Array, env_steps: Array, obs: Float[Array, "O"]) -> Array:
        drawn_from = sac.policy(actor, obs[None], config.sac)
        return exploration.act(drawn_from, key, env_steps, config.sac)[0]

    def mode(actor: MLP, obs: Float[Array, "O"]) -> Float[Array, "A"]:
        return sac.policy(actor, obs[None], config.sac).mode()[0]

    def observe(parts: dict[str, Any], transition: Transition) -> dict[str, Any]:
        row = jax.tree.map(lambda x: x[None], transition)
        wrong = jnp.int32(0)
        if spec.termination is not None:
            expected = spec.termination(row.obs, row.action, row.next_obs)
            wrong = jnp.sum(expected != row.terminated).astype(jnp.int32)
        return {
            "real": replay.insert(parts["real"], row),
            "env_steps": parts["env_steps"] + 1,
            "mismatches": parts["mismatches"] + wrong,
            "alarms": sentinels.see_rewards(parts["alarms"], row.reward),
        }

    def fit(state: RunState) -> tuple[RunState, Metrics]:
        assert state.dynamics is not None
        assert config.dynamics is not None
        key = stream_key(state.key, Stream.FIT, state.dynamics.refits)
        model, metrics = fitting.fit(
            state.dynamics, state.real, state.holdout, key, config.dynamics, spec.reward_fn
        )
        checked = sentinels.check_refit(
            state.alarms, metrics, model.refits, state.env_steps, config.dynamics
        )
        return dataclasses.replace(state, dynamics=model, alarms=checked), metrics

    def learn(state: RunState) -> tuple[RunState, Metrics]:
        key = stream_key(state.key, Stream.LEARN, state.learn_steps)
        rollout_key, update_key = jax.random.split(key)
        metrics: Metrics = {}
        usable = jnp.int32(0)
        if state.synthetic is not None:
            if rollouts:
                state, metrics = _imagine(state, rollout_key)
            assert state.synthetic is not None
            assert state.screen is not None
            usable = usable_rows(state.synthetic, state.screen, state.env_steps, config)
            metrics["rollout/usable_rows_count"] = usable.astype(jnp.float32)

        def one(agent: sac.SacState, k: Array) -> tuple[sac.SacState, tuple[Metrics, Array]]:
            batch_key, sac_key = jax.random.split(k)
            batch = _batch(state, batch_key)
            scaled = batch._replace(reward=batch.reward * config.agent_reward_scale)
            bad = sentinels.is_bad(scaled)
            if config.rollouts is None or config.rollouts.value_steps == 0:
                agent, updated = sac.update(agent, scaled, sac_key, config.sac)
                return agent, (updated, bad)
            assert state.dynamics is not None
            ahead_key, sac_key = jax.random.split(sac_key)
            ahead = look_ahead(ahead_key, scaled, agent, state.dynamics, ends, config)
            agent, updated = sac.update(agent, ahead.batch, sac_key, config.sac, ahead.discount)
            failed = jnp.mean(ahead.failed.astype(jnp.float32))
            return agent, (updated | {"agent/lookahead_failed_share": failed}, bad)

        agent, (per_update, bad_batch), means = updates.run(
            one, state.agent, update_key, usable, config
        )
        checked, alarming = sentinels.check_updates(
            state.alarms, state.agent, agent, bad_batch, per_update, state.env_steps, spec.act_dim,
            config,
        )  # fmt: skip
        state = dataclasses.replace(
            state, agent=agent, learn_steps=state.learn_steps + 1, alarms=checked
        )
        return state, means | metrics | alarming

    def _imagine(state: RunState, key: Array) -> tuple[RunState, Metrics]:
        assert config.rollouts is not None

        def run(s: RunState) -> tuple[Any, Any, Metrics]:
            assert s.dynamics is not None
            assert s.synthetic is not None
            assert s.screen is not None
            return generate(
                key, s.agent.actor, s.dynamics, s.real, s.synthetic, s.screen, s.env_steps, ends,
                config, axis,
            )  # fmt: skip

        if config.rollouts.every == 1:
            synthetic, screen, metrics = run(state)
        else:
            shapes = jax.eval_shape(run, state)[2]

            def skip(s: RunState) -> tuple[Any, Any, Metrics]:
                return s.synthetic, s.screen, {k: jnp.full((), jnp.nan) for k in shapes}

            due = any_seed(state.learn_steps % config.rollouts.every == 0, axis)
            synthetic, screen, metrics = jax.lax.cond(due, run, skip, state)
        checked = sentinels.check_rollouts(
            state.alarms, metrics, state.agent.updates, state.env_steps
        )
        return (
            dataclasses.replace(state, synthetic=synthetic, screen=screen, alarms=checked),
            metrics,
        )

    def _batch(state: RunState, key: Array) -> Transition:
        if state.synthetic is None or state.screen is None:
            slots = replay.sample_slots(state.real, key, config.sac.batch_size)
            return replay.take(state.real, slots)
        return mixed_batch(key, state.real, state.synthetic, state.screen, state.env_steps, config)

    def reset_agent(state: RunState) -> RunState:
        key = stream_key(state.key, Stream.AGENT_RESET, state.resets)
        fresh = sac.init(key, spec.obs_dim, spec.act_dim, config.sac, spec.view)
        fresh = eqx.tree_at(lambda a: a.updates, fresh, state.agent.updates)
        return dataclasses.replace(
            state,
            agent=fresh,
            resets=state.resets + 1,
            alarms=sentinels.forget_agent(state.alarms),
        )

    written = (explore, act, mode, observe, fit, learn, reset_agent)
    return {function.__name__: function for function in written}
