"""Critic account: how wrong the critic is about its own policy, and whose fault that is.

Along real branches of the policy the critic's error is split, exactly, into what the critic failed
to fit (of the targets it would get from this model), what the reward model and what the next-state
model put into those targets. A run without a model has the first alone: SAC's own bias, which every
model-based run should be read beside. Terms of opposite sign are usual, as a critic that learned
real rows too does not follow its model all the way. The policy follows the critic's slope, so its
direction is compared with the true one as well: 1 is the same, 0 unrelated.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ftfl.errors import FtflError
from ftfl.forensics.account import Account, account, possible_values
from ftfl.forensics.audit import Nudges
from ftfl.forensics.branches import Path
from ftfl.forensics.evidence import (
    Estimate,
    Finding,
    Numbers,
    Severity,
    bootstrap_means,
    mean_estimate,
)
from ftfl.forensics.learned import Agent, WorldModel
from ftfl.forensics.slopes import Slope, action_slopes, over

FLAT, ASTRAY, DETERMINED = 2.0, 0.25, 0.25
ORDERED = 0.9
"""Correlation of the critic with the truth over states from which a critic that is too low does no
harm that we have seen (docs/taxonomy.md, "How often an autopsy is right")."""
_SOURCES = {
    "critic_fit": "what the critic did not fit of its targets",
    "reward_model": "the reward model",
    "penalty": "the penalty that the screen takes from rewards",
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
    """``critic_fit``, with a model ``reward_model`` and ``next_state_model``, and ``penalty``
    where a screen takes one; their sum is the bias."""
    calibration: Estimate
    """How much true values differ where the critic's differ by 1, over states. Regressed in this
    direction because a single branch's return is noisy, which would flatten the other one."""
    correlation: Estimate
    """Of value and truth over states; the noise of returns lowers it."""
    spread: float
    """Standard deviation of the truth over states, the noise of returns included."""
    identity_gap: float
    """Largest |bias − sum of parts| over states, as a share of the largest value: rounding."""

    def numbers(self) -> Numbers:
        """By name."""
        return {
            "value": self.value,
            "truth": self.truth,
            "bias": self.bias,
            **self.parts,
            "calibration_slope": self.calibration,
            "correlation_over_states": self.correlation,
            "true_std_over_states": self.spread,
            "identity_gap_share": self.identity_gap,
        }


