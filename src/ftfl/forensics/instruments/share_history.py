"""Shares over training: what part of loss, gradient and Adam's step the reward has, and until when.

Target scales tell of a fresh model and of the run's, which has seen many refits. In between the
shares move: channels are fitted, and their gradients turn to noise. Here a model is trained anew on
the run's own rows, and looked at on the way.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax

from ftfl.config import DynamicsConfig
from ftfl.errors import FtflError
from ftfl.forensics.evidence import Finding, Numbers
from ftfl.forensics.instruments.shares import RewardShares, fresh, reward_shares
from ftfl.forensics.refits import holdout_seed, train
from ftfl.forensics.rows import ring_of
from ftfl.replay import Split
from ftfl.types import Transition

_MOMENTS = (10, 100)


@dataclass(frozen=True)
class ShareHistory:
    """The result of `share_history`."""

    shares: dict[int, RewardShares]
    """By updates from scratch, 0 first; intervals are over members."""

    def numbers(self) -> Numbers:
        """By number of updates."""
        return {
            "updates": list(self.shares),
            "after": {str(updates): found.numbers() for updates, found in self.shares.items()},
        }

    def findings(self) -> list[Finding]:
        """None: target scales says what a small share may do."""
        return []


def share_history(
    rows: Transition, config: DynamicsConfig, updates: int, seed: int = 0
) -> ShareHistory:
    """Train from scratch, and measure the reward's shares at the start, on the way and at the end.

    Each moment is a training of its own, from the same start.

    Args:
        rows: the replay, in order.
        config: the model's.
        updates: how long the longest training is.
        seed: of the fresh model and of its batches.

    Raises:
        FtflError: the reward is not an output of a joint network, or there are too few rows.
    """
    if len(rows.reward) < 2 * config.holdout_every:
        raise FtflError(
            f"the replay holds {len(rows.reward)} rows, but shares over training need at least"
            f" {2 * config.holdout_every} (2 × dynamics.holdout_every)."
        )
    ring, split = ring_of(rows), Split(config.holdout_every, holdout_seed(seed))
    start = fresh(jax.random.fold_in(jax.random.key(seed), 0), ring, split, config)
    found = {0: reward_shares(start, ring, split, config)}
    for count in (*(moment for moment in _MOMENTS if moment < updates), updates):
        found[count] = reward_shares(train(ring, config, seed, count), ring, split, config)
    return ShareHistory(found)
