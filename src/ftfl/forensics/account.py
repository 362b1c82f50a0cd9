"""Where the critic's error comes from: an exact account along true branches.

Along a branch s₀ a₀ r₀ s₁ a₁ … of the policy, with α frozen and
V(s_t) = Q(s_t, a_t) − α log π(a_t|s_t):

    G = Σ_{t<T} γᵗ r_t − α Σ_{1≤t≤T} γᵗ log π(a_t|s_t) + γᵀ Q(s_T, a_T)          (the truth)
    Q(s₀,a₀) − G = Σ_{t<T} γᵗ [ Q(s_t,a_t) − (r̂_t − p_t) − γV(ŝ_{t+1})         (critic fit)
                              + r̂_t − r_t                                      (reward model)
                              − p_t                                            (penalty)
                              + γ (V(ŝ_{t+1}) − V(s_{t+1})) ]                  (next-state model)

which telescopes on every single branch, to rounding. Entropy is paid from t = 1 on, as in the
critic's own target; p is what a screen takes from the reward (0 for most). A terminated branch ends
with V = 0; any other end is valued by the critic, with weight γᵀ, which is the share of its error
that cannot be seen from here. V(ŝ) uses the noise that the policy had at the true next state, so
that like is compared with like.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from ftfl.forensics.branches import Path
from ftfl.forensics.learned import Agent, WorldModel, expected_reward

_ROWS_AT_ONCE = 8_192  # transitions in memory with all elites' next observations

TWINS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "smaller": lambda q: q.min(axis=-1),
    "mean": lambda q: q.mean(axis=-1),
}
"""How the twin critics become one value: the smaller is what SAC learns from."""


def possible_values(
    paid: tuple[float, float], fine: float, bonus: float, discount: float
) -> tuple[float, float]:
    """What values can be: the lowest and highest reward forever, and what entropy takes and adds.

    Args:
        paid: lowest and highest reward.
        fine: the most that entropy takes from a step's reward.
        bonus: the most that it adds.
        discount: γ. 0 is always possible, for a critic begins there.
    """
    whole = 1 - discount
    return min((paid[0] - fine) / whole, 0.0), max((paid[1] + bonus) / whole, 0.0)


class Account(NamedTuple):
    """Sums along each of n branches, in the task's own unit of reward; float64 (n,)."""

    value: np.ndarray
    """Q(s₀, a₀)"""
    truth: np.ndarray
    """G"""
    fit: np.ndarray
    """Without a model: the whole Bellman error Q − r − γV(s′)."""
    reward: np.ndarray
    """NaN without a model, and where every imagined state of a step is not finite."""
    penalty: np.ndarray
    """0 where the screen takes nothing, NaN without a model."""
    state: np.ndarray
    left: np.ndarray
    """γᵀ where the branch was cut, 0 where it terminated."""
    bonus: np.ndarray
    """Largest |α log π| met on the branch, and with it the largest penalty."""


def account(
    agent: Agent,
    model: WorldModel | None,
    paths: Sequence[Path],
    noise: Sequence[np.ndarray],
    seed: int = 0,
) -> dict[str, Account]:
    """Split the critic's error along each branch, for both ways to join the twins.

    Args:
        agent: policy and critics.
        model: None for an agent without one: only ``fit`` is filled.
        paths: true branches with at least one step.
        noise: what the policy drew at each observation of a branch, (T + 1 or more, A).
        seed: of the model's draws.
    """
    generator = np.random.default_rng(seed)
    pieces = [_account(agent, model, paths[a:b], noise[a:b], generator) for a, b in _pieces(paths)]
    return {
        name: Account(*map(np.concatenate, zip(*(p[name] for p in pieces), strict=True)))
        for name in TWINS
    }


def _pieces(paths: Sequence[Path]) -> Iterator[tuple[int, int]]:
    start = rows = 0
    for i, path in enumerate(paths):
        if rows and rows + path.steps > _ROWS_AT_ONCE:
            yield start, i
            start, rows = i, 0
        rows += path.steps
    yield start, len(paths)


def _account(
    agent: Agent,
    model: WorldModel | None,
    paths: Sequence[Path],
    noise: Sequence[np.ndarray],
    generator: np.random.Generator,
) -> dict[str, Account]:
    seen = _see(agent, paths, noise)
    told = None if model is None else _imagine(agent, model, seen, generator)
    discount, count = agent.discount, len(paths)
    weight = discount**seen.step

    def total(terms: np.ndarray) -> np.ndarray:
        return np.bincount(seen.branch, weights=weight * terms, minlength=count)

    accounts = {}
    for name, join in TWINS.items():
        q, entropy = join(seen.q), -agent.temperature * seen.log_prob
        start, first = q[seen.start], seen.start - np.arange(count)
        q[seen.over], entropy[seen.over] = 0.0, 0.0
        value = (q + entropy)[seen.after]
        truth = total(seen.reward + discount * entropy[seen.after]) + seen.left * q[seen.end]
        fit = q[seen.before] - seen.reward - discount * value
        reward = penalty = state = np.full(len(fit), np.nan)
        bonus = np.maximum.reduceat(np.abs(entropy), seen.start)
        if told is not None:
            imagined = told.value(join, agent.temperature)
            fit = q[seen.before] - (told.reward - told.penalty) - discount * imagined
            reward, penalty = told.reward - seen.reward, -told.penalty
            state = discount * (imagined - value)
            bonus = bonus + np.maximum.reduceat(np.abs(told.penalty), first)
        parts = total(fit), total(reward), total(penalty), total(state)
        accounts[name] = Account(start, truth, *parts, seen.left, bonus)
    return accounts