@dataclass(frozen=True)
class CriticAccount:
    """The result of `critic_account`; values in the task's own unit of reward."""

    twins: dict[str, Bias]
    """With the smaller of the twins, which SAC learns from, and with their mean."""
    slopes: dict[int, Slope]
    """By the steps of simulator that the true gradient rests on."""
    horizon: int
    """Longest branch, in steps."""
    left: float
    """Mean weight γᵀ of what the critic itself had to say at the end of a branch."""
    temperature: float
    states: int
    left_out: int
    """States with a step at which nothing the model imagined was finite."""
    possible: tuple[float, float]
    """What values can be, of any policy: the lowest and highest reward met, and entropy, over
    1 − γ; 0 is always possible, for a critic begins there."""

    def numbers(self) -> Numbers:
        """By name."""
        return {
            **{f"{name}_twin": bias.numbers() for name, bias in self.twins.items()},
            "gradient": {f"{k}_steps": v.numbers() for k, v in self.slopes.items()},
            "horizon_steps": self.horizon,
            "unseen_weight": self.left,
            "temperature": self.temperature,
            "states_count": self.states,
            "states_left_out_count": self.left_out,
            "lowest_possible_value": self.possible[0],
            "highest_possible_value": self.possible[1],
        }

    def findings(self) -> list[Finding]:
        """Whether the policy can trust its critic."""
        found = []
        smaller = self.twins["smaller"]
        bias, spread = smaller.bias, smaller.spread
        low, high = self.possible
        if not low <= smaller.value.value <= high:
            found.append(
                Finding(
                    "critic-impossible", "failure",
                    f"The critic's mean value is {smaller.value.value:.3g}, but no policy can be"
                    f" worth less than {low:.3g} or more than {high:.3g}.",
                    {"value": smaller.value, "lowest": low, "highest": high},
                    "the lowest and highest reward ever met over 1 − γ, with the entropy that"
                    " actions can have (at most |A| log 2) or had",
                    self._advice(smaller),
                )
            )  # fmt: skip
        elif bias.above(spread):
            found.append(self._too("high", "warning"))
        elif bias.below(-spread):
            harmless = _worst(smaller) == "penalty" or not smaller.correlation.below(ORDERED)
            found.append(self._too("low", "info" if harmless else "warning"))
        if smaller.calibration.above(FLAT) or smaller.calibration.below(1 / FLAT):
            flat = smaller.calibration.value > 1
            found.append(
                Finding(
                    "critic-flat" if flat else "critic-unfounded", "warning",
                    f"Where the critic's values of two states differ by 1 the true ones differ by"
                    f" {smaller.calibration}.",
                    {"calibration": smaller.calibration, "correlation": smaller.correlation},
                    "calibration slope above 2 or below 0.5 by the whole interval; a convention,"
                    " counted in docs/taxonomy.md",
                    self._advice(smaller),
                )
            )  # fmt: skip
        if self.slopes:
            steps = max(self.slopes)
            slope = self.slopes[steps]
            if slope.reliability.above(DETERMINED) and slope.cosine.below(ASTRAY):
                found.append(
                    Finding(
                        "gradient-astray", "warning",
                        f"The direction in which the critic would have the policy change its action"
                        f" is hardly the one that pays ({steps}-step cosine {slope.cosine}).",
                        {"cosine": slope.cosine, "reliability": slope.reliability},
                        "cosine below 0.25 by the whole interval, where the true direction is"
                        " reliable by more than 0.25; a random direction has 0; a convention,"
                        " counted in docs/taxonomy.md",
                        self._advice(smaller),
                    )
                )  # fmt: skip
        return found

    def _too(self, direction: str, severity: Severity) -> Finding:
        smaller = self.twins["smaller"]
        return Finding(
            f"critic-too-{direction}", severity,
            f"The critic values the policy {smaller.bias} too {direction}, more than states truly"
            f" differ by (std {smaller.spread:.3g}), and follows the order of states by"
            f" {smaller.correlation}; {self._blame(smaller)}.",
            {"bias": smaller.bias, "true_std": smaller.spread,
             "correlation": smaller.correlation, **smaller.parts},
            "the whole interval beyond one standard deviation of true values over states; too low"
            f" is a warning where the correlation over states is below {ORDERED:g} by its whole"
            " interval as well, for a constant error changes no preference, and no penalty did it"
            " (hits and false alarms: docs/taxonomy.md)",
            self._advice(smaller),
        )  # fmt: skip

    def _blame(self, bias: Bias) -> str:
        if len(bias.parts) == 1:
            return "without a model that is the critic's own doing"
        listed = ", ".join(f"{_SOURCES[n]} {p.value:+.3g}" for n, p in bias.parts.items())
        return f"most of it is {_SOURCES[_worst(bias)]} ({listed})"

    def _advice(self, bias: Bias) -> str:
        own = "--sac.critic-layer-norm, or fewer --sac.updates-per-step"
        if len(bias.parts) == 1:
            return own
        return {
            "critic_fit": f"if sac after as many updates errs as much, it is the critic: {own}; if"
            " not, its targets are noisy: --scale unit, or --dynamics.reward-draw mean",
            "reward_model": "--scale unit, or --dynamics.reward-model separate"
            " (which error it is: reward fidelity)",
            "penalty": "that is what the screen is for; if the policy dares too little, a smaller"
            " --rollouts.screening.std-penalty (mopo) or --rollouts.screening.kl-penalty (m2ac)",
            "next_state_model": "no repair of the reward mends this: compare --target residual and"
            " direct, --rollouts.real-ratio 0.5, and --algo sac (which channels: rollout error)",
        }[_worst(bias)]


