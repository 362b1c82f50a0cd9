"""Soft actor-critic (arXiv 1812.05905), one page: state, act, update.

Order inside one update: critic, target network, actor with the new critic, temperature
(docs/algorithms/sac.md). Truncation is not termination: only ``terminated`` stops the bootstrap.
"""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from ftfl.config import SacConfig
from ftfl.nets import MLP, Optimiser, Precision, TanhNormal, orthogonal, stack
from ftfl.types import Key, Metrics, Transition, View


class SacState(eqx.Module):
    """All that the agent is."""

    # networks
    actor: MLP
    critic: MLP  # two critics, stacked
    target_critic: MLP
    log_temperature: Float[Array, ""]
    # optimisers
    actor_optimiser: optax.OptState
    critic_optimiser: optax.OptState
    temperature_optimiser: optax.OptState
    # counters
    updates: Int[Array, ""]


def init(
    key: Key, obs_dim: int, act_dim: int, config: SacConfig, view: View | None = None
) -> SacState:
    """Fresh networks and optimisers; the same key gives the same agent under every algorithm.

    With a ``view`` the agent sees that of an observation, and nothing else of it.
    """
    actor_key, critic_key = jax.random.split(key)
    size = obs_dim if view is None else view.dim
    actor = MLP(actor_key, size, config.hidden, 2 * act_dim, orthogonal, view=view)

    def one_critic(k: Key) -> MLP:
        norm = config.critic_layer_norm
        return MLP(k, size + act_dim, config.hidden, 1, orthogonal, norm, view)

    critic = stack(one_critic, critic_key, 2)
    log_temperature = jnp.log(jnp.float32(config.initial_temperature))
    return SacState(
        actor=actor,
        critic=critic,
        target_critic=jax.tree.map(jnp.copy, critic),
        log_temperature=log_temperature,
        actor_optimiser=Optimiser(config.actor_learning_rate).init(actor),
        critic_optimiser=Optimiser(config.critic_learning_rate).init(critic),
        temperature_optimiser=Optimiser(config.temperature_learning_rate).init(log_temperature),
        updates=jnp.int32(0),
    )


def seen(net: MLP, obs: Float[Array, "*B O"]) -> Float[Array, "*B P"]:
    """What this network of an agent looks at of an observation."""
    return obs if net.view is None else net.view(obs)


def policy(
    actor: MLP, obs: Float[Array, "B O"], config: SacConfig, precision: Precision = "float32"
) -> TanhNormal:
    """π(·|s) for a batch of observations; only updates ask for another precision."""
    mean, raw = jnp.split(actor(seen(actor, obs), jax.nn.relu, precision), 2, axis=-1)
    low, high = config.log_std_min, config.log_std_max
    if config.log_std_map == "tanh":
        log_std = low + 0.5 * (high - low) * (1.0 + jnp.tanh(raw))
    else:
        log_std = jnp.clip(raw, low, high)
    return TanhNormal(mean, log_std)


def q_values(
    critic: MLP,
    obs: Float[Array, "B O"],
    action: Float[Array, "B A"],
    precision: Precision = "float32",
) -> Float[Array, "2 B"]:
    """Both critics' Q(s, a), in the agent's reward unit."""
    x = jnp.concatenate([seen(critic, obs), action], axis=-1)
    return jax.vmap(lambda net: net(x, jax.nn.relu, precision)[:, 0])(critic)


def critic_target(
    state: SacState,
    batch: Transition,
    key: Key,
    config: SacConfig,
    discount: Float[Array, "B"] | None = None,
) -> Float[Array, "B"]:
    """y = r + γ (1 − terminated) (min Q̄(s′, a′) − α log π(a′|s′)); rewards already scaled.

    ``discount`` replaces γ row by row where r already sums several steps.
    """
    next_action, log_prob = policy(state.actor, batch.next_obs, config, config.precision).sample(
        key
    )
    next_q = jnp.min(
        q_values(state.target_critic, batch.next_obs, next_action, config.precision), axis=0
    )
    value = next_q - jnp.exp(state.log_temperature) * log_prob
    bootstrap = jnp.where(batch.terminated, 0.0, value)
    return batch.reward + (config.discount if discount is None else discount) * bootstrap


