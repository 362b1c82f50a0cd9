"""Model variance: does the model know what it does not know, and is what it says worth having?

Rollouts draw from one elite at a time, so everything is measured for single members: their
predicted std against the errors they make, their disagreement, and what is left of skill when the
noise they ask for is added.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm

from ftfl.config import DynamicsConfig
from ftfl.dynamics.predict import DynamicsState
from ftfl.forensics.advice import QUIETER
from ftfl.forensics.evidence import Estimate, Finding, Numbers, mean_estimate
from ftfl.forensics.moments import positive, ratio_estimate, unknown
from ftfl.forensics.refits import Fidelity, Predicted, fidelity, predictions
from ftfl.forensics.rows import episodes
from ftfl.types import RewardFn, Transition

LEVELS = (0.5, 0.9, 0.95)
"""Intervals whose coverage is counted."""
OVERCONFIDENT = 2.0
OVERCONFIDENT_RULE = (
    "errors more than twice the predicted std (rms of z > 2): a 95 % interval then covers 67 % of"
    " Gaussian errors; the number 2 is a convention; on probes a third of the runs that learned"
    " well had it, too (docs/taxonomy.md)"
)
USELESS_RULE = (
    "below 0, a draw from the model is further from the truth than not moving at all; on probes"
    " half of the runs that learned well had it, too (docs/taxonomy.md)"
)


@dataclass(frozen=True)
class ModelVariance:
    """The result of `model_variance`; tuples run over ``names``, the reward last."""

    names: tuple[str, ...]
    coverage: dict[float, tuple[Estimate, ...]]
    """By level: share of errors inside the member's own interval of that level."""
    z_rms: tuple[Estimate, ...]
    """Root mean square of error / predicted std: 1 if honest, above 1 if overconfident."""
    predicted_std: np.ndarray
    """(D,): root mean square of what members predict, in physical units."""
    error_rms: np.ndarray
    """(D,): root mean square of members' errors."""
    disagreement: tuple[Estimate, ...]
    """Mean square of members' deviation from their average over the mean square of their error:
    at most about 1 − 1/K; far below, members agree on what is wrong."""
    fidelity: Fidelity
    unseen: bool
    """No row was ever trained on."""

    def numbers(self) -> Numbers:
        """Everything, by name."""
        return {
            "names": list(self.names),
            "rows_unseen": self.unseen,
            "coverage": {f"{level:g}": list(c) for level, c in self.coverage.items()},
            "z_rms": list(self.z_rms),
            "predicted_std": self.predicted_std.tolist(),
            "error_rms": self.error_rms.tolist(),
            "disagreement": list(self.disagreement),
            "skill_drawn": list(self.fidelity.drawn),
            "skill_member": list(self.fidelity.member),
            "skill_averaged": list(self.fidelity.averaged),
        }

    def findings(self) -> list[Finding]:
        """Where draws from the model are worse than none, and where it is too sure."""
        found: list[Finding] = []
        where = "" if self.unseen else " Measured on rows that it trained on, which flatters it."
        drawn, channels = self.fidelity.drawn, len(self.names) - 1
        useless = [i for i in range(channels) if drawn[i].below(0.0)]
        if useless:
            worst = min(useless, key=lambda i: drawn[i].value)
            found.append(
                Finding(
                    "worse-than-persistence",
                    "failure" if 2 * len(useless) > channels else "warning",
                    f"in {len(useless)} of {channels} channels a synthetic step is further from the"
                    f" truth than not moving (worst: {self.names[worst]}, skill"
                    f" {drawn[worst].value:.2g}).{where}",
                    {
                        "channels_share": len(useless) / channels,
                        "worst_skill_drawn": drawn[worst],
                        "worst_skill_member": self.fidelity.member[worst],
                    },
                    USELESS_RULE,
                    f"where skill without noise is positive, {QUIETER}; otherwise compare --target"
                    " residual, direct and innovation",
                )
            )
        sure = [i for i, z in enumerate(self.z_rms) if z.above(OVERCONFIDENT)]
        if sure:
            worst = max(sure, key=lambda i: self.z_rms[i].value)
            found.append(
                Finding(
                    "overconfident",
                    "warning",
                    f"{len(sure)} of {len(self.names)} outputs err by more than twice what they"
                    f" predict (worst: {self.names[worst]}, {self.z_rms[worst].value:.2g}"
                    f" times).{where}",
                    {"outputs_share": len(sure) / len(self.names), "worst_z": self.z_rms[worst]},
                    OVERCONFIDENT_RULE,
                    "uncertainty-aware screens will trust these outputs too much; more data, or"
                    " --dynamics.early-stopping with --dynamics.best-weights",
                )
            )
        return found


def model_variance(
    state: DynamicsState,
    rows: Transition,
    config: DynamicsConfig,
    names: tuple[str, ...] = (),
    reward_fn: RewardFn | None = None,
    clusters: np.ndarray | None = None,
    unseen: bool = True,
) -> ModelVariance:
    """Compare what elites predict with what happened, best on rows the model never trained on.

    Args:
        state: the trained model.
        rows: transitions, in the order they happened.
        config: the model's.
        names: of observation channels; default ``obs[i]``.
        reward_fn: the known reward, for ``reward_model='given'``.
        clusters: episode of each row. Give it where rows were picked one by one, which hides that
            they belong together; default: what the rows themselves show.
        unseen: whether the model never trained on these rows.
    """
    found = predictions(state, rows, config, reward_fn)
    clusters = episodes(rows) if clusters is None else clusters
    obs = np.asarray(rows.obs)
    names = (*(names or tuple(f"obs[{i}]" for i in range(obs.shape[1]))), "reward")
    coverage, z_rms = calibration(found, clusters)
    error = found.mean - found.truth
    return ModelVariance(
        names,
        coverage,
        z_rms,
        np.sqrt((found.std**2).mean(axis=(0, 1))),
        np.sqrt((error**2).mean(axis=(0, 1))),
        tuple(
            ratio_estimate(top, bottom, clusters)
            for top, bottom in zip(found.mean.var(axis=0).T, (error**2).mean(axis=0).T, strict=True)
        ),
        fidelity(found, obs, clusters),
        unseen,
    )


def calibration(
    found: Predicted, clusters: np.ndarray | None = None
) -> tuple[dict[float, tuple[Estimate, ...]], tuple[Estimate, ...]]:
    """Coverage by level and the rms of z = error / std, per output.

    Where a model predicts no spread at all (a constant target), both are NaN.
    """
    rows = found.truth.shape[0]
    silent = (found.std == 0).all(axis=(0, 1))
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.abs((found.mean - found.truth) / found.std)

    coverage = {
        level: tuple(
            unknown(math.nan, rows, "no spread is predicted")
            if silent[i]
            else mean_estimate((z[..., i] <= norm.ppf(0.5 + level / 2)).mean(axis=0), clusters)
            for i in range(z.shape[-1])
        )
        for level in LEVELS
    }
    squares = (z**2).mean(axis=0)
    z_rms = []
    for i, column in enumerate(squares.T):
        if silent[i] or not np.isfinite(column).all() or column.mean() == 0:
            z_rms.append(unknown(math.nan, rows, "no spread is predicted"))
        else:
            mean = float(column.mean())
            z_rms.append(positive(math.sqrt(mean), (column / mean - 1.0) / 2.0, clusters))
    return coverage, tuple(z_rms)