class _Seen(NamedTuple):
    """All observations of all branches in a row (M), and their steps (M − n) among them."""

    obs: np.ndarray
    action: np.ndarray
    noise: np.ndarray
    q: np.ndarray
    log_prob: np.ndarray
    reward: np.ndarray
    start: np.ndarray
    """Index of each branch's first observation, (n,)."""
    end: np.ndarray
    """Index of each branch's last observation, (n,)."""
    over: np.ndarray
    """Those of them that are terminal."""
    before: np.ndarray
    """Index of the observation that each step starts from, (M − n,)."""
    step: np.ndarray
    """Number of each step in its branch."""
    branch: np.ndarray
    """Branch of each step."""
    left: np.ndarray
    """γᵀ of each branch, 0 where it terminated."""

    @property
    def after(self) -> np.ndarray:
        """Index of the observation that each step leads to."""
        return self.before + 1


def _see(agent: Agent, paths: Sequence[Path], noise: Sequence[np.ndarray]) -> _Seen:
    lengths = np.array([path.steps for path in paths])
    end = np.cumsum(lengths + 1) - 1
    obs = np.concatenate([path.obs for path in paths])
    drawn = np.concatenate([n[: k + 1] for n, k in zip(noise, lengths, strict=True)])
    action, log_prob = agent.act(obs, drawn)
    before = np.delete(np.arange(len(obs)), end)
    # What was done, not what is computed again: they differ by rounding.
    action = action.copy()
    action[before] = np.concatenate([path.action for path in paths])
    terminated = np.array([path.end == "terminated" for path in paths])
    return _Seen(
        obs=obs,
        action=action,
        noise=drawn,
        q=agent.q(obs, action).astype(np.float64),
        log_prob=log_prob.astype(np.float64),
        reward=np.concatenate([path.reward for path in paths]),
        start=end - lengths,
        end=end,
        over=end[terminated],
        before=before,
        step=np.concatenate([np.arange(k, dtype=np.float64) for k in lengths]),
        branch=np.repeat(np.arange(len(paths)), lengths),
        left=np.where(terminated, 0.0, agent.discount ** lengths.astype(np.float64)),
    )


class _Told(NamedTuple):
    """What the model says of each step, (M − n, …)."""

    reward: np.ndarray
    """Expected over elites, before a screen takes anything."""
    penalty: np.ndarray
    """What the screen takes."""
    q: np.ndarray
    """(…, K, 2): both critics at each elite's draw of the next observation."""
    log_prob: np.ndarray
    """(…, K)"""
    over: np.ndarray
    """(…, K)"""
    finite: np.ndarray
    """(…, K)"""

    def value(self, join: Callable[[np.ndarray], np.ndarray], temperature: float) -> np.ndarray:
        """V(ŝ′), mean over the elites whose draw is finite; NaN where none is."""
        value = np.where(self.over, 0.0, join(self.q) - temperature * self.log_prob)
        known = self.finite.sum(axis=1)
        total = np.where(self.finite, value, 0.0).sum(axis=1)
        return np.where(known > 0, total / np.maximum(known, 1), np.nan)


def _imagine(agent: Agent, model: WorldModel, seen: _Seen, generator: np.random.Generator) -> _Told:
    obs, action = seen.obs[seen.before], seen.action[seen.before]
    rows, elites = len(obs), model.elites
    drawn = model.imagine(obs, action, model.noise(generator, rows))
    reward = expected_reward(model, obs, action, generator)
    flat = drawn.next_obs.reshape(rows * elites, -1)
    finite = np.all(np.isfinite(flat), axis=1)
    flat = np.where(finite[:, None], flat, 0.0)
    then, log_prob = agent.act(flat, np.repeat(seen.noise[seen.after], elites, axis=0))
    return _Told(
        reward=reward,
        penalty=np.zeros(rows) if model.penalty is None else model.penalty(obs, action),
        q=agent.q(flat, then).astype(np.float64).reshape(rows, elites, 2),
        log_prob=log_prob.astype(np.float64).reshape(rows, elites),
        over=drawn.terminated,
        finite=finite.reshape(rows, elites),
    )


def cut(path: Path, steps: int) -> Path:
    """The first ``steps`` steps of a branch."""
    if path.steps <= steps:
        return path
    return Path(path.obs[: steps + 1], path.action[:steps], path.reward[:steps], "going on")
