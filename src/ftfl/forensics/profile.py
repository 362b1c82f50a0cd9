"""The structure of a task as its transitions show it: what can be known before any training."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ftfl.config import DynamicsConfig
from ftfl.envs.faults import EnvFault
from ftfl.envs.spec import Environment, EnvSpec
from ftfl.errors import FtflError
from ftfl.forensics.evidence import Estimate, Numbers, mean_estimate
from ftfl.forensics.instruments.table import TargetTable, target_table
from ftfl.forensics.moments import std_estimate
from ftfl.forensics.rows import episodes
from ftfl.training.evaluate import Policy, episode_seed
from ftfl.types import Transition

_DIAGNOSIS_DOMAIN = 3  # keeps these episodes apart from a run's own (0) and its evaluations (1)
FAULTS = 10
"""Environment faults after which a task is not stepped further."""
LARGEST_CHANGES = 0.01
"""The share of steps whose changes are "the largest": a Gaussian channel has 8 % of its squared
change in them."""


@dataclass(frozen=True)
class Collected:
    """Transitions, and what happened on the way."""

    rows: Transition
    faults: int
    """Steps that broke the environment's contract; they are not among the rows."""
    seconds: float
    cut_short: bool
    """The time ran out before the steps did."""


def uniform(act_dim: int, seed: int) -> Policy:
    """Uniformly random actions in [−1, 1]."""
    generator = np.random.default_rng(seed)
    return lambda obs: generator.uniform(-1, 1, act_dim).astype(np.float32)


def collect(
    env: Environment,
    policy: Policy,
    steps: int,
    seed: int,
    seconds: float,
    told: Callable[[int, int], None] = lambda done, asked: None,
) -> Collected:
    """Step an environment, at most so many steps and seconds.

    Raises:
        FtflError: no step succeeded, or the environment failed ten times.
    """
    start = time.monotonic()
    rows: list[tuple] = []
    episode = faults = done = 0
    obs = None
    while done < steps and time.monotonic() - start < seconds:
        try:
            if obs is None:
                obs = env.reset(episode_seed(seed, episode, _DIAGNOSIS_DOMAIN))
                episode += 1
            action = np.clip(np.asarray(policy(obs), np.float32), -1, 1)
            done += 1
            result = env.step(action)
        except EnvFault as fault:
            obs = None
            faults += 1
            if faults >= FAULTS:
                raise FtflError(
                    f"the environment failed {faults} times, at last: {fault}"
                ) from fault
            continue
        rows.append((obs, action, np.float32(result.reward), result.obs, bool(result.terminated)))
        obs = None if result.terminated or result.truncated else result.obs
        told(done, steps)
    if not rows:
        raise FtflError(
            f"{env.spec.task} did not finish a single step in {seconds:.0f} seconds; give logged"
            " transitions instead (--data FILE)."
        )
    columns: list[Any] = [np.stack(column) for column in zip(*rows, strict=True)]
    return Collected(Transition(*columns), faults, time.monotonic() - start, done < steps)


@dataclass(frozen=True)
class Profile:
    """What transitions say about a task; arrays and tuples run over observation channels."""

    spec: EnvSpec
    table: TargetTable
    """Of residual targets: change_std, autocorrelation, and V; the reward last."""
    std: tuple[Estimate, ...]
    """Of next_obs."""
    still: np.ndarray
    """Share of steps in which a channel does not change at all."""
    jump: np.ndarray
    """Share of a channel's squared change that its largest 1 % of changes carry."""
    continued: np.ndarray
    """Lag-1 autocorrelation of a channel's changes: near 1 if it moves smoothly, NaN if unknown."""
    extreme: np.ndarray
    """Largest deviation of next_obs from its mean, in standard deviations."""
    reward_mean: Estimate
    reward_range: tuple[float, float]
    reward_usual_share: float
    """Share of rows with the most frequent reward."""
    reward_rows: float
    """Rows that carry the reward's variance, (Σ d²)² / Σ d⁴ with d from the median reward."""
    reward_episodes: float
    """The same count of episodes."""
    rows: int
    episodes: int
    terminated_share: float
    termination: Literal["known", "learned", "unknown"]

    @property
    def moving(self) -> np.ndarray:
        """Channels that change."""
        return self.change > 0

    @property
    def change(self) -> np.ndarray:
        """Standard deviation of one-step changes."""
        return np.array([e.value for e in self.table.change_std[:-1]])

    @property
    def ratio(self) -> np.ndarray:
        """Std of the change over std of the channel; NaN where nothing changes."""
        std = np.array([e.value for e in self.std])
        usable = self.moving & (std > 0)
        return np.where(usable, self.change / np.where(usable, std, 1.0), np.nan)

    @property
    def kappa(self) -> np.ndarray:
        """Lag-1 autocorrelation."""
        return np.array([e.value for e in self.table.autocorrelation[:-1]])

    @property
    def reward_std(self) -> Estimate:
        """Of one step's reward."""
        return self.table.std[-1]

    @property
    def outputs(self) -> int:
        """Of a joint model: channels and the reward."""
        return self.spec.obs_dim + 1

    def some(self, which: np.ndarray) -> str:
        """The first names of some channels, for a sentence."""
        names = [self.spec.obs_names[i] for i in np.flatnonzero(which)]
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        return ", ".join(names[:3]) + more

    def numbers(self) -> Numbers:
        """Everything, by name."""
        spec = self.spec
        return {
            "rows": self.rows,
            "episodes": self.episodes,
            "channels": spec.obs_dim,
            "actions": spec.act_dim,
            "seconds_per_step": spec.seconds_per_step,
            "max_episode_steps": spec.max_episode_steps,
            "termination": self.termination,
            "terminated_share": self.terminated_share,
            "dynamics_over_reward": self.table.dynamics_over_reward,
            "reward": {
                "mean": self.reward_mean,
                "std": self.reward_std,
                "smallest": self.reward_range[0],
                "largest": self.reward_range[1],
                "usual_value_share": self.reward_usual_share,
                "carrying_rows": self.reward_rows,
                "carrying_episodes": self.reward_episodes,
                "autocorrelation": self.table.autocorrelation[-1],
                "known_function": spec.reward_fn is not None,
            },
            "channel": {
                "names": list(self.table.names[:-1]),
                "std": list(self.std),
                "change_std": list(self.table.change_std[:-1]),
                "change_over_std": self.ratio.tolist(),
                "autocorrelation": list(self.table.autocorrelation[:-1]),
                "still_share": self.still.tolist(),
                "jump_share": self.jump.tolist(),
                "change_autocorrelation": self.continued.tolist(),
                "extreme_std": self.extreme.tolist(),
            },
        }


