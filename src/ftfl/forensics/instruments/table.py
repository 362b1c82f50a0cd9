"""Sizes and autocorrelations of every target, from transitions alone: no model is needed."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ftfl.config import DynamicsConfig
from ftfl.forensics.evidence import Estimate, Numbers
from ftfl.forensics.moments import correlation_estimate, ratio_estimate, std_estimate
from ftfl.forensics.rows import episodes
from ftfl.types import Transition


@dataclass(frozen=True)
class TargetTable:
    """Every target dimension; estimates rest on whole episodes."""

    names: tuple[str, ...]
    """Channels, then ``reward`` where it is learned."""
    std: tuple[Estimate, ...]
    """Of the target, in physical units."""
    seen_rms: np.ndarray
    """Root mean square of the target as the loss sees it (raw: with its mean; unit: 1)."""
    change_std: tuple[Estimate, ...]
    """Of next_obs − obs; for the reward, of the reward."""
    autocorrelation: tuple[Estimate, ...]
    """κ: between obs and next_obs of a channel; for the reward, between neighbouring rewards."""
    dynamics_over_reward: Estimate
    """V = Σ Var(Δ) / Var(r): how much of an unweighted squared error the dynamics own."""
    zero_prediction_loss_share: float | None
    """E[r²] / Σ E[t²] as the loss sees it: the reward's share of loss if all predictions were 0."""

    def numbers(self) -> Numbers:
        """Everything, by name; lists run over ``names``."""
        return {
            "names": list(self.names),
            "std": list(self.std),
            "seen_rms": self.seen_rms.tolist(),
            "change_std": list(self.change_std),
            "autocorrelation": list(self.autocorrelation),
            "dynamics_over_reward": self.dynamics_over_reward,
            "zero_prediction_loss_share": self.zero_prediction_loss_share,
        }


def target_table(
    rows: Transition, config: DynamicsConfig, names: tuple[str, ...] = ()
) -> TargetTable:
    """Sizes and autocorrelations of every target, from rows in the order they happened.

    Pure arithmetic on data: no model is needed.
    """
    obs, next_obs = (np.asarray(x, np.float64) for x in (rows.obs, rows.next_obs))
    reward = np.asarray(rows.reward, np.float64)
    names = names or tuple(f"obs[{i}]" for i in range(obs.shape[1]))
    learned = config.reward_model != "given"
    clusters = episodes(rows)
    change = next_obs - obs
    target = next_obs if config.target == "direct" else change
    if config.target == "innovation":
        centred = obs - obs.mean(axis=0)
        variance = (centred**2).sum(axis=0)
        reversion = -(change * centred).sum(axis=0) / np.where(variance > 0, variance, np.inf)
        target = change + np.clip(reversion, 0, 2) * obs
    spread = [std_estimate(x, clusters) for x in target.T]
    moved = [std_estimate(x, clusters) for x in change.T]
    kept = [correlation_estimate(a, b, clusters) for a, b in zip(obs.T, next_obs.T, strict=True)]
    if learned:
        target = np.column_stack([target, reward])
        spread.append(std_estimate(reward, clusters))
        moved.append(spread[-1])
        kept.append(reward_autocorrelation(reward, clusters))
    varies = np.array([s.value > 0 for s in spread])
    rms = np.sqrt((target**2).mean(axis=0))
    seen = rms if config.scale == "raw" else varies.astype(np.float64)
    total = float((seen**2).sum())
    return TargetTable(
        names=names + (("reward",) if learned else ()),
        std=tuple(spread),
        seen_rms=seen,
        change_std=tuple(moved),
        autocorrelation=tuple(kept),
        dynamics_over_reward=dynamics_over_reward(change, reward, clusters),
        zero_prediction_loss_share=float(seen[-1] ** 2) / total if learned and total > 0 else None,
    )


def dynamics_over_reward(
    change: np.ndarray, reward: np.ndarray, clusters: np.ndarray | None = None
) -> Estimate:
    """V = Σ Var(Δ) / Var(r) of one-step changes (N, O) and rewards (N,); infinite if constant."""
    if std_estimate(reward).value == 0:
        reward = np.zeros_like(reward)
    squares = ((change - change.mean(axis=0)) ** 2).sum(axis=1)
    return ratio_estimate(squares, (reward - reward.mean()) ** 2, clusters)


def reward_autocorrelation(reward: np.ndarray, clusters: np.ndarray) -> Estimate:
    """Lag-1 autocorrelation of rewards (N,) within episodes."""
    together = clusters[1:] == clusters[:-1]
    if not together.any():
        return Estimate(math.nan, -math.inf, math.inf, 0, "no two neighbouring rows")
    return correlation_estimate(reward[:-1][together], reward[1:][together], clusters[1:][together])
