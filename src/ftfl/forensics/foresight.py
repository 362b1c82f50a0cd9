"""What a task's structure predicts for synthetic data, before training.

Every rule here is a prediction. Where it rests on a measurement the threshold names it; all others
are hypotheses and say so. How often they are right is counted on probes (docs/taxonomy.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ftfl.config import DynamicsConfig
from ftfl.forensics.evidence import Finding, Severity, by_severity
from ftfl.forensics.foresight_channels import channel_findings
from ftfl.forensics.foresight_reward import UNCALIBRATED, is_blind, reward_findings
from ftfl.forensics.profile import Profile

MANY = 50
MANY_RULE = (
    "the joint loss averages over all outputs, so unit scale leaves the reward 1/D of the loss and"
    f" 1/√D of the gradient; that 50 is many is a {UNCALIBRATED}"
)


_SCALE = {"reward-below-adam-step", "reward-below-floor", "reward-starved", "states-starved",
          "changes-below-floor"}  # fmt: skip
"""Failure modes that unit scale mends."""
_SLOW = {"slow-channels", "slow-channels-below-floor"}
"""Failure modes that residual targets at unit scale mend."""


@dataclass(frozen=True)
class Recommendation:
    """What to start with; ``preset`` is None where the data cannot say."""

    preset: str | None
    because: str

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; ``verified_by_training`` says that this command trains no agent."""
        return {
            "preset": self.preset,
            "because": self.because,
            "verified_by_training": False,
        }


@dataclass(frozen=True)
class Foresight:
    """Predicted failure modes, the worst first, and what to start with."""

    findings: list[Finding]
    recommended: Recommendation


def foresee(seen: Profile, config: DynamicsConfig, source: str, faults: int = 0) -> Foresight:
    """Predict from a profile what a model configured like ``config`` will have trouble with.

    Args:
        seen: the task's structure.
        config: network and learning rate that a run would use.
        source: whose actions the profile shows, for example ``random actions``.
        faults: steps that failed while it was taken.
    """
    found = [
        *_termination(seen),
        *reward_findings(seen, config, source),
        *channel_findings(seen, config),
        *_conduct(seen, faults),
    ]
    told: dict[str, Severity] = {finding.name: finding.severity for finding in found}
    return Foresight(by_severity(found), recommend(told, is_blind(seen)))


def recommend(found: Mapping[str, Severity], blind: bool) -> Recommendation:
    """What to start with, from the findings by name; an info decides nothing.

    Args:
        found: severity of each finding.
        blind: the transitions say nothing of the reward's size.
    """
    names = {name for name, severity in found.items() if severity != "info"}
    scale = sorted(names & _SCALE)
    slow = bool(names & _SLOW)
    if "termination-unknown" in names:
        return Recommendation("sac", "no model can be used until the task says how it ends")
    if "nothing-moves" in names:
        return Recommendation(None, "cannot tell yet: in these transitions nothing moves")
    if blind:
        return Recommendation(
            None, "cannot tell yet: these transitions do not show what the reward is like"
        )
    if "reward-rare" in names:
        return Recommendation(
            "sac",
            "so few steps carry the reward that models learn little of it, in any target cell; once"
            " a run has found more, diagnose again with --policy RUN_DIR",
        )
    if not scale and not slow:
        return Recommendation(
            "mbpo",
            "nothing found that the repairs would mend; compare with sac and ftfl all the same",
        )
    if slow:
        return Recommendation(
            "mbpo-unit",
            f"unit scale against {', '.join(scale or sorted(names & _SLOW))}; residual targets,"
            " because of slow channels; compare with ftfl, which the paper recommends",
        )
    return Recommendation(
        "ftfl", f"unit scale against {', '.join(scale)}; direct prediction as in the paper"
    )


def _conduct(seen: Profile, faults: int) -> list[Finding]:
    """Whatever else a user should know of the task and of this sample."""
    found: list[Finding] = []
    constant = int((~seen.moving).sum())
    if constant == seen.spec.obs_dim:
        found.append(
            Finding(
                "nothing-moves", "warning",
                f"no observation channel ever changes in these {seen.rows} steps, so nothing that"
                " concerns states is predicted.",
                {"channels": float(constant)}, "std of every change below 10⁻⁶ of its size",
                "look at the environment (ftfl doctor TASK) or at the file that was given",
            )
        )  # fmt: skip
    elif constant:
        found.append(
            Finding(
                "constant-channels", "info",
                f"{constant} of {seen.spec.obs_dim} channels never change"
                f" ({seen.some(~seen.moving)}).",
                {"channels": float(constant)},
                "std of the change below 10⁻⁶ of its size",
                "nothing: a constant target is predicted exactly and not learned",
            )
        )  # fmt: skip
    if seen.outputs > MANY:
        found.append(
            Finding(
                "many-outputs", "info",
                f"the reward is one of {seen.outputs} outputs: at unit scale it has"
                f" {1 / seen.outputs:.1%} of the loss.",
                {"outputs": float(seen.outputs)}, MANY_RULE,
                "--dynamics.reward-model separate gives the reward a network and a loss of its own",
            )
        )  # fmt: skip
    if seen.episodes < 2:
        found.append(
            Finding(
                "one-episode", "info",
                "all steps belong to one episode, so no interval can be given.",
                {"episodes": float(seen.episodes)},
                "steps of one episode depend on each other; intervals rest on episodes",
                "more --steps, or data of several episodes",
            )
        )  # fmt: skip
    if faults:
        found.append(
            Finding(
                "environment-faults", "warning",
                f"{faults} steps broke the environment's contract and were left out.",
                {"faults": float(faults)}, "any", "ftfl doctor TASK",
            )
        )  # fmt: skip
    return found


def _termination(seen: Profile) -> list[Finding]:
    if seen.termination != "unknown":
        return []
    return [
        Finding(
            "termination-unknown",
            "failure",
            "the environment does not say when an episode ends, so no synthetic step can be made.",
            {"terminated_share": seen.terminated_share},
            "a model-based algorithm refuses such a task",
            "set termination_fn on the environment: a JAX function, 'never' or 'learned'",
        )
    ]
