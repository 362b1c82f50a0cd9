"""What a short fit of the model adds to what a task's structure predicts; no agent is trained.

The four target cells are trained on a sample of transitions and tested on stretches of it held
apart (`attribution` of the cells). A reward that a cell has not learned there is the best sign of
its failure that we have (docs/taxonomy.md).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from ftfl.forensics.doors import CELLS
from ftfl.forensics.evidence import Estimate, Finding, by_severity, mean_estimate
from ftfl.forensics.foresight import Foresight, Recommendation
from ftfl.forensics.instruments.attribution import Arm, Attribution

UPDATES, SEEDS = 500, (0, 1, 2)
PRESETS = dict(zip(CELLS, ("mbpo", "mbpo-unit", "mbpo-direct", "ftfl"), strict=True))
"""By cell, the preset with that cell and nothing else."""
CELL_OF = {preset: cell for cell, preset in PRESETS.items()}
"""The cell of each such preset."""
UNLEARNED = 0.5
RULE = (
    f"median R² of drawn rewards below {UNLEARNED} after {UPDATES} updates on these transitions. On"
    " probes this found every failure of mbpo and ftfl on dials that no rule was made on, with one"
    " false alarm in 22 for ftfl and eight in 18 for mbpo; that only the reward counts was settled"
    " when most of these fits were known (docs/taxonomy.md); on larger tasks it is a hypothesis"
)


def with_fit(found: Foresight, fit: Attribution) -> Foresight:
    """Add what the fit says to the findings, and let it overrule the recommendation.

    A recommended cell that has not learned the reward gives way to the one that learned it best, or
    to sac if none has. Where held-out rewards hardly vary, nothing changes.
    """
    learned = {arm.name: arm.reward for arm in fit.cells}
    if not all(np.isfinite(r2).all() for r2 in learned.values()):
        return found
    middle = {name: float(np.median(r2)) for name, r2 in learned.items()}
    failing = [name for name, r2 in middle.items() if r2 < UNLEARNED]
    if not failing:
        return found
    every = len(failing) == len(middle)
    named = ", ".join(f"{PRESETS[name]} ({middle[name]:.2g})" for name in failing)
    finding = Finding(
        "reward-not-learned",
        "failure" if every else "warning",
        f"a short fit does not learn the reward in {'any cell' if every else 'some cells'}: R² of"
        f" drawn rewards is below {UNLEARNED} with {named}.",
        {f"r2_drawn_{PRESETS[name]}": _over_seeds(r2) for name, r2 in learned.items()},
        RULE,
        "more transitions (--steps), or ones of a policy (--policy); else --algo sac"
        if every
        else "a preset that is not named here",
    )
    return Foresight(by_severity([*found.findings, finding]), overrule(found.recommended, middle))


def numbers(fit: Attribution) -> dict[str, Any]:
    """By preset, R² of drawn rewards and use of drawn states (`attribution`)."""
    return {PRESETS[arm.name]: _of_arm(arm) for arm in fit.cells}


def _of_arm(arm: Arm) -> Mapping[str, Any]:
    finite = bool(np.isfinite(arm.reward).all())
    return {
        "reward_r2_drawn": _over_seeds(arm.reward) if finite else None,
        "reward_r2_drawn_median": float(np.median(arm.reward)) if finite else None,
        "state_use": _over_seeds(np.nan_to_num(arm.state_use)),
    }


def _over_seeds(values: np.ndarray) -> Estimate:
    return dataclasses.replace(mean_estimate(values), method="Student-t over seeds of the fit")


def overrule(before: Recommendation, middle: Mapping[str, float]) -> Recommendation:
    """What a fit leaves of a recommendation, or puts in its place.

    Args:
        before: what the structure alone suggests.
        middle: by cell, the median R² of drawn rewards.
    """
    if before.preset not in CELL_OF or middle[CELL_OF[before.preset]] >= UNLEARNED:
        return before
    best = max(middle, key=lambda cell: middle[cell])
    if middle[best] < UNLEARNED:
        return Recommendation(
            "sac", "a short fit on these transitions learns the reward in none of the target cells"
        )
    return Recommendation(
        PRESETS[best],
        f"a short fit learns the reward best there (R² of draws {middle[best]:.2g}); with"
        f" {before.preset}, which the structure alone suggests, it does not"
        f" ({middle[CELL_OF[before.preset]]:.2g})",
    )
