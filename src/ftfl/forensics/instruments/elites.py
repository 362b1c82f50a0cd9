"""Who decides which members rollouts draw from, and what that costs the other outputs."""

from __future__ import annotations

import numpy as np

from ftfl.forensics.evidence import Finding

DECIDES, COSTLY = 0.5, 0.1
ELITES_RULE = (
    "one output makes more than half of the spread between members' holdout scores, and the elites"
    " are at least 10 % worse than chance in the others: that one output decides is usual (21 of 27"
    " probe runs that learned, 30 of 33 that failed: benchmarks/taxonomy/results/examined.jsonl)"
    " and costs nothing where good members are good at everything; the 10 % are a convention, met"
    " in 5 of the 27 and 7 of the 33"
)


def elite_shares(score: np.ndarray) -> np.ndarray:
    """Who decides elites: Cov(score_d, Σ score) / Var(Σ score) over members, (E, D) to (D,).

    The shares sum to 1; a dimension that works against the rest has a negative one.
    """
    centred = score - score.mean(axis=0)
    whole = centred.sum(axis=1)
    square = float((whole**2).sum())
    return centred.T @ whole / square if square > 0 else np.zeros(score.shape[1])


def elite_cost(squared: np.ndarray, elites: np.ndarray, deciding: int) -> float:
    """How much worse than all members elites are where they were not chosen by.

    Args:
        squared: (E, D) mean squared error of each member and output, in any unit.
        elites: (K,) their members.
        deciding: the output to leave out.
    """
    others = np.delete(squared, deciding, axis=1)
    chance = others.mean(axis=0)
    varies = chance > 0
    if not varies.any():
        return 0.0
    return float((others[elites].mean(axis=0)[varies] / chance[varies]).mean() - 1.0)


def elite_findings(name: str, share: float, cost: float) -> list[Finding]:
    """The choice of elites by the output ``name``, where it is likely to hurt."""
    if share <= DECIDES or cost <= COSTLY:
        return []
    return [
        Finding(
            "elites-by-one-dimension",
            "info",
            f"{name} decides which members become elites, and in the other outputs these have"
            f" {cost:.0%} more squared error than members drawn at random.",
            {"elite_share": share, "elite_cost_share": cost},
            ELITES_RULE,
            "--dynamics.holdout-score unit ranks members by all outputs alike",
        )
    ]
