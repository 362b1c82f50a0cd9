"""Critic account: how wrong the critic is about its own policy, and whose fault that is.

Along real branches of the policy the critic's error is split, exactly, into what the critic failed
to fit (of the targets it would get from this model), what the reward model and what the next-state
model put into those targets. A run without a model has the first alone: SAC's own bias, which every
model-based run should be read beside. Terms of opposite sign are usual, as a critic that learned
real rows too does not follow its model all the way. The policy follows the critic's slope, so its
direction is compared with the true one as well: 1 is the same, 0 unrelated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ftfl.errors import FtflError
from ftfl.forensics.account import Account, account, gradients
from ftfl.forensics.audit import Nudge
from ftfl.forensics.branches import Path
from ftfl.forensics.comparisons import Affine, affine
from ftfl.forensics.evidence import (
    Estimate,
    Finding,
    Numbers,
    bootstrap_means,
    mean_estimate,
)
from ftfl.forensics.learned import Agent, WorldModel

FLAT, ASTRAY = 0.5, 0.25
_SOURCES = {
    "critic_fit": "the critic's own fit",
    "reward_model": "the reward model",
    "next_state_model": "the next-state model",
}


@dataclass(frozen=True)
class Bias:
    """The critic's error and its parts, means over states."""

    value: Estimate
    """Q of the policy's first action."""
    truth: Estimate
    bias: Estimate
    parts: dict[str, Estimate]
    """``critic_fit``, and with a model ``reward_model`` and ``next_state_model``; their sum is
    the bias."""
    states: Affine
    """The critic against the truth, over states."""
    identity_gap: float
    """Largest |bias − sum of parts| over states, as a share of the largest value: rounding."""

    def numbers(self) -> Numbers:
        """By name."""
        return {
            "value": self.value,
            "truth": self.truth,
            "bias": self.bias,
            **self.parts,
            "r2_over_states": self.states.r2,
            "slope_over_states": self.states.slope,
            "true_std_over_states": self.states.std,
            "identity_gap_share": self.identity_gap,
        }


@dataclass(frozen=True)
class CriticAccount:
    """The result of `critic_account`; values in the task's own unit of reward."""

    twins: dict[str, Bias]
    """With the smaller of the twins, which SAC learns from, and with their mean."""
    cosine: dict[int, Estimate]
    """Of ∇ₐQ with the truth, all states and entries as one vector (so that states count by how
    steep they are), by the steps of simulator that the truth rests on."""
    horizon: int
    """Longest branch, in steps."""
    left: float
    """Mean weight γᵀ of what the critic itself had to say at the end of a branch."""
    temperature: float
    states: int
    left_out: int
    """States with a step at which nothing the model imagined was finite."""
    largest: float
    """What no policy can earn more than: the largest |r| (and entropy bonus) met, over 1 − γ."""

    def numbers(self) -> Numbers:
        """By name."""
        return {
            **{f"{name}_twin": bias.numbers() for name, bias in self.twins.items()},
            "gradient_cosine": {str(k): v for k, v in self.cosine.items()},
            "horizon_steps": self.horizon,
            "unseen_weight": self.left,
            "temperature": self.temperature,
            "states_count": self.states,
            "states_left_out_count": self.left_out,
            "largest_possible_value": self.largest,
        }

    def findings(self) -> list[Finding]:
        """Whether the policy can trust its critic."""
        found = []
        smaller = self.twins["smaller"]
        bias, spread = smaller.bias, smaller.states.std
        if abs(smaller.value.value) > self.largest:
            found.append(
                Finding(
                    "critic-impossible", "failure",
                    f"The critic's mean value {smaller.value.value:.3g} is more than any policy can"
                    f" earn ({self.largest:.3g}): it has diverged.",
                    {"value": smaller.value, "largest": self.largest},
                    "the largest |r| and entropy bonus ever met, over 1 − γ: no return exceeds it",
                    "--sac.critic-layer-norm keeps a critic bounded at many updates a step",
                )
            )  # fmt: skip
        elif bias.above(spread) or bias.below(-spread):
            high = bias.value > 0
            found.append(
                Finding(
                    f"critic-too-{'high' if high else 'low'}", "warning",
                    f"The critic values the policy {bias} too {'high' if high else 'low'}, more"
                    f" than states truly differ by (std {spread:.3g}); {self._blame(smaller)}.",
                    {"bias": bias, "true_std": spread, **smaller.parts},
                    "the whole interval beyond one standard deviation of true values over states:"
                    " a marker, for a constant error changes no preference; uncalibrated",
                    self._advice(smaller),
                )
            )  # fmt: skip
        if smaller.states.slope.below(FLAT):
            found.append(
                Finding(
                    "critic-flat", "warning",
                    f"Where true values of two states differ by 1 the critic's differ by"
                    f" {smaller.states.slope}.",
                    {"slope": smaller.states.slope, "r2": smaller.states.r2},
                    "slope over states below 0.5 by the whole interval; uncalibrated",
                    self._advice(smaller),
                )
            )  # fmt: skip
        if self.cosine:
            steps = max(self.cosine)
            cosine = self.cosine[steps]
            if cosine.below(ASTRAY):
                found.append(
                    Finding(
                        "gradient-astray", "warning",
                        f"The direction in which the critic would have the policy change its action"
                        f" is hardly the one that pays ({steps}-step cosine {cosine}).",
                        {"cosine": cosine},
                        "cosine below 0.25 by the whole interval; a random direction has 0;"
                        " uncalibrated",
                        self._advice(smaller),
                    )
                )  # fmt: skip
        return found

    def _blame(self, bias: Bias) -> str:
        if len(bias.parts) == 1:
            return "without a model that is the critic's own doing"
        signed = {name: part.value * np.sign(bias.bias.value) for name, part in bias.parts.items()}
        worst = max(signed, key=lambda name: signed[name])
        listed = ", ".join(f"{_SOURCES[n]} {p.value:+.3g}" for n, p in bias.parts.items())
        return f"most of it by {_SOURCES[worst]} ({listed})"

    def _advice(self, bias: Bias) -> str:
        worst = max(bias.parts, key=lambda n: bias.parts[n].value * np.sign(bias.bias.value))
        return {
            "critic_fit": "--sac.critic-layer-norm, or fewer --sac.updates-per-step",
            "reward_model": "--scale unit, and see reward fidelity",
            "next_state_model": "--target direct or --target residual, and see rollout error",
        }[worst]