def profile(rows: Transition, spec: EnvSpec) -> Profile:
    """Measure a task on transitions in the order they happened.

    Raises:
        FtflError: fewer than two transitions.
    """
    count = rows.reward.shape[0]
    if count < 2:
        raise FtflError(f"{count} transitions show no spread: a profile needs at least 2.")
    obs, next_obs = (np.asarray(x, np.float64) for x in (rows.obs, rows.next_obs))
    reward = np.asarray(rows.reward, np.float64)
    clusters = episodes(rows)
    change = next_obs - obs
    squares = np.sort((change - change.mean(axis=0)) ** 2, axis=0)
    largest = max(1, round(LARGEST_CHANGES * count))
    total = squares.sum(axis=0)
    std = next_obs.std(axis=0)
    deviation = np.abs(next_obs - next_obs.mean(axis=0)).max(axis=0)
    table = target_table(rows, DynamicsConfig(), spec.obs_names)
    moving = np.array([e.value for e in table.change_std[:-1]]) > 0
    carried = (reward - np.median(reward)) ** 2 * (table.std[-1].value > 0)
    return Profile(
        spec=spec,
        table=table,
        std=tuple(std_estimate(x, clusters) for x in next_obs.T),
        still=(change == 0).mean(axis=0),
        jump=np.where(moving, squares[-largest:].sum(axis=0) / np.where(moving, total, 1.0), 0.0),
        continued=_continued(change, clusters),
        extreme=np.where(moving, deviation / np.where(moving, std, 1.0), 0.0),
        reward_mean=mean_estimate(reward, clusters),
        reward_range=(float(reward.min()), float(reward.max())),
        reward_usual_share=float(np.unique(reward, return_counts=True)[1].max()) / count,
        reward_rows=participation(carried),
        reward_episodes=participation(np.bincount(clusters, weights=carried)),
        rows=count,
        episodes=int(clusters[-1]) + 1,
        terminated_share=float(np.asarray(rows.terminated).mean()),
        termination="known"
        if spec.termination is not None
        else "learned"
        if spec.learned_termination
        else "unknown",
    )


def _continued(change: np.ndarray, clusters: np.ndarray) -> np.ndarray:
    """Correlation of each change with the one before it, within episodes."""
    together = clusters[1:] == clusters[:-1]
    before, after = change[:-1][together], change[1:][together]
    if before.shape[0] < 2:
        return np.full(change.shape[1], math.nan)
    spread = before.std(axis=0) * after.std(axis=0)
    shared = ((before - before.mean(axis=0)) * (after - after.mean(axis=0))).mean(axis=0)
    return np.where(spread > 0, shared / np.where(spread > 0, spread, 1.0), math.nan)


def participation(weight: np.ndarray) -> float:
    """How many entries carry a sum of weights ≥ 0: N if all are equal, 1 if one has it all."""
    largest = float(weight.max()) if weight.size else 0.0
    if largest == 0.0 or not math.isfinite(largest):
        return 0.0
    share = weight / largest
    return float(share.sum() ** 2 / (share**2).sum())
