"""Which way the critic would have the policy change its action, and which way pays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ftfl.forensics.account import account, cut
from ftfl.forensics.audit import Nudges
from ftfl.forensics.branches import Path
from ftfl.forensics.evidence import Estimate, Numbers, bootstrap_means
from ftfl.forensics.learned import Agent


@dataclass(frozen=True)
class Slope:
    """The critic's gradient with respect to the action, against the true one.

    All states and entries count as one vector, so that a state counts by how steep it is.
    """

    cosine: Estimate
    """Freed from the noise of the true one, which would lower it."""
    reliability: Estimate
    """Cosine between two true gradients that differ in the policy's later noise: near 0 chance
    decides, and the cosine above says nothing."""

    def numbers(self) -> Numbers:
        """By name."""
        return {"cosine": self.cosine, "reliability": self.reliability}


def action_slopes(
    agent: Agent,
    paths: Sequence[Path],
    clusters: np.ndarray,
    nudges: Sequence[Sequence[Nudges]],
    steps: Sequence[int],
    seed: int,
) -> dict[int, Slope]:
    """Compare ∇ₐQ at each branch's first action with the truth, by steps of simulator.

    Branches without two replicates of nudges, all with a step, are left out.
    """
    usable = [
        i
        for i, repeated in enumerate(nudges)
        if len(repeated) > 1 and all(b.steps for n in repeated for e in n.entries for b in e)
    ]
    if not usable:
        return {}
    longest = max(b.steps for i in usable for n in nudges[i] for e in n.entries for b in e)
    obs = np.stack([paths[i].obs[0] for i in usable])
    action = np.stack([paths[i].action[0] for i in usable])
    believed = agent.q_gradient(obs, action).astype(np.float64)
    found = {}
    for k in sorted({min(k, longest) for k in steps}):
        one, two = (true_gradients(agent, [nudges[i][r] for i in usable], k) for r in (0, 1))
        pairs = [(one, believed), (two, believed), (believed, believed), (one, two),
                 (one, one), (two, two)]  # fmt: skip
        terms = np.stack([(a * b).sum(axis=1) for a, b in pairs], axis=1)
        found[k] = Slope(*bootstrap_means(terms, _cosines, seed, clusters[usable]))
    return found


def _cosines(means: np.ndarray) -> np.ndarray:
    first, second, believed, common, one, two = means.T
    cosine = over((first + second) / 2, np.sqrt(np.maximum(common * believed, 0)))
    return np.stack([cosine, over(common, np.sqrt(one * two))], axis=1)


def true_gradients(agent: Agent, nudges: Sequence[Nudges], steps: int) -> np.ndarray:
    """Gradient of each first action's return, (n, A).

    A central difference of ``steps``-step returns that end in the critic's own value, so that the
    first steps' truth is the simulator's and the rest the critic's; both branches with one noise.
    """
    branches = [cut(b, steps) for n in nudges for nudge in n.entries for b in nudge]
    drawn = [n.noise for n in nudges for _ in n.entries for _ in range(2)]
    returns = account(agent, None, branches, drawn)["smaller"].truth.reshape(-1, 2)
    apart = np.array([
        nudge.plus.action[0, entry] - nudge.minus.action[0, entry]
        for n in nudges
        for entry, nudge in enumerate(n.entries)
    ], np.float64)  # fmt: skip
    return ((returns[:, 0] - returns[:, 1]) / apart).reshape(len(nudges), -1)


def over(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """Where the lower one is above 0; NaN elsewhere."""
    return np.where(bottom > 0, top / np.where(bottom > 0, bottom, 1), np.nan)
