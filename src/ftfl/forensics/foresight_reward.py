"""What the size and the rarity of a reward predict for a model with raw targets."""

from __future__ import annotations

import itertools
import math

from ftfl.config import DynamicsConfig
from ftfl.forensics.evidence import Estimate, Finding
from ftfl.forensics.instruments.scale_findings import (
    NOISE,
    STARVED,
    STEP_FAILURE,
    STEP_WARNING,
    states_starved,
)
from ftfl.forensics.profile import Profile

UNCALIBRATED = "hypothesis, not calibrated"
MIN_REWARD_ROWS, MIN_REWARD_EPISODES = 10, 1.5
BLIND_RULE = (
    "fewer than 10 rows carry the reward's variance (even if independent, its standard error is"
    " then near half of it: √(2/10) = 45 %), or one episode of several carries it all, so that"
    " nothing is known of the others: with two seeds of 10,000 random steps V was 50 and 9,000 on"
    " acrobot-swingup"
)
RANDOM = "random actions"
"""The source of transitions where nobody chose the actions."""
RARE_REWARD_ROWS = 100
RARE_SHARE = 0.01
RARE_RULE = (
    "under 1 % of the steps carry the reward's variance. Refits of SAC's replays on three tasks"
    " (docs/findings.md): at unit scale a member's R² of the reward was 0.08 and 0.09 where 0.16 %"
    " carried it, 0.33 to 0.39 at 0.6 and 0.7 %, 0.29 to 0.64 at 2 to 21 %. One run of SAC a task"
)
STEP_FACTOR = 0.04
STEP_RULE = (
    "predicted: one Adam update moves a raw reward head by about 0.04 √weights × learning rate"
    " (measured on Pendulum and linear data, networks of 2×64 and 4×200: 0.02 to 0.13). Warning"
    " above 0.3 of the reward's std, failure if the whole interval is above 1: on the unit dial 0.4"
    " to 0.75 went with a member's R² of 0.57 to 0.68, 6 to 12 with −69 to −115"
    " (benchmarks/unit_dial)"
)
NOISE_RULE = (
    "a raw model's least std is above 0.3 of the reward's std: noise of 0.3 std takes 9 % from the"
    f" R² of drawn rewards; that this matters to the agent is a {UNCALIBRATED}"
)
STARVED_RULE = (
    "√(1/(1 + V)), the reward's share of what raw targets say to a shared trunk at the start, is"
    " below a tenth of an equal share 1/√D (info where V's interval leaves it open); the formula is"
    " verified on linear data to 12 %, that so small a share starves the reward is a"
    f" {UNCALIBRATED}: on the unit dial the trunk was not the door"
)


def is_blind(seen: Profile) -> bool:
    """Whether too few rows or episodes carry the reward's spread to say how large it is."""
    alone = seen.episodes >= 3 and seen.reward_episodes < MIN_REWARD_EPISODES
    return seen.reward_rows < MIN_REWARD_ROWS or alone


def reward_findings(seen: Profile, config: DynamicsConfig, source: str) -> list[Finding]:
    """Failure modes that begin with the reward; one "cannot tell yet" if nothing can be said."""
    return [_cannot_tell(seen, source)] if is_blind(seen) else _reward(seen, config, source)


def _cannot_tell(seen: Profile, source: str) -> Finding:
    said = (
        f"the reward was {seen.reward_range[0]:g} in all {seen.rows} steps"
        if seen.reward_std.value == 0
        else f"the reward's spread rests on about {seen.reward_rows:.1f} of {seen.rows} steps and"
        f" {seen.reward_episodes:.1f} of {seen.episodes} episodes"
    )
    return Finding(
        "cannot-tell-yet",
        "warning",
        f"cannot tell yet: under {source} {said}, so nothing that depends on its size is"
        " predicted.",
        {
            "carrying_rows": seen.reward_rows,
            "carrying_episodes": seen.reward_episodes,
            "reward_std": seen.reward_std,
        },
        BLIND_RULE,
        "needs transitions that meet the reward: --policy RUN_DIR (any run that has found some"
        " reward, for example sac), or --data FILE",
    )


