"""What speed, autocorrelation and jumps of observation channels predict for a model."""

from __future__ import annotations

import math

import numpy as np

from ftfl.config import DynamicsConfig
from ftfl.forensics.evidence import Finding, Severity
from ftfl.forensics.foresight_reward import UNCALIBRATED
from ftfl.forensics.profile import Profile

SLOW = 0.05
SLOW_RULE = (
    "a direct prediction must be precise to a small part of the channel to beat persistence; below"
    " 0.05 it was not in 400 updates on a synthetic channel of ratio 0.045, where a residual was"
    f" (tests of the instrument); for real tasks a {UNCALIBRATED}"
)
DROWNED_RULE = (
    "the change is below the least std that a raw model can predict, in physical units: a drawn"
    " step is then mostly noise, with residual and with direct targets. Exact arithmetic; that more"
    " than a quarter of the channels spoil returns was seen on the probes channel-unit and slow"
    " (benchmarks/probes)"
)
INTERMITTENT = 0.5
INTERMITTENT_RULE = (
    "unchanged in more than half of all steps, or more than half of all squared change in one step"
    " of a hundred (a Gaussian channel: 8 %) without carrying on from the change before (their"
    " correlation is below ½). The paper names discontinuous channels as what FTFL"
    f" does not repair; the thresholds are conventions, their effect a {UNCALIBRATED}"
)
FAST_RULE = (
    "where κ < ½ the residual is a larger target than the next state, Var(Δ) = 2(1 − κ) Var(s)."
    " On probe/autocorrelation at unit scale (10 seeds) errors were in proportion to the target's"
    " std, times 1.1 to 1.4 in the residual's favour: direct targets were better at κ = −0.5 and"
    " below, neither at 0 and ¼, residual ones from ½ up. Returns did not follow;"
    " HalfCheetah has 65 % such channels and MBPO learns it"
)
SPIKE = 30.0
SPIKE_RULE = (
    "a standardised target beyond 30 std weighs as much in a squared error as 900 usual rows;"
    f" {UNCALIBRATED}"
)


def channel_findings(seen: Profile, config: DynamicsConfig) -> list[Finding]:
    """Channels that one target or the other represents badly."""
    found: list[Finding] = []
    moving = seen.moving
    if not moving.any():
        return found
    ratio, kappa = seen.ratio, seen.kappa
    floor = math.exp(0.5 * config.logvar_min)

    def add(
        name: str, severity: Severity, which: np.ndarray, text: str, rule: str, advice: str
    ) -> None:
        share = float(which[moving].mean())
        found.append(
            Finding(
                name,
                severity,
                f"{text} ({seen.some(which)}).",
                {"channels_share": share, "median_change_over_std": float(np.nanmedian(ratio))},
                rule,
                advice,
            )
        )

    slow = moving & (ratio < SLOW)
    count = int(moving.sum())
    if slow.sum() * 2 > count:
        add(
            "slow-channels", "warning", slow,
            f"{slow.sum()} of {count} moving channels change by less than {SLOW:.0%} of their std"
            " a step: direct prediction needs a resolution that residual targets have for free",
            SLOW_RULE, "--target residual (mbpo-unit) or innovation, or --action-repeat 2",
        )  # fmt: skip
    drowned = moving & (ratio < floor)
    if drowned.any():
        add(
            "slow-channels-below-floor", "warning", drowned,
            f"under ftfl the least std drawn exceeds the one-step change in {drowned.sum()} of"
            f" {count} moving channels",
            f"the change is below {floor:.2g} of the channel's std, the model's lower bound: a"
            " drawn step is then noise; exact arithmetic. On probe/slow@6 (5 seeds) ftfl's median"
            " return was −65, mbpo-unit's −10, SAC's −1.6; a floor by the change did not help ftfl"
            " clearly (−50)",
            "--target residual --scale unit (mbpo-unit): its floor is relative to the change",
        )  # fmt: skip
    silenced = moving & (seen.change < floor)
    if silenced.sum() * 4 > count:
        add(
            "changes-below-floor", "warning", silenced,
            f"with raw targets the least std drawn, {floor:.2g}, exceeds the one-step change in"
            f" {silenced.sum()} of {count} moving channels",
            DROWNED_RULE, "--scale unit",
        )  # fmt: skip
    fast = moving & (kappa < 0.5)
    if fast.sum() * 4 > count:
        add(
            "residuals-larger-than-states", "info", fast,
            f"{fast.sum()} of {count} moving channels have κ < ½: their change is a larger target"
            " than their next value", FAST_RULE,
            "compare --target direct (better only well below κ = 0), or innovation, with residual",
        )  # fmt: skip
    capped = moving & (seen.change > math.exp(0.5 * config.logvar_max))
    if capped.sum() * 4 > count:
        add(
            "changes-above-cap", "info", capped,
            f"{capped.sum()} of {count} moving channels change by more than the largest std a raw"
            " model can predict, so that it cannot say how little it knows at the start",
            f"std of the change above {math.exp(0.5 * config.logvar_max):.3g}, the upper bound;"
            f" harmless once the error is below it; {UNCALIBRATED}", "compare with --scale unit",
        )  # fmt: skip
    sudden = (seen.jump > INTERMITTENT) & (seen.continued < 0.5)
    jumping = moving & ((seen.still > INTERMITTENT) | sudden)
    if jumping.any():
        add(
            "intermittent-channels", "warning", jumping,
            f"{jumping.sum()} of {count} moving channels rest and then jump",
            INTERMITTENT_RULE,
            "none known that mends it: on probe/jump --target residual --scale raw (mbpo) was hurt"
            " least; compare with --algo sac",
        )  # fmt: skip
    spiked = moving & (seen.extreme > SPIKE)
    if spiked.any():
        add(
            "near-constant-channels", "warning", spiked,
            f"{spiked.sum()} of {count} moving channels are almost constant but for rare spikes,"
            " which standardisation blows up", SPIKE_RULE,
            "leave such channels out of the observation, or clip them, in the environment",
        )  # fmt: skip
    return found
