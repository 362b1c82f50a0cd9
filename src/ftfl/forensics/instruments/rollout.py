"""Rollout error: where the model says the policy leads, against where it leads.

From the same real states the model and the simulator are given the same actions, and go their own
ways for k steps, each elite on a branch of its own with the noise it predicts, as in training.
Errors are told in two units: the channel's own spread over the data, and its one-step change, for
near 1 of R² comes free where nothing moves. Skill against persistence (ŝ′ = s) says whether the
model is better than no model: 1 is exact, 0 no better, negative worse. Imagined states outside the
range of all real data are places no reward or critic was ever fitted to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from ftfl.errors import FtflError
from ftfl.forensics.advice import QUIETER
from ftfl.forensics.branches import Path
from ftfl.forensics.channel_errors import ChannelErrors
from ftfl.forensics.evidence import Estimate, Finding, Numbers, mean_estimate
from ftfl.forensics.imagined import ABSURD, side_by_side
from ftfl.forensics.learned import WorldModel

STEPS = 5
_ASTRAY = 0.2

Source: TypeAlias = Literal["own actions", "stored actions"]


@dataclass(frozen=True)
class RolloutError:
    """The result of `rollout_error`; arrays over k steps and O channels."""

    names: tuple[str, ...]
    source: Source
    error_in_std: np.ndarray
    """(k, O): root mean square error of a draw, in the channel's std; NaN for constants."""
    error_in_std_interval: np.ndarray
    """(2, k, O): low and high of its 95 % interval, as the next two."""
    error_in_change: np.ndarray
    """(k, O): the same in the std of its one-step change."""
    skill: np.ndarray
    """(k, O): 1 − squared error over that of persistence."""
    skill_interval: np.ndarray
    skill_of_mean: np.ndarray
    """(O,): one step, the elites' mean without noise."""
    skill_of_mean_interval: np.ndarray
    """(2, O)"""
    median_skill: list[Estimate]
    """Over channels, by step."""
    median_error_in_std: list[Estimate]
    median_skill_of_mean: Estimate
    outside: list[Estimate]
    """Share of imagined states outside the data's range in some channel, by step."""
    outside_really: list[Estimate]
    """Share of the true states outside it."""
    wrong_end: Estimate
    """Share of first steps in which the model is wrong about the episode's end."""
    nonfinite: list[int]
    """By step, as the next two."""
    absurd: list[int]
    rows: list[int]
    """Imagined states."""
    used: int
    """Steps that the run's own branches have now; later ones are told as info."""

    def numbers(self) -> Numbers:
        """By name; lists run over steps, and those in ``by_channel`` over ``channels`` then."""
        return {
            "actions": self.source,
            "median_skill": self.median_skill,
            "median_skill_of_mean_one_step": self.median_skill_of_mean,
            "median_error_in_std": self.median_error_in_std,
            "outside_data_share": self.outside,
            "truly_outside_data_share": self.outside_really,
            "wrong_end_share": self.wrong_end,
            "nonfinite_rows_count": sum(self.nonfinite),
            "absurd_rows_count": sum(self.absurd),
            "imagined_rows_count": sum(self.rows),
            "branch_length_steps": self.used,
            "channels": list(self.names),
            "by_channel": {
                "skill": self.skill.tolist(),
                "skill_low_high": self.skill_interval.tolist(),
                "skill_of_mean_one_step": self.skill_of_mean.tolist(),
                "skill_of_mean_one_step_low_high": self.skill_of_mean_interval.tolist(),
                "error_in_std": self.error_in_std.tolist(),
                "error_in_std_low_high": self.error_in_std_interval.tolist(),
                "error_in_change": self.error_in_change.tolist(),
            },
        }

    def findings(self) -> list[Finding]:
        """Whether imagined states can be learned from."""
        found = self._absurd()
        one, mean = self.median_skill[0], self.median_skill_of_mean
        if one.below(0):
            noisy = mean.above(0)
            found.append(
                Finding(
                    "worse-than-persistence", "failure" if not noisy else "warning",
                    f"Assuming that nothing moves beats the model: a draw's median skill over"
                    f" channels is {one} after one step"
                    + (f", while its mean has {mean}: the noise it adds is the harm." if noisy
                       else f", its mean's {mean}."),
                    {"median_skill": one, "median_skill_of_mean": mean},
                    "skill below 0 by the whole interval in the median channel; on probes half of"
                    " the runs that learned well had it, too (docs/taxonomy.md)",
                    "--target residual or innovation, and more updates" if not noisy else
                    QUIETER,
                )
            )  # fmt: skip
        lost = self._channels_without_skill()
        if lost and not one.below(0):
            shown = ", ".join(lost[:5]) + (" …" if len(lost) > 5 else "")
            found.append(
                Finding(
                    "channels-without-skill", "info",
                    f"{len(lost)} of {len(self.names)} channels are predicted worse than by"
                    f" assuming that they do not move: {shown}.",
                    {"channels": float(len(lost))},
                    "one-step skill of a draw below 0 by the whole interval in the channel",
                    QUIETER,
                )
            )  # fmt: skip
        for step in sorted({0, min(self.used, len(self.outside)) - 1, len(self.outside) - 1}):
            out, real = self.outside[step], self.outside_really[step]
            if out.low - real.high > _ASTRAY:
                found.append(
                    Finding(
                        "imagined-states-outside-data", "warning" if step < self.used else "info",
                        f"After {step + 1} step{'s' * (step > 0)} {out} of imagined states lie"
                        f" outside all real data, where truly {real} do{self._beyond(step)}.",
                        {"imagined": out, "true": real},
                        f"intervals more than {_ASTRAY:g} apart; a convention, counted in"
                        " docs/taxonomy.md; an info beyond the steps that the run's branches have",
                        self._shorter(step),
                    )
                )  # fmt: skip
                break
        return found

    def _absurd(self) -> list[Finding]:
        """States that no replay should hold; in steps the run does not take, they are an info."""
        bad = np.add(self.nonfinite, self.absurd)
        if not bad.any():
            return []
        step = int(np.flatnonzero(bad)[0])
        last = self.used if step < self.used else len(bad)
        nonfinite, absurd = sum(self.nonfinite[:last]), sum(self.absurd[:last])
        return [
            Finding(
                "absurd-states", "failure" if step < self.used else "info",
                f"{nonfinite + absurd} of {sum(self.rows[:last])} imagined states within {last}"
                f" step{'s' * (last > 1)} are not finite ({nonfinite}) or more than {ABSURD:g}"
                f" ranges outside all real data ({absurd}){self._beyond(step)}.",
                {"nonfinite": float(nonfinite), "absurd": float(absurd)},
                f"any state {ABSURD:g} times the data's whole range away: no real transition can"
                " span more than one range; an info beyond the steps that the run's branches have",
                self._shorter(step),
            )
        ]  # fmt: skip

    def _beyond(self, step: int) -> str:
        if step < self.used:
            return ""
        return f" (this run's own branches have {self.used} step{'s' * (self.used > 1)})"

    def _shorter(self, step: int) -> str:
        if step >= self.used:
            return f"keep branches at {self.used} step{'s' * (self.used > 1)}"
        rejects = "--screen macura rejects rows of which the model is not sure"
        if self.used == 1:
            return rejects
        return f"--rollouts.length 0 1 1 1 keeps branches at one step; {rejects}"

    def _channels_without_skill(self) -> list[str]:
        with np.errstate(invalid="ignore"):
            return [n for n, s in zip(self.names, self.skill_interval[1, 0], strict=True) if s < 0]