def critic_account(
    agent: Agent,
    paths: Sequence[Path],
    noise: Sequence[np.ndarray],
    clusters: np.ndarray,
    model: WorldModel | None = None,
    nudges: Sequence[Sequence[Nudge]] = (),
    nudged_steps: Sequence[int] = (1, 5, 20),
    largest_reward: float = 0.0,
    seed: int = 0,
) -> CriticAccount:
    """Compare the critic with what true branches of the policy returned.

    Args:
        agent: policy and critics.
        paths: branches of the policy from n real states.
        noise: what the policy drew at each observation of a branch, (T + 1 or more, A).
        clusters: episode of each branch, (n,).
        model: the run's model; None: its terms are absent.
        nudges: for each branch its nudged branches, or none.
        nudged_steps: steps of simulator under the true gradient.
        largest_reward: the largest |r| ever met, if that is more than the branches show.
        seed: of the model's draws and the bootstraps.

    Raises:
        FtflError: no branch has a step.
    """
    kept = [i for i, path in enumerate(paths) if path.steps]
    if not kept:
        raise FtflError("no branch of the simulator has a step, so the critic cannot be checked.")
    used = [paths[i] for i in kept]
    told = account(agent, model, used, [noise[i] for i in kept], seed)
    labels = np.asarray(clusters)[kept]
    whole = np.isfinite(told["smaller"].state) if model is not None else np.ones(len(kept), bool)
    if not whole.any():
        raise FtflError("from every state the model imagines something that is not finite.")
    reward = max(largest_reward, *(float(np.abs(path.reward).max()) for path in used))
    bonus = float(told["smaller"].bonus.max())
    return CriticAccount(
        twins={
            name: _bias(Account(*(x[whole] for x in a)), labels[whole], model is not None, seed)
            for name, a in told.items()
        },
        cosine=_cosines(agent, paths, noise, np.asarray(clusters), nudges, nudged_steps, seed),
        horizon=max(path.steps for path in used),
        left=float(told["smaller"].left.mean()),
        temperature=agent.temperature,
        states=int(whole.sum()),
        left_out=len(paths) - int(whole.sum()),
        largest=(reward + bonus) / (1 - agent.discount),
    )


def _bias(a: Account, clusters: np.ndarray, modelled: bool, seed: int) -> Bias:
    parts = {"critic_fit": a.fit}
    if modelled:
        parts |= {"reward_model": a.reward, "next_state_model": a.state}
    gap = np.abs(a.value - a.truth - sum(parts.values())).max()
    return Bias(
        value=mean_estimate(a.value, clusters),
        truth=mean_estimate(a.truth, clusters),
        bias=mean_estimate(a.value - a.truth, clusters),
        parts={name: mean_estimate(part, clusters) for name, part in parts.items()},
        states=affine(a.truth, a.value, clusters, seed),
        identity_gap=float(gap / max(np.abs(a.value).max(), np.abs(a.truth).max(), 1e-30)),
    )


def _cosines(
    agent: Agent,
    paths: Sequence[Path],
    noise: Sequence[np.ndarray],
    clusters: np.ndarray,
    nudges: Sequence[Sequence[Nudge]],
    steps: Sequence[int],
    seed: int,
) -> dict[int, Estimate]:
    usable = [
        i
        for i, state in enumerate(nudges)
        if len(state) and all(branch.steps for nudge in state for branch in nudge)
    ]
    if not usable:
        return {}
    longest = max(branch.steps for i in usable for nudge in nudges[i] for branch in nudge)
    found = {}
    for k in sorted({min(k, longest) for k in steps}):
        starts, drawn = [paths[i] for i in usable], [noise[i] for i in usable]
        truth, believed = gradients(agent, starts, [nudges[i] for i in usable], drawn, k)
        terms = np.stack([(truth * believed).sum(1), (truth**2).sum(1), (believed**2).sum(1)], 1)
        (found[k],) = bootstrap_means(terms, _cosine, seed, clusters[usable])
    return found


def _cosine(means: np.ndarray) -> np.ndarray:
    size = np.sqrt(means[:, 1] * means[:, 2])
    return (means[:, 0] / np.where(size > 0, size, np.nan))[:, None]
