"""Two ways to say how close a modelled quantity is to the true one: its values, and its order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ftfl.errors import FtflError
from ftfl.forensics.evidence import Estimate, Numbers, bootstrap_means, mean_estimate

_SAME = 1e-6  # rewards of one state that differ by less than this share of their size are equal


@dataclass(frozen=True)
class Affine:
    """The line from true to modelled rewards, in the task's own unit of reward."""

    r2: Estimate
    """1 − mean squared error over variance; 0 is what a constant reaches."""
    slope: Estimate
    """ρ"""
    shift: Estimate
    """b"""
    noise: Estimate
    """Standard deviation about the line."""
    mean: float
    """r̄, the mean of the true rewards."""
    std: float
    """Standard deviation of the true rewards."""
    left_out: int
    """Rows that were not finite."""

    def numbers(self) -> Numbers:
        """By name."""
        return {
            "r2": self.r2,
            "slope": self.slope,
            "shift_reward": self.shift,
            "noise_reward": self.noise,
            "true_mean_reward": self.mean,
            "true_std_reward": self.std,
            "rows_left_out_count": self.left_out,
        }


@dataclass(frozen=True)
class Ranking:
    """How the model orders several actions in one state."""

    correlation: Estimate
    """Spearman's rank correlation of modelled and true rewards, mean over states."""
    regret: Estimate
    """What the model's favourite actions lose to the best ones, as a share of what average ones
    lose, all states together: 0 is the best, 1 no better than chance."""
    share: float
    """Of the variance of true rewards over states and actions, what actions make."""
    actions: int
    states: int
    undecided: int
    """States whose actions all pay the same: they rank nothing and are left out."""

    def numbers(self) -> Numbers:
        """By name."""
        return {
            "rank_correlation": self.correlation,
            "regret_share": self.regret,
            "variance_by_action_share": self.share,
            "actions_count": self.actions,
            "states_count": self.states,
            "undecided_states_count": self.undecided,
        }


def affine(true: np.ndarray, modelled: np.ndarray, clusters: np.ndarray, seed: int) -> Affine:
    """Fit r̂ = r̄ + b + ρ (r − r̄) + noise by least squares; all arrays are (N,).

    Rows that are not finite are left out and counted.

    Raises:
        FtflError: no row is finite.
    """
    usable = np.isfinite(true) & np.isfinite(modelled)
    x, y = np.asarray(true, np.float64)[usable], np.asarray(modelled, np.float64)[usable]
    labels = np.asarray(clusters)[usable]
    if x.size == 0:
        raise FtflError(f"none of {usable.size} modelled rewards is finite.")
    # Sums are taken about one value, so that a small spread on a large mean keeps its digits.
    origin = float(x.mean())
    u, v = x - origin, y - origin

    def statistics(means: np.ndarray) -> np.ndarray:
        x1, y1, xx, yy, xy = means.T
        var_x, var_y, cov = xx - x1**2, yy - y1**2, xy - x1 * y1
        # A resample without the rare rows that make the reward vary says nothing of the line.
        var_x = np.where(var_x > 1e-9 * u.var(), var_x, np.nan)
        r2 = 1 - (xx - 2 * xy + yy) / var_x
        noise = np.sqrt(np.maximum(var_y - cov**2 / var_x, 0))
        return np.stack([r2, cov / var_x, y1 - x1, noise], axis=1)

    terms = np.stack([u, v, u * u, v * v, u * v], axis=1)
    estimates = bootstrap_means(terms, statistics, seed, labels)
    left_out = int((~usable).sum())
    return Affine(*estimates, mean=float(x.mean()), std=float(x.std()), left_out=left_out)


def rank(
    true: Sequence[np.ndarray], modelled: Sequence[np.ndarray], clusters: np.ndarray, seed: int
) -> Ranking:
    """Compare the order of each state's actions; ``true`` and ``modelled`` hold (M,) per state."""
    correlations, losses, kept, within = [], [], [], []
    for index, (r, told) in enumerate(zip(true, modelled, strict=True)):
        usable = np.isfinite(r) & np.isfinite(told)
        r, told = r[usable], told[usable]
        if r.size < 2:
            continue
        within.append(r.var())
        if np.ptp(r) <= _SAME * np.abs(r).max():
            continue
        a, b = (x - x.mean() for x in (ranks(r), ranks(told)))
        spread = np.sqrt((a @ a) * (b @ b))
        correlations.append(float(a @ b / spread) if spread > 0 else 0.0)
        losses.append((r.max() - r[told == told.max()].mean(), r.max() - r.mean()))
        kept.append(clusters[index])

    def ratio(means: np.ndarray) -> np.ndarray:
        return (means[:, 0] / means[:, 1])[:, None]

    flat = np.concatenate([r[np.isfinite(r)] for r in true])
    unknown = Estimate(float("nan"), -np.inf, np.inf, 0, "no state ranks its actions")
    return Ranking(
        correlation=mean_estimate(correlations, kept) if kept else unknown,
        regret=bootstrap_means(np.array(losses), ratio, seed, kept)[0] if kept else unknown,
        share=float(np.mean(within) / flat.var()) if flat.var() > 0 else 0.0,
        actions=len(true[0]),
        states=len(kept),
        undecided=len(true) - len(kept),
    )


def ranks(values: np.ndarray) -> np.ndarray:
    """1 for the smallest; equal values share the mean of their ranks."""
    _, member, count = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(count) - (count - 1) / 2)[member]
