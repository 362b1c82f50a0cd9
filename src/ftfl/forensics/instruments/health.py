"""Critic health: is the critic broken by itself, whatever the model does?

SAC with many updates a step fails on some tasks without any model (docs/algorithms/sac.md). Before
synthetic data are blamed, the critic is asked four things, each beside what a fresh one of the same
shape answers on the same rows: units that no longer fire, the rank of its features, the size of its
weights, and whether its values are possible at all.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ftfl import sac
from ftfl.config import SacConfig
from ftfl.errors import FtflError
from ftfl.forensics.account import possible_values
from ftfl.forensics.evidence import Estimate, Finding, Numbers, mean_estimate
from ftfl.forensics.instruments.health_findings import health_findings
from ftfl.nets import MLP
from ftfl.sac import SacState
from ftfl.types import Key, Transition

DORMANT = 0.025
"""A unit is dormant if its mean activation is at most this share of its layer's mean. The
definition is Sokar et al. 2023 (arXiv 2302.12902)."""
RANK_SHARE = 0.99
"""The effective rank is the number of singular values that hold this share of their sum (Kumar et
al. 2020, arXiv 2010.14498, δ = 0.01)."""
_DRAWS, _SLACK = 16, 0.05
"""From the policy at each row, for its entropy there."""


@dataclass(frozen=True)
class CriticHealth:
    """The result of `critic_health`; lists have one row a critic and one column a hidden layer."""

    dormant: np.ndarray
    """(2, L): share of dormant units."""
    dormant_fresh: np.ndarray
    rank: np.ndarray
    """(2,): effective rank of the last hidden layer's features."""
    rank_fresh: np.ndarray
    weight_growth: np.ndarray
    """(2, L + 1): root mean square of each kernel over a fresh one's."""
    q_mean: Estimate
    """Mean of the smaller Q over rows, in the agent's reward unit."""
    q_range: tuple[float, float]
    """Lowest and highest Q of either critic."""
    possible: tuple[float, float]
    """What Q can be, with rewards as those met; 0 is possible, for a critic begins there."""
    twin_gap: Estimate
    """Mean |Q₁ − Q₂| over rows."""
    updates: int
    temperature: float
    """α, in the agent's reward unit."""
    temperature_began: float
    entropy_bonus: float
    """α |A| log 2: the most that entropy can add to a step's reward."""
    reward_std: float
    """Of the rows' rewards, in the agent's unit."""

    @property
    def q_over_bound(self) -> float:
        """The largest Q over the largest possible one, or the lowest over the lowest.

        Above 1, some Q is impossible; NaN where one is not finite. A bound near 0 counts as a
        twentieth of the width: it rests on sampled rows, and a little beyond it means nothing.
        """
        (lowest, highest), (low, high) = self.q_range, self.possible
        least = max(_SLACK * (high - low), 1e-30)
        return float(np.max([highest / max(high, least), lowest / min(low, -least)]))

    def numbers(self) -> Numbers:
        """Everything, by name."""
        return {
            "updates": self.updates,
            "dormant_share": self.dormant.tolist(),
            "dormant_share_fresh": self.dormant_fresh.tolist(),
            "effective_rank": self.rank.tolist(),
            "effective_rank_fresh": self.rank_fresh.tolist(),
            "weight_growth": self.weight_growth.tolist(),
            "q_mean_scaled": self.q_mean,
            "q_lowest_scaled": self.q_range[0],
            "q_highest_scaled": self.q_range[1],
            "q_lowest_possible_scaled": self.possible[0],
            "q_highest_possible_scaled": self.possible[1],
            "q_over_bound": self.q_over_bound,
            "twin_gap_scaled": self.twin_gap,
            "temperature_scaled": self.temperature,
            "temperature_at_start_scaled": self.temperature_began,
            "entropy_bonus_scaled": self.entropy_bonus,
            "reward_std_scaled": self.reward_std,
        }

    def findings(self) -> list[Finding]:
        """Signs that the critic itself has failed."""
        return health_findings(self)


