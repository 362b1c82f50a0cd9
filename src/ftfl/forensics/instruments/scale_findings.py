"""What the numbers of target scales say, and by which rules."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from ftfl.forensics.advice import QUIETER
from ftfl.forensics.evidence import Estimate, Finding, Severity

if TYPE_CHECKING:
    from ftfl.forensics.instruments.scales import Scales

STEP_WARNING, STEP_FAILURE = 0.3, 1.0
STEP_RULE = (
    "one update moves the reward's mean by more than 0.3 (warning) or 1 (failure) of its std:"
    " measured on Pendulum with the dial (benchmarks/unit_dial/results/doors.csv, 9 refits), 0.003"
    " went with R² 0.99, 0.4 to 0.75 with 0.57 to 0.68, 6 to 12 with −69 to −115; one task and one"
    " network size, so the threshold is a first calibration"
)
STARVED = 0.1
STARVED_RULE = (
    "the reward has less than a tenth of an equal share (1/√D) of what the data say to the trunk;"
    " a convention, counted in docs/taxonomy.md: that so small a share starves the reward is a"
    " hypothesis, and on the unit dial a trunk of its own did not help"
)
NOISE = 0.3
NOISE_RULE = (
    "the least std the model can predict is above 0.3 of the reward's std: noise of 0.3 std in"
    " every synthetic reward takes 0.3² = 9 % from the R² of drawn rewards, whatever was learned"
)
STATES_WARNING, STATES_FAILURE = 5e-3, 3e-4
STATES_RULE = (
    "√(V/(1 + V)), the states' share of what raw targets say to a shared trunk at the start, is"
    " below 0.005 (failure: below 0.0003 by the whole interval; info where the interval leaves"
    " 0.005 open). On probe/rest with the reward paid 2⁴, 2⁸ and 2¹² times (share 0.018, 0.001,"
    " 0.00007; 5 seeds, benchmarks/probes) mbpo's skill in states was 1, then between −1.2 and 1,"
    " then −3 to −7, its R² of the reward above 0.8 throughout; unit scale noticed nothing. One"
    " task and one size of network"
)


def states_starved(v: Estimate, advice: str) -> list[Finding]:
    """What follows where raw rewards outweigh all changes of the state, V = Σ Var(Δ) / Var(r)."""

    def share(v: float) -> float:
        return math.sqrt(v / (1.0 + v)) if math.isfinite(v) else 1.0

    low, middle, high = (share(max(x, 0.0)) for x in (v.low, v.value, v.high))
    if not middle < STATES_WARNING:
        return []
    severity: Severity = "warning" if high < STATES_WARNING else "info"
    return [
        Finding(
            "states-starved",
            "failure" if high < STATES_FAILURE else severity,
            f"with raw targets the states have {middle:.1e} of what the data say to the shared"
            f" network at the start: the reward drowns them (V = {v.value:.1e}"
            + (")." if severity == "warning" else "; these data leave it open)."),
            {
                "dynamics_over_reward": v,
                "states_signal_share": Estimate(middle, low, high, v.n, v.method),
            },
            STATES_RULE,
            advice,
        )
    ]


def reward_findings(scales: Scales) -> list[Finding]:
    """What the reward's size, or the states' beside it, does to a raw model."""
    if scales.table.names[-1] != "reward" or scales.table.std[-1].value == 0:
        return []
    floored = _reward_below_floor(scales)
    start, now = scales.at_start, scales.trained
    if start is None or now is None:
        return floored
    found: list[Finding] = []
    step = now.reward_step_over_std
    if step.value > STEP_WARNING:
        found.append(
            Finding(
                "reward-below-adam-step",
                "failure" if step.above(STEP_FAILURE) else "warning",
                f"one model update throws a member's reward prediction by {step.value:.2g} times"
                " the spread of real rewards.",
                {"step_over_std": step, "reward_std": scales.table.std[-1]},
                STEP_RULE,
                "--scale unit",
            )
        )
    share, equal = start.signal_gradient, start.outputs**-0.5
    if share.below(STARVED * equal):
        found.append(
            Finding(
                "reward-starved",
                "warning",
                f"at the start the reward has {share.value:.1e} of what the data say to the shared"
                f" trunk; an equal share would be {equal:.2g}.",
                {
                    "signal_gradient_share": share,
                    "equal_share": equal,
                    "dynamics_over_reward": scales.table.dynamics_over_reward,
                },
                STARVED_RULE,
                "--scale unit (or --dynamics.reward-model separate, to see whether the trunk is"
                " the door)",
            )
        )
    if scales.cell.endswith("raw"):
        v = _taught(scales)
        found += states_starved(v, "--scale unit, or --dynamics.reward-model separate")
    return [*found, *floored]


def _taught(scales: Scales) -> Estimate:
    """V by what the trunk is taught: the targets' variances, whichever the target is."""
    v, table = scales.table.dynamics_over_reward, scales.table
    change = sum(s.value**2 for s in table.change_std[:-1])
    target = sum(s.value**2 for s in table.std[:-1])
    ratio = target / change if change > 0 else 1.0
    return Estimate(ratio * v.value, ratio * v.low, ratio * v.high, v.n, v.method)


def _reward_below_floor(scales: Scales) -> list[Finding]:
    floor = float(scales.floor_std[-1]) / scales.table.std[-1].value
    if floor <= NOISE or not scales.draws_reward:
        return []
    return [
        Finding(
            "reward-below-floor",
            "warning",
            f"the least std the model can predict is {floor:.2g} times the spread of real rewards"
            + (", so drawn rewards are mostly noise." if floor > 1 else "."),
            {"floor_over_std": floor, "near_floor_share": float(scales.near_floor[-1])},
            NOISE_RULE,
            "--scale unit, or --dynamics.reward-draw mean, or a lower --dynamics.logvar-min",
        )
    ]


def bound_findings(scales: Scales) -> list[Finding]:
    """Channels whose uncertainty the bounds decide instead of the data."""
    found: list[Finding] = []
    channels = len(scales.table.change_std) - int(scales.table.names[-1] == "reward")
    change = np.array([s.value for s in scales.table.change_std[:channels]])
    floor = scales.floor_std[:channels]
    drowned = (change > 0) & (floor > change)
    if drowned.any():
        worst = int(np.argmax(np.where(drowned, floor / np.where(drowned, change, 1), 0)))
        found.append(
            Finding(
                "slow-channels-below-floor",
                "warning",
                f"in {drowned.sum()} of {channels} channels the least std the model can predict"
                f" exceeds the typical one-step change (worst: {scales.table.names[worst]},"
                f" {floor[worst] / change[worst]:.2g} times).",
                {
                    "channels_share": float(drowned.mean()),
                    "worst_floor_over_change": float(floor[worst] / change[worst]),
                },
                "noise drawn in every synthetic step is larger than the step itself: the best"
                " possible prediction is then worse than persistence",
                QUIETER,
            )
        )
    capped = (scales.held_out_rms > scales.cap_std) & (scales.near_cap > 0.5)
    if capped.any():
        named = ", ".join(np.array(scales.table.names)[capped][:5])
        named += " …" if capped.sum() > 5 else ""
        found.append(
            Finding(
                "uncertainty-capped",
                "warning",
                f"in {capped.sum()} of {len(capped)} outputs ({named}) the model errs by more than"
                " the largest std it can predict.",
                {"outputs_share": float(capped.mean())},
                f"{scales.tested_on} error above the bound, and most predictions within ln 2 of it,"
                " where the bound passes on less than half of the gradient",
                "--scale unit, or a higher --dynamics.logvar-max",
            )
        )
    return found