def rollout_error(
    model: WorldModel,
    paths: Sequence[Path],
    clusters: np.ndarray,
    obs: np.ndarray,
    next_obs: np.ndarray,
    names: tuple[str, ...],
    source: Source = "own actions",
    steps: int = STEPS,
    seed: int = 0,
    used: int | None = None,
) -> RolloutError:
    """Let the model repeat what the simulator did from the same states with the same actions.

    Args:
        model: the run's model.
        paths: true branches; only their first ``steps`` steps are used, and those that end sooner
            count as long as they last.
        clusters: episode of each path, (n,).
        obs, next_obs: stored rows (N, O): what is the range, the spread and the usual change.
        names: of the channels.
        source: whose actions the paths hold.
        steps: k.
        seed: of the model's draws and the bootstraps.
        used: steps that the run's own branches have; None: ``steps``.

    Raises:
        FtflError: no path has a step, no prediction is finite, or no channel ever changes.
    """
    kept = [i for i, path in enumerate(paths) if path.steps]
    if not kept:
        raise FtflError("no branch of the simulator has a step, so there is nothing to compare.")
    paths, clusters = [paths[i] for i in kept], np.asarray(clusters)[kept]
    steps = min(steps, max(path.steps for path in paths))
    low, high = np.minimum(obs.min(0), next_obs.min(0)), np.maximum(obs.max(0), next_obs.max(0))
    told = side_by_side(model, paths, steps, low, high, np.random.default_rng(seed))
    if not told.moments:
        raise FtflError(f"none of the model's {sum(told.rows)} predictions is finite.")
    channels = ChannelErrors.over(obs, next_obs, seed)
    if not channels.moves.any():
        raise FtflError("no observation entry ever changes, so there is no next state to predict.")
    by_step = [(moment, clusters[moment.alive]) for moment in told.moments]
    first, labels = by_step[0]
    error = np.stack([channels.in_std(m.squared, c) for m, c in by_step], axis=1)
    skill = np.stack([channels.skill(m.squared, m.still, c) for m, c in by_step], axis=1)
    of_mean = channels.skill(told.squared_of_mean, first.still, labels)
    return RolloutError(
        names=names,
        source=source,
        error_in_std=error[0],
        error_in_std_interval=error[1:],
        error_in_change=channels.in_change(error[0]),
        skill=skill[0],
        skill_interval=skill[1:],
        skill_of_mean=of_mean[0],
        skill_of_mean_interval=of_mean[1:],
        median_skill=[channels.median_skill(m.squared, m.still, c) for m, c in by_step],
        median_error_in_std=[channels.median_in_std(m.squared, c) for m, c in by_step],
        median_skill_of_mean=channels.median_skill(told.squared_of_mean, first.still, labels),
        outside=[mean_estimate(m.outside, c) for m, c in by_step],
        outside_really=[mean_estimate(m.outside_really, c) for m, c in by_step],
        wrong_end=mean_estimate(told.wrong_end, labels),
        nonfinite=told.nonfinite,
        absurd=told.absurd,
        rows=told.rows,
        used=steps if used is None else used,
    )
