"""Paired forks: what one change does to the *agent*, from one checkpoint on.

Every fork goes on with the same agent and replay and differs in one thing; within a seed all forks
have the same randomness. A model is trained anew in each of them, also where nothing is changed, so
that no arm has an older one. This is the only instrument that trains agents (``--full``), and the
only one that says of an agent, not of a model, what a change is worth.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ftfl.forensics.evidence import Estimate, Finding, Numbers, mean_estimate

REAL_ALONE = "real rows alone"
"""The arm without a model: the same agent and as many updates, from real transitions alone."""
RULE = (
    "the whole 95 % Student-t interval of the difference over paired seeds lies beyond 0, not"
    " widened for the number of arms; fewer than two seeds judge nothing"
)


@dataclass(frozen=True)
class ForkArm:
    """What became of the agent under one change; arrays have one entry a seed."""

    name: str
    advice: str
    """The change as options of ``ftfl train``."""
    returns: np.ndarray
    """(S,): mean over the fork's evaluations."""
    looks: Mapping[str, np.ndarray]
    """(S,) each: what training logged last, by metric."""


@dataclass(frozen=True)
class PairedForks:
    """The result of `train_forks`, of a run with a model (first arm: as it is) or without one."""

    arms: tuple[ForkArm, ...]
    """The first is the run as it is."""
    seeds: tuple[int, ...]
    steps: int
    """Environment steps that every fork took."""
    before: float | None
    """The run's own last evaluation before the forks' checkpoint; None: there was none."""
    folder: str
    """Where the forks lie; they are ordinary runs."""

    def gains(self) -> dict[str, Estimate]:
        """Return of every changed arm less that of the run as it is, over paired seeds."""
        base, *others = self.arms
        return {arm.name: mean_estimate(arm.returns - base.returns) for arm in others}

    def numbers(self) -> Numbers:
        """Everything, by name."""
        return {
            "steps": self.steps,
            "seeds": list(self.seeds),
            "return_before_reward": self.before,
            "folder": self.folder,
            "arms": {
                arm.name: {
                    "return_reward": mean_estimate(arm.returns),
                    **{name: mean_estimate(values) for name, values in arm.looks.items()},
                }
                for arm in self.arms
            },
            "return_gained_reward": self.gains(),
        }

    def findings(self) -> list[Finding]:
        """Whether synthetic data hurt or helped the agent, and which change helps it."""
        gains = self.gains()
        base = self.arms[0]
        has_model = REAL_ALONE in gains
        found = [self._synthetic(gains[REAL_ALONE])] if has_model else []
        others = {k: v for k, v in gains.items() if k != REAL_ALONE}
        clear = {k: v for k, v in others.items() if v.above(0.0)}
        before = mean_estimate(base.returns)
        if clear:
            best = max(clear, key=lambda name: clear[name].value)
            arm = next(a for a in self.arms if a.name == best)
            found.append(
                Finding(
                    f"agent-gains-by-{best}".replace(" ", "-"),
                    "warning",
                    f"the same agent, {self.steps:,} steps on with {best}, returns"
                    f" {mean_estimate(arm.returns).value:.3g} instead of {before.value:.3g}.",
                    {"as_it_is": before, "gain": clear[best]},
                    RULE,
                    arm.advice,
                )
            )
        elif has_model and gains[REAL_ALONE].above(0.0):
            found.append(
                Finding(
                    "no-change-saves-the-agent",
                    "warning",
                    "no change of the model that was tried gives the agent clearly more than the"
                    f" run as it is ({before.value:.3g}).",
                    {"as_it_is": before} | {f"gain_{k}": v for k, v in others.items()},
                    RULE,
                    "train without a model here: --algo sac, with --sac.critic-layer-norm at many"
                    " updates a step",
                )
            )
        return [finding for finding in found if finding is not None]

    def _synthetic(self, gain: Estimate) -> Finding | None:
        """What real rows alone do for the same agent: the whole effect of the model's data."""
        hurt = gain.above(0.0)
        if not hurt and not gain.below(0.0):
            return None
        base = mean_estimate(self.arms[0].returns)
        return Finding(
            f"synthetic-data-{'hurt' if hurt else 'helped'}-the-agent",
            "failure" if hurt else "info",
            f"the same agent with as many updates from real rows alone, {self.steps:,} steps on,"
            f" returns {abs(gain.value):.3g} {'more' if hurt else 'less'} than the run as it is"
            f" ({base.value:.3g}).",
            {"as_it_is": base, "gain": gain},
            RULE,
            "--algo sac, or what another fork below or the findings on model and critic name"
            if hurt
            else "",
        )