def critic_health(
    agent: SacState,
    rows: Transition,
    config: SacConfig,
    key: Key,
    reward_scale: float = 1.0,
    paid: tuple[float, float] = (0.0, 0.0),
    episode: np.ndarray | None = None,
) -> CriticHealth:
    """Look at both critics on real rows.

    Args:
        agent: the trained agent.
        rows: real transitions; a few thousand spread over the replay.
        config: the agent's.
        key: of the fresh critic and of one draw from the policy.
        reward_scale: what the agent multiplies stored rewards by (``Config.agent_reward_scale``).
        paid: lowest and highest stored reward ever met, where that is beyond these rows.
        episode: of each row; None: rows are independent.

    Raises:
        FtflError: fewer rows than the last hidden layer has units, which limits the rank.
    """
    count, width = rows.reward.shape[0], config.hidden[-1]
    if count < width:
        raise FtflError(
            f"{count} rows cannot show the rank of {width} features: critic health needs at least"
            f" {width} rows."
        )
    rows = jax.tree.map(jnp.asarray, rows)
    fresh_key, policy_key = jax.random.split(key)
    size, act_dim, view = rows.obs.shape[1], rows.action.shape[1], agent.critic.view
    fresh = sac.init(fresh_key, size, act_dim, config, view)
    layers, q, negative_entropy = _look(agent, rows, policy_key, config)
    fresh_layers, *_ = _look(fresh, rows, policy_key, config)
    q = np.asarray(q, np.float64)
    alpha = float(np.exp(agent.log_temperature))
    reward = np.asarray(rows.reward, np.float64)
    lowest, highest = min(paid[0], reward.min()), max(paid[1], reward.max())
    # Uniform actions have the largest entropy, |A| log 2; a narrow policy's can be very negative,
    # and differs from state to state.
    bonus = alpha * act_dim * math.log(2.0)
    fine = alpha * max(float(np.max(negative_entropy)), 0.0)
    growth = [
        _rms(layer.weight) / _rms(new.weight)
        for layer, new in zip(agent.critic.layers, fresh.critic.layers, strict=True)
    ]
    return CriticHealth(
        dormant=dormant_share(layers),
        dormant_fresh=dormant_share(fresh_layers),
        rank=effective_rank(layers[-1]),
        rank_fresh=effective_rank(fresh_layers[-1]),
        weight_growth=np.stack(growth, axis=1),
        q_mean=_mean(q.min(axis=0), episode),
        q_range=(float(q.min()), float(q.max())),
        possible=possible_values(
            (float(lowest) * reward_scale, float(highest) * reward_scale),
            fine,
            bonus,
            config.discount,
        ),
        twin_gap=_mean(np.abs(q[0] - q[1]), episode),
        updates=int(agent.updates),
        temperature=alpha,
        temperature_began=config.initial_temperature,
        entropy_bonus=bonus,
        reward_std=float(reward.std()) * reward_scale,
    )


def dormant_share(layers: list[np.ndarray]) -> np.ndarray:
    """Share of dormant units of each critic and layer, (2, L), from activations (2, B, H)."""
    shares = []
    for layer in layers:
        size = np.abs(layer).mean(axis=1)
        whole = size.mean(axis=1, keepdims=True)
        shares.append((size <= DORMANT * whole).mean(axis=1))
    return np.stack(shares, axis=1)


def effective_rank(features: np.ndarray) -> np.ndarray:
    """Number of singular values that hold 99 % of their sum, per critic, of features (2, B, H).

    NaN where features are not finite.
    """
    ranks = []
    for matrix in np.asarray(features, np.float64):
        if not np.isfinite(matrix).all():
            ranks.append(math.nan)
            continue
        values = np.linalg.svd(matrix, compute_uv=False)
        ranks.append(float((np.cumsum(values) < RANK_SHARE * values.sum()).sum() + 1))
    return np.array(ranks)


def _look(
    agent: SacState, rows: Transition, key: Key, config: SacConfig
) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    found = _forward(agent, rows, key, config)
    layers, q, negative_entropy = jax.tree.map(np.asarray, found)
    return layers, q, negative_entropy


@functools.partial(jax.jit, static_argnames="config")
def _forward(
    agent: SacState, rows: Transition, key: Key, config: SacConfig
) -> tuple[list[Array], Float[Array, "2 B"], Float[Array, "B"]]:
    """Hidden activations of both critics, their Q, and the policy's mean log π at each row."""
    x = jnp.concatenate([sac.seen(agent.critic, rows.obs), rows.action], axis=-1)
    hidden = jax.vmap(_activations, in_axes=(0, None))
    chosen = sac.policy(agent.actor, rows.obs, config)
    _, log_prob = jax.vmap(chosen.sample)(jax.random.split(key, _DRAWS))
    q = sac.q_values(agent.critic, rows.obs, rows.action)
    return hidden(agent.critic, x), q, log_prob.mean(axis=0)


def _activations(net: MLP, x: Float[Array, "B I"]) -> list[Array]:
    """What every hidden layer fires, as `nets.MLP` computes it."""
    fired = []
    for i, layer in enumerate(net.layers[:-1]):
        x = layer(x)
        x = jax.nn.relu(net.norms[i](x) if net.norms else x)
        fired.append(x)
    return fired


def _rms(kernel: Float[Array, "2 I J"]) -> np.ndarray:
    return np.sqrt((np.asarray(kernel, np.float64) ** 2).mean(axis=(1, 2)))


def _mean(values: np.ndarray, episode: np.ndarray | None) -> Estimate:
    if not np.isfinite(values).all():
        return Estimate(math.nan, -math.inf, math.inf, values.size, "some values are not finite")
    return mean_estimate(values, episode)
