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
from ftfl.forensics.evidence import Estimate, Finding, Numbers, mean_estimate
from ftfl.nets import MLP
from ftfl.sac import SacState
from ftfl.types import Key, Transition

DORMANT = 0.025
"""A unit is dormant if its mean activation is at most this share of its layer's mean. The
definition is Sokar et al. 2023 (arXiv 2302.12902)."""
RANK_SHARE = 0.99
"""The effective rank is the number of singular values that hold this share of their sum (Kumar et
al. 2020, arXiv 2010.14498, δ = 0.01)."""
MORE_DORMANT, RANK_LEFT, GROWN = 0.25, 1 / 3, 5.0
_ROUNDING = 1.001  # a fixed temperature comes back from its logarithm nearly as it was
DORMANT_RULE = (
    "a quarter more dormant units than a fresh critic on the same rows; hypothesis from a first"
    " look at tiny critics: 0.3 to 0.5 after 6,400 updates on 50 rows, up to 0.2 in sound ones"
)
RANK_RULE = (
    "fewer than a third of a fresh critic's effective features; a weak sign: 11 sound runs of 5"
    " tasks (up to 99,000 updates) had 0.46 to 1.0 of them, tiny critics driven to failure 0.9 at"
    " UTD 32 and 0.4 at UTD 64"
)
GROWN_RULE = (
    "a hidden layer's weights above 5 times a fresh critic's: 11 sound runs of 5 tasks (up to"
    " 99,000 updates) had 1.4 to 3.7, tiny critics driven to failure 5.3 at UTD 32 and 20 to 27 at"
    " UTD 64;"
    " the output layer is left out, for it grows with the size of true values (up to 7.5 in sound"
    " runs)"
)
RUNAWAY_RULE = (
    "α above where it began: in sound runs it falls as the policy learns. Said of 39 of 146 probe"
    " runs that failed and of 1 of 214 others (docs/taxonomy.md); critic-beyond-bound cannot see"
    " it, for the bound grows with α"
)
BOUND_RULE = (
    "no policy can collect more than (max |r| + α × largest entropy) at every step forever, so a Q"
    " beyond that ÷ (1 − γ) is impossible, provided the replay holds the largest reward"
)


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
    q_largest: float
    """Largest |Q| of either critic."""
    bound: float
    """What |Q| cannot exceed with rewards as large as those met."""
    twin_gap: Estimate
    """Mean |Q₁ − Q₂| over rows."""
    updates: int
    temperature: float
    """α, in the agent's reward unit."""
    temperature_began: float

    @property
    def q_over_bound(self) -> float:
        """Above 1, some Q is impossible."""
        return self.q_largest / self.bound if self.bound > 0 else math.inf

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
            "q_largest_scaled": self.q_largest,
            "q_bound_scaled": self.bound,
            "q_over_bound": self.q_over_bound,
            "twin_gap_scaled": self.twin_gap,
            "temperature_scaled": self.temperature,
            "temperature_at_start_scaled": self.temperature_began,
        }

    def findings(self) -> list[Finding]:
        """Signs that the critic itself has failed."""
        found: list[Finding] = []

        def add(name: str, failure: bool, sentence: str, numbers: dict, rule: str) -> None:
            found.append(
                Finding(
                    name,
                    "failure" if failure else "warning",
                    sentence,
                    numbers,
                    rule,
                    "before the model is blamed: --sac.critic-layer-norm, a smaller"
                    " --sac.updates-per-step, or --sac.reset-every-updates",
                )
            )

        # not (… <= 1): a critic that is no longer finite is beyond its bound, too
        if not self.q_over_bound <= 1.0:
            add(
                "critic-beyond-bound",
                True,
                f"the critic answers {self.q_largest:.3g} where no policy can exceed"
                f" {self.bound:.3g}.",
                {"q_largest": self.q_largest, "bound": self.bound},
                BOUND_RULE,
            )
        if not self.temperature <= _ROUNDING * self.temperature_began:
            add(
                "temperature-runaway",
                False,
                f"the temperature rose from {self.temperature_began:.3g} to {self.temperature:.3g},"
                " so that values are of entropy and not of reward.",
                {"temperature": self.temperature, "at_start": self.temperature_began},
                RUNAWAY_RULE,
            )
        more = float((self.dormant.mean(axis=0) - self.dormant_fresh.mean(axis=0)).max())
        if more > MORE_DORMANT:
            share = float(self.dormant.mean(axis=0).max())
            add(
                "critic-dormant",
                False,
                f"{share:.0%} of a layer's units no longer fire.",
                {"dormant_share": share, "more_than_fresh": more},
                DORMANT_RULE,
            )
        left = float(self.rank.mean() / self.rank_fresh.mean())
        if left < RANK_LEFT:
            add(
                "critic-rank-collapsed",
                False,
                f"the critic's features have an effective rank of {self.rank.mean():.0f}, a fresh"
                f" critic's {self.rank_fresh.mean():.0f}.",
                {"rank": float(self.rank.mean()), "share_of_fresh": left},
                RANK_RULE,
            )
        growth = float(self.weight_growth[:, :-1].max())
        if not growth <= GROWN:
            add(
                "critic-weights-grown",
                False,
                f"a hidden layer's weights are {growth:.2g} times as large as in a fresh critic.",
                {"weight_growth": growth},
                GROWN_RULE,
            )
        return found


def critic_health(
    agent: SacState,
    rows: Transition,
    config: SacConfig,
    key: Key,
    reward_scale: float = 1.0,
    largest: float = 0.0,
    episode: np.ndarray | None = None,
) -> CriticHealth:
    """Look at both critics on real rows.

    Args:
        agent: the trained agent.
        rows: real transitions; a few thousand spread over the replay.
        config: the agent's.
        key: of the fresh critic and of one draw from the policy.
        reward_scale: what the agent multiplies stored rewards by (``Config.agent_reward_scale``).
        largest: |stored reward| ever met, where that is beyond these rows.
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
    layers, q, log_prob = _look(agent, rows, policy_key, config)
    fresh_layers, *_ = _look(fresh, rows, policy_key, config)
    q = np.asarray(q, np.float64)
    alpha = float(np.exp(agent.log_temperature))
    # Uniform actions have the largest entropy, |A| log 2; a narrow policy's can be very negative.
    entropy = max(rows.action.shape[1] * math.log(2.0), abs(float(np.mean(np.asarray(log_prob)))))
    largest = max(largest, float(jnp.max(jnp.abs(rows.reward)))) * reward_scale
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
        q_largest=float(np.abs(q).max()),
        bound=(largest + alpha * entropy) / (1.0 - config.discount),
        twin_gap=_mean(np.abs(q[0] - q[1]), episode),
        updates=int(agent.updates),
        temperature=alpha,
        temperature_began=config.initial_temperature,
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
    layers, q, log_prob = jax.tree.map(np.asarray, found)
    return layers, q, log_prob


@functools.partial(jax.jit, static_argnames="config")
def _forward(
    agent: SacState, rows: Transition, key: Key, config: SacConfig
) -> tuple[list[Array], Float[Array, "2 B"], Float[Array, "B"]]:
    """Hidden activations of both critics, their Q, and log π of one draw."""
    x = jnp.concatenate([sac.seen(agent.critic, rows.obs), rows.action], axis=-1)
    hidden = jax.vmap(_activations, in_axes=(0, None))
    _, log_prob = sac.policy(agent.actor, rows.obs, config).sample(key)
    return hidden(agent.critic, x), sac.q_values(agent.critic, rows.obs, rows.action), log_prob


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