def _worst(bias: Bias) -> str:
    """The part that pulls most in the direction of the bias."""
    return max(bias.parts, key=lambda n: bias.parts[n].value * np.sign(bias.bias.value))


def critic_account(
    agent: Agent,
    paths: Sequence[Path],
    noise: Sequence[np.ndarray],
    clusters: np.ndarray,
    model: WorldModel | None = None,
    nudges: Sequence[Sequence[Nudges]] = (),
    nudged_steps: Sequence[int] = (1, 5, 20),
    paid: tuple[float, float] = (0.0, 0.0),
    seed: int = 0,
) -> CriticAccount:
    """Compare the critic with what true branches of the policy returned.

    Args:
        agent: policy and critics.
        paths: branches of the policy from n real states.
        noise: what the policy drew at each observation of a branch, (T + 1 or more, A).
        clusters: episode of each branch, (n,).
        model: the run's model; None: its terms are absent.
        nudges: for each branch its nudged ones, at least two replicates, or none.
        nudged_steps: steps of simulator under the true gradient.
        paid: the lowest and highest reward ever met, where that is beyond what branches show.
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
    return CriticAccount(
        twins={
            name: _bias(Account(*(x[whole] for x in a)), labels[whole], model, seed)
            for name, a in told.items()
        },
        slopes=action_slopes(agent, paths, np.asarray(clusters), nudges, nudged_steps, seed),
        horizon=max(path.steps for path in used),
        left=float(told["smaller"].left.mean()),
        temperature=agent.temperature,
        states=int(whole.sum()),
        left_out=len(paths) - int(whole.sum()),
        possible=_possible(agent, used, paid, float(told["smaller"].bonus.max())),
    )


def _possible(
    agent: Agent, paths: Sequence[Path], paid: tuple[float, float], bonus: float
) -> tuple[float, float]:
    low = min(paid[0], *(float(path.reward.min()) for path in paths))
    high = max(paid[1], *(float(path.reward.max()) for path in paths))
    # On [−1, 1] no policy has more entropy than the uniform one; it may have any amount less.
    most = agent.temperature * agent.act_dim * math.log(2)
    return possible_values((low, high), bonus, most, agent.discount)


def _bias(a: Account, clusters: np.ndarray, model: WorldModel | None, seed: int) -> Bias:
    parts = {"critic_fit": a.fit}
    if model is not None:
        parts |= {"reward_model": a.reward, "next_state_model": a.state}
        if model.penalty is not None:
            parts |= {"penalty": a.penalty}
    u, v = a.value - a.value.mean(), a.truth - a.truth.mean()
    terms = np.stack([u, v, u * u, v * v, u * v], axis=1)
    calibration, correlation = bootstrap_means(terms, _calibration, seed, clusters)
    gap = np.abs(a.value - a.truth - sum(parts.values())).max()
    return Bias(
        value=mean_estimate(a.value, clusters),
        truth=mean_estimate(a.truth, clusters),
        bias=mean_estimate(a.value - a.truth, clusters),
        parts={name: mean_estimate(part, clusters) for name, part in parts.items()},
        calibration=calibration,
        correlation=correlation,
        spread=float(a.truth.std()),
        identity_gap=float(gap / max(np.abs(a.value).max(), np.abs(a.truth).max(), 1e-30)),
    )


def _calibration(means: np.ndarray) -> np.ndarray:
    x, y, xx, yy, xy = means.T
    var_x, var_y, cov = xx - x**2, yy - y**2, xy - x * y
    both = np.sqrt(np.maximum(var_x * var_y, 0))
    return np.stack([over(cov, var_x), over(cov, both)], axis=1)
