"""Errors of imagined states by channel, in units that can be compared, with their intervals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ftfl.forensics.evidence import Estimate, bootstrap_means


@dataclass(frozen=True)
class ChannelErrors:
    """Statistics of squared errors (N, O), over the units of O channels in all stored rows.

    ``still`` are the squared errors of assuming that nothing moves; ``clusters`` (N,) are what the
    bootstraps resample. Results by channel are value, low and high of the 95 % interval, (3, O),
    and NaN for channels that do not move.
    """

    std: np.ndarray
    """(O,), as the next two."""
    change: np.ndarray
    """Std of the one-step change."""
    moves: np.ndarray
    """Channels whose change is more than rounding."""
    seed: int
    """Of the bootstraps."""

    @classmethod
    def over(cls, obs: np.ndarray, next_obs: np.ndarray, seed: int) -> ChannelErrors:
        """Units of stored rows (N, O)."""
        change = (next_obs - obs).std(0, dtype=np.float64)
        size = np.sqrt((next_obs.astype(np.float64) ** 2).mean(0))
        return cls(next_obs.std(0, dtype=np.float64), change, change > 1e-6 * size, seed)

    def in_std(self, squared: np.ndarray, clusters: np.ndarray) -> np.ndarray:
        """Root mean square errors in the channels' own std, (3, O)."""
        return self._by_channel(squared[:, self.moves], self._rms, clusters)

    def in_change(self, in_std: np.ndarray) -> np.ndarray:
        """Errors (…, O) in the std of the one-step change instead."""
        return in_std * self.std / np.where(self.moves, self.change, np.nan)

    def skill(self, squared: np.ndarray, still: np.ndarray, clusters: np.ndarray) -> np.ndarray:
        """1 − squared error ÷ that of standing still, (3, O)."""
        return self._by_channel(self._against(squared, still), _skill, clusters)

    def median_skill(
        self, squared: np.ndarray, still: np.ndarray, clusters: np.ndarray
    ) -> Estimate:
        """Median of the skill over channels that move."""
        terms = self._against(squared, still)
        return bootstrap_means(terms, lambda m: _median(_skill(m)), self.seed, clusters)[0]

    def median_in_std(self, squared: np.ndarray, clusters: np.ndarray) -> Estimate:
        """Median of `in_std` over channels that move."""
        terms = squared[:, self.moves]
        return bootstrap_means(terms, lambda m: _median(self._rms(m)), self.seed, clusters)[0]

    def _against(self, squared: np.ndarray, still: np.ndarray) -> np.ndarray:
        return np.concatenate([squared[:, self.moves], still[:, self.moves]], axis=1)

    def _rms(self, means: np.ndarray) -> np.ndarray:
        return np.sqrt(means) / self.std[self.moves]

    def _by_channel(
        self,
        terms: np.ndarray,
        statistic: Callable[[np.ndarray], np.ndarray],
        clusters: np.ndarray,
    ) -> np.ndarray:
        found = np.full((3, self.moves.size), np.nan)
        estimates = bootstrap_means(terms, statistic, self.seed, clusters)
        found[:, self.moves] = np.array([(e.value, e.low, e.high) for e in estimates]).T
        return found


def _skill(means: np.ndarray) -> np.ndarray:
    error, still = np.split(means, 2, axis=1)
    return 1.0 - error / np.where(still > 0, still, np.nan)


def _median(values: np.ndarray) -> np.ndarray:
    """Over channels that say something, (R, O) → (R, 1); NaN where none does."""
    known = np.isfinite(values)
    ordered = np.sort(np.where(known, values, np.inf), axis=1)
    count = known.sum(axis=1)
    rows = np.arange(len(values))
    lower, upper = (np.maximum(count - 1, 0) // 2, np.minimum(count // 2, values.shape[1] - 1))
    middle = (ordered[rows, lower] + ordered[rows, upper]) / 2
    return np.where(count > 0, middle, np.nan)[:, None]