def _reward(seen: Profile, config: DynamicsConfig, source: str) -> list[Finding]:
    found: list[Finding] = []
    spread = seen.reward_std
    step = _over(step_size(config, seen.spec.obs_dim, seen.spec.act_dim), spread)
    if step.value > STEP_WARNING:
        found.append(
            Finding(
                "reward-below-adam-step",
                "failure" if step.above(STEP_FAILURE) else "warning",
                f"with raw targets every model update would throw the reward's prediction by about"
                f" {step.value:.2g} times the reward's std ({spread.value:.2g}).",
                {"predicted_step_over_std": step, "reward_std": spread},
                STEP_RULE,
                "--scale unit",
            )
        )
    floor = _over(math.exp(0.5 * config.logvar_min), spread)
    if floor.value > NOISE and config.reward_draw != "mean":
        found.append(
            Finding(
                "reward-below-floor",
                "warning",
                f"with raw targets drawn rewards would carry noise of {floor.value:.2g} times the"
                " reward's std, whatever is learned.",
                {"floor_over_std": floor, "reward_std": spread},
                NOISE_RULE,
                "--scale unit, or --dynamics.reward-draw mean",
            )
        )
    v, equal = seen.table.dynamics_over_reward, seen.outputs**-0.5
    share = 1.0 / math.sqrt(1.0 + v.value)
    if share < STARVED * equal:
        sure = v.above((STARVED * equal) ** -2 - 1.0)
        found.append(
            Finding(
                "reward-starved",
                "warning" if sure else "info",
                f"with raw targets the reward would have {share:.1e} of what the data say to the"
                f" shared network at the start (V = {v.value:.1e}); an equal share is {equal:.2g}"
                + ("." if sure else "; these data leave it open."),
                {"dynamics_over_reward": v, "signal_gradient_share": share, "equal_share": equal},
                STARVED_RULE,
                "--scale unit",
            )
        )
    return [*found, *states_starved(v, "--scale unit"), *_rare(seen, source)]


def _rare(seen: Profile, source: str) -> list[Finding]:
    """Few rows carry the reward: hard to learn in any cell, and of a size that will change."""
    share = seen.reward_rows / seen.rows
    evidence = {
        "carrying_rows": seen.reward_rows,
        "carrying_share": share,
        "carrying_episodes": seen.reward_episodes,
    }
    said = (
        f"the reward's spread rests on about {seen.reward_rows:.0f} of {seen.rows} steps"
        f" and {seen.reward_episodes:.1f} of {seen.episodes} episodes: "
    )
    again = "diagnose again with --policy RUN_DIR once a run has found more reward"
    random = source == RANDOM
    change = "its size will change " + ("as soon as" if random else "when") + " a policy finds "
    change += "it" if random else "more of it"
    if share < RARE_SHARE:
        said += (
            "the model would give back a small part of it, whatever its scale and target, and"
            f" {change}."
        )
        advice = (
            f"--algo sac until more of it is found; {again}. At unit scale --dynamics.nll-beta 0.5"
            " brings more of the reward back, and saved no agent (docs/algorithms/rare-rewards.md)"
        )
        return [Finding("reward-rare", "warning", said, evidence, RARE_RULE, advice)]
    if seen.reward_rows < RARE_REWARD_ROWS or seen.reward_episodes < min(3, seen.episodes):
        said += f"{change}."
        rule = f"fewer than {RARE_REWARD_ROWS} rows or 3 episodes carry its variance: convention"
        return [Finding("reward-rare", "info", said, evidence, rule, again)]
    return []


def step_size(config: DynamicsConfig, obs_dim: int, act_dim: int) -> float:
    """Predicted move of one output by one update, in network units (see `STEP_RULE`)."""
    sizes = [obs_dim + act_dim, *config.hidden, 2 * (obs_dim + 1)]
    weights = sum(a * b for a, b in itertools.pairwise(sizes))
    return STEP_FACTOR * math.sqrt(weights) * config.learning_rate


def _over(top: float, bottom: Estimate) -> Estimate:
    """A fixed number over an estimate that is not zero."""
    low = top / bottom.high if math.isfinite(bottom.high) else -math.inf
    high = top / bottom.low if bottom.low > 0 else math.inf
    if math.isinf(high):
        low = -math.inf
    return Estimate(top / bottom.value, low, high, bottom.n, bottom.method)
