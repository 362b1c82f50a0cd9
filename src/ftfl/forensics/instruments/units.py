"""Unit invariance: does the model care in which unit a reward or a channel is written?

A change of units changes nothing about the task. By a power of two it does not even change a
rounding error, so a model that does not care gives the same bits back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np

from ftfl.config import DynamicsConfig
from ftfl.errors import FtflError
from ftfl.forensics.evidence import Estimate, Finding, Numbers, mean_estimate
from ftfl.forensics.refits import Predicted, fidelity, predictions, refit
from ftfl.forensics.rows import episodes, held_apart, ring_of
from ftfl.types import Transition

POWERS = (-10, 10)
"""Powers of two that rewards, and then channels, are multiplied by."""
HARM = 0.05
RULE = (
    "any difference is the model's doing, for the task is the same to the last bit; it is called"
    " harm where usable skill or R² drops by 0.05, about what differs between seeds of one refit on"
    " the unit dial (0.57 to 0.68)"
)


@dataclass(frozen=True)
class UnitChange:
    """One change of units, against the same refits in the units as they are."""

    what: str
    """``reward`` or ``channels``."""
    power: int
    differing_values_share: float
    """Share of predicted numbers (means and stds), mapped back, of which a bit differs."""
    distance: Estimate
    """Root mean square of the difference of predicted means, mapped back, in stds of the target,
    averaged over outputs; over seeds."""
    reward_loss: Estimate
    """Drawn R² of the reward (below 0 counts as 0): as it was − in the other unit."""
    state_loss: Estimate
    """Mean drawn skill of channels, counted likewise: as it was − in the other unit."""

    def numbers(self) -> Numbers:
        """Everything, by name."""
        return {
            "what": self.what,
            "power_of_two": self.power,
            "differing_values_share": self.differing_values_share,
            "distance_std": self.distance,
            "reward_r2_lost": self.reward_loss,
            "state_skill_lost": self.state_loss,
        }


@dataclass(frozen=True)
class UnitInvariance:
    """The result of `unit_invariance`."""

    changes: tuple[UnitChange, ...]
    cell: str
    updates: int

    @property
    def exact(self) -> bool:
        """No bit of any prediction differs in any of the units."""
        return all(c.differing_values_share == 0 for c in self.changes)

    def numbers(self) -> Numbers:
        """Everything, by name."""
        return {
            "cell": self.cell,
            "updates": self.updates,
            "exact": self.exact,
            "changes": [c.numbers() for c in self.changes],
        }

    def findings(self) -> list[Finding]:
        """Units that change what is learned; the worst of each kind."""
        found: list[Finding] = []
        for what in ("reward", "channels"):
            mine = [c for c in self.changes if c.what == what and c.differing_values_share > 0]
            if not mine:
                continue
            worst = max(mine, key=lambda c: max(c.reward_loss.value, c.state_loss.value))
            lost = max((worst.reward_loss, worst.state_loss), key=lambda e: e.value)
            harmful = lost.value > HARM and lost.above(0.0)
            found.append(
                Finding(
                    f"unit-of-{what}-matters",
                    "warning" if harmful else "info",
                    f"with {what} × 2^{worst.power} the same refit predicts something else"
                    f" (by {worst.distance.value:.2g} std)"
                    + (f" and loses {lost.value:.2g} of its use." if harmful else "."),
                    {
                        "distance_std": worst.distance,
                        "reward_r2_lost": worst.reward_loss,
                        "state_skill_lost": worst.state_loss,
                    },
                    RULE,
                    "--scale unit with --dynamics.scale-epsilon 0 does not depend on units",
                )
            )
        return found


def unit_invariance(
    rows: Transition,
    config: DynamicsConfig,
    updates: int,
    seeds: Sequence[int] = (0, 1, 2),
    powers: Sequence[int] = POWERS,
) -> UnitInvariance:
    """Refit in other units with the same seeds, map predictions back, and compare.

    ``channels`` alternate: every second one is multiplied by 2^power, the others by 2^−power, so
    that their sizes relative to each other change, too.

    Raises:
        FtflError: a known reward function (it speaks the unit of its own task), or too few rows.
    """
    if config.reward_model == "given":
        raise FtflError(
            "reward_model=given fixes the unit of rewards and channels: unit invariance is measured"
            " with joint or separate."
        )
    train, test = held_apart(rows)
    size = test.obs.shape[1]
    clusters = episodes(test)
    sign = np.where(np.arange(size) % 2 == 0, 1, -1)
    rest = [_look(train, test, np.zeros(size + 1, int), config, seed, updates) for seed in seeds]
    spread = rest[0].truth.std(axis=0)
    spread = np.where(spread > 0, spread, 1.0)

    def use(found: Predicted) -> tuple[float, float]:
        score = fidelity(found, np.asarray(test.obs), clusters).drawn
        values = np.clip([e.value for e in score], 0, 1)
        channels = values[:-1][np.isfinite(values[:-1])]
        return float(np.nan_to_num(values[-1])), float(channels.mean()) if channels.size else 0.0

    changes = []
    for what in ("reward", "channels"):
        for power in powers:
            exponent = np.append(power * sign * (what == "channels"), power * (what == "reward"))
            other = [_look(train, test, exponent, config, seed, updates) for seed in seeds]
            pairs = list(zip(rest, other, strict=True))
            lost = np.array([np.subtract(use(a), use(b)) for a, b in pairs])
            bits = [np.mean([(a.mean != b.mean).mean(), (a.std != b.std).mean()]) for a, b in pairs]
            apart = [
                np.sqrt((((a.mean - b.mean) / spread) ** 2).mean(axis=(0, 1))).mean()
                for a, b in pairs
            ]
            changes.append(
                UnitChange(
                    what,
                    power,
                    float(np.mean(bits)),
                    mean_estimate(apart),
                    mean_estimate(lost[:, 0]),
                    mean_estimate(lost[:, 1]),
                )
            )
    return UnitInvariance(tuple(changes), f"{config.target}, {config.scale}", updates)


def _look(
    train: Transition,
    test: Transition,
    exponent: np.ndarray,
    config: DynamicsConfig,
    seed: int,
    updates: int,
) -> Predicted:
    """Predictions of a refit in units × 2^exponent, mapped back (exactly)."""
    factor = np.exp2(exponent).astype(np.float32)

    def scaled(batch: Transition) -> Transition:
        return batch._replace(
            obs=jnp.asarray(batch.obs * factor[:-1]),
            next_obs=jnp.asarray(batch.next_obs * factor[:-1]),
            reward=jnp.asarray(batch.reward * factor[-1]),
        )

    state = refit(ring_of(scaled(train)), config, seed, updates)
    found = predictions(state, scaled(test), config)
    return Predicted(found.mean / factor, found.std / factor, found.truth / factor)
