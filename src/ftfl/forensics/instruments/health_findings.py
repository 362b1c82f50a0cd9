"""What the numbers of critic health say, and by which rules."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ftfl.forensics.evidence import Finding, Severity

if TYPE_CHECKING:
    from ftfl.forensics.instruments.health import CriticHealth

MORE_DORMANT, RANK_LEFT, GROWN, RISEN, OUTWEIGHS = 0.25, 1 / 3, 5.0, 2.0, 0.5
LARGE = 10.0
"""Std of the rewards that a critic learns from, beyond which its size says little about its health
(a convention)."""

DORMANT_RULE = (
    "a quarter more dormant units than a fresh critic on the same rows: 27 probe runs that learned"
    " had 0.01 to 0.13 more, 33 that failed 0 to 0.36, seven of these above a quarter"
    " (benchmarks/taxonomy/results/examined.jsonl); where the number comes from: docs/autopsy.md"
)
RANK_RULE = (
    "fewer than a third of a fresh critic's effective features; a weak sign, and a convention: 27"
    " probe runs that learned had 0.79 to 0.97 of them, 33 that failed 0.02 to 0.96, nine of these"
    " below a third (benchmarks/taxonomy/results/examined.jsonl)"
)
GROWN_RULE = (
    "a hidden layer's weights above 5 times a fresh critic's: 27 probe runs that learned had 1.0 to"
    " 1.5, 33 that failed 1.0 to 33, three of these above 5"
    " (benchmarks/taxonomy/results/examined.jsonl), forks of SAC that stand on hopper-stand up to"
    " 3.3 (up to 309,000 updates: benchmarks/findings/results/forks.jsonl). The output layer is"
    " left out, for it grows with the size of true values (up to 8.3 in those forks)"
)
RUNAWAY_RULE = (
    "α more than twice where it began, and the entropy bonus of a step, up to α |A| log 2, above"
    " half of the std of rewards: 214 probe runs that learned had 0.13 to 0.46 of it, and an α of"
    " 0.09 to 1.04 that began at 1; a rise alone says nothing, for α has the reward's unit. Hits"
    " and false alarms: docs/taxonomy.md. critic-beyond-bound cannot see it, for the bound grows"
    " with α"
)
BOUND_RULE = (
    "no policy can collect more than the highest reward met and α |A| log 2 at every step forever,"
    " and this one hardly less than the lowest reward met and what entropy costs it where it is"
    " narrowest (mean log π over draws, at a row of the replay), all ÷ (1 − γ); a bound near 0"
    " counts as a twentieth of the distance of both"
)
LARGE_RULE = (
    f"; an info where the critic learns from rewards of a std above {LARGE:g}, since larger values"
    " need larger weights: probe/rest learned with 6.8 times a fresh critic's and a sixth of its"
    " rank at --sac.reward-scale 100"
)
ADVICE = (
    "before the model is blamed: --sac.critic-layer-norm, fewer --sac.updates-per-step, or"
    " --sac.reset-every-updates"
)
SMALLER = "rewards are large for a network of this size: a smaller --sac.reward-scale"


def health_findings(health: CriticHealth) -> list[Finding]:
    """Signs that the critic itself has failed."""
    found: list[Finding] = []

    large = health.reward_std > LARGE

    def add(
        name: str,
        severity: Severity,
        sentence: str,
        numbers: dict,
        rule: str,
        advice: str = ADVICE,
    ) -> None:
        found.append(Finding(name, severity, sentence, numbers, rule, advice))

    # not (… <= 1): a critic that is no longer finite is beyond its bound, too
    if not health.q_over_bound <= 1.0:
        add(
            "critic-beyond-bound",
            "failure",
            f"the critic answers {health.q_range[0]:.3g} to {health.q_range[1]:.3g} where"
            f" {health.possible[0]:.3g} to {health.possible[1]:.3g} is possible.",
            {
                "q_lowest": health.q_range[0],
                "q_highest": health.q_range[1],
                "lowest_possible": health.possible[0],
                "highest_possible": health.possible[1],
            },
            BOUND_RULE,
        )
    risen = not health.temperature <= RISEN * health.temperature_began
    if risen and not health.entropy_bonus <= OUTWEIGHS * health.reward_std:
        add(
            "temperature-runaway",
            "warning",
            f"the temperature rose from {health.temperature_began:.3g} to {health.temperature:.3g}:"
            f" a step's entropy is worth up to {health.entropy_bonus:.3g} where rewards have a"
            f" std of {health.reward_std:.3g}, so that values are of entropy as much as of reward.",
            {
                "temperature": health.temperature,
                "at_start": health.temperature_began,
                "entropy_bonus": health.entropy_bonus,
                "reward_std": health.reward_std,
            },
            RUNAWAY_RULE,
            "a sign and not a cause: what pulls the policy narrower than α can hold is what"
            " the other findings on critic and model name",
        )
    more = float((health.dormant.mean(axis=0) - health.dormant_fresh.mean(axis=0)).max())
    if more > MORE_DORMANT:
        share = float(health.dormant.mean(axis=0).max())
        add(
            "critic-dormant",
            "warning",
            f"{share:.0%} of a layer's units no longer fire.",
            {"dormant_share": share, "more_than_fresh": more},
            DORMANT_RULE,
        )
    left = float(health.rank.mean() / health.rank_fresh.mean())
    if left < RANK_LEFT:
        add(
            "critic-rank-collapsed",
            "info" if large else "warning",
            f"the critic's features have an effective rank of {health.rank.mean():.0f}, a fresh"
            f" critic's {health.rank_fresh.mean():.0f}.",
            {
                "rank": float(health.rank.mean()),
                "share_of_fresh": left,
                "reward_std": health.reward_std,
            },
            RANK_RULE + LARGE_RULE,
            SMALLER if large else ADVICE,
        )
    growth = float(health.weight_growth[:, :-1].max())
    if not growth <= GROWN:
        add(
            "critic-weights-grown",
            "info" if large else "warning",
            f"a hidden layer's weights are {growth:.2g} times as large as in a fresh critic.",
            {"weight_growth": growth, "reward_std": health.reward_std},
            GROWN_RULE + LARGE_RULE,
            SMALLER if large else ADVICE,
        )
    return found