def critic_loss(
    critic: MLP, batch: Transition, target: Float[Array, "B"], config: SacConfig
) -> tuple[Float[Array, ""], Float[Array, "2 B"]]:
    """weight × mean over rows of Σ over both critics of (Q − y)²."""
    q = q_values(critic, batch.obs, batch.action, config.precision)
    return config.critic_loss_weight * jnp.mean(jnp.sum((q - target[None]) ** 2, axis=0)), q


def actor_loss(
    actor: MLP, state: SacState, obs: Float[Array, "B O"], key: Key, config: SacConfig
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """mean of α log π − min Q, and the entropy estimate −mean log π in nats."""
    action, log_prob = policy(actor, obs, config, config.precision).sample(key)
    q = jnp.min(q_values(state.critic, obs, action, config.precision), axis=0)
    return jnp.mean(jnp.exp(state.log_temperature) * log_prob - q), -jnp.mean(log_prob)


def temperature_loss(
    log_temperature: Float[Array, ""],
    entropy: Float[Array, ""],
    target_entropy: float,
    config: SacConfig,
) -> Float[Array, ""]:
    """α (H − H̄), or log α (H − H̄): too little entropy raises the temperature."""
    alpha = jnp.exp(log_temperature) if config.temperature_loss == "alpha" else log_temperature
    return alpha * (entropy - target_entropy)


def target_entropy(act_dim: int, config: SacConfig) -> float:
    """H̄ in nats."""
    if config.target_entropy is not None:
        return config.target_entropy
    return config.target_entropy_per_action * act_dim


def update(
    state: SacState,
    batch: Transition,
    key: Key,
    config: SacConfig,
    discount: Float[Array, "B"] | None = None,
) -> tuple[SacState, Metrics]:
    """One gradient update of critic, target, actor and temperature, in that order."""
    target_key, actor_key = jax.random.split(key)
    target = jax.lax.stop_gradient(critic_target(state, batch, target_key, config, discount))
    (c_loss, q), grads = jax.value_and_grad(critic_loss, has_aux=True)(
        state.critic, batch, target, config
    )
    critic, critic_optimiser = Optimiser(config.critic_learning_rate).step(
        state.critic, grads, state.critic_optimiser
    )
    rate = config.target_update_rate
    target_critic = jax.tree.map(
        lambda old, new: (1.0 - rate) * old + rate * new, state.target_critic, critic
    )
    state = eqx.tree_at(
        lambda s: (s.critic, s.target_critic, s.critic_optimiser),
        state,
        (critic, target_critic, critic_optimiser),
    )

    (a_loss, entropy), grads = jax.value_and_grad(actor_loss, has_aux=True)(
        state.actor, state, batch.obs, actor_key, config
    )
    actor, actor_optimiser = Optimiser(config.actor_learning_rate).step(
        state.actor, grads, state.actor_optimiser
    )

    grad = jax.grad(temperature_loss)(
        state.log_temperature, entropy, target_entropy(batch.action.shape[-1], config), config
    )
    log_temperature, temperature_optimiser = Optimiser(config.temperature_learning_rate).step(
        state.log_temperature, grad, state.temperature_optimiser
    )
    state = eqx.tree_at(
        lambda s: (
            s.actor, s.actor_optimiser, s.log_temperature, s.temperature_optimiser, s.updates
        ),
        state,
        (
            actor,
            actor_optimiser,
            log_temperature,
            temperature_optimiser,
            state.updates + 1,
        ),
    )  # fmt: skip
    return state, {
        "agent/critic_loss": c_loss,
        "agent/actor_loss": a_loss,
        "agent/temperature": jnp.exp(state.log_temperature),
        "agent/entropy_nats": entropy,
        "agent/q_mean_scaled": jnp.mean(q),
        "agent/target_q_mean_scaled": jnp.mean(target),
        "agent/q_max_abs_scaled": jnp.max(jnp.abs(q)),
    }
