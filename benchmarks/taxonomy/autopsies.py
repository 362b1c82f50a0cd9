"""How often an autopsy is right: its findings on probe runs whose outcome is known.

The command that trained and examined those of results/examined.jsonl, with channel-unit at −6
and 3, slow at 4 and 8, jump at 4 and 64, autocorrelation at 0.5 and 0.99, rare at −10, noise-scale
at 6:

    python benchmarks/probes/run.py --seeds 0 1 2 --algos mbpo ftfl --dial D --levels … \\
        --examine reward_fidelity rollout_error model_variance critic_account critic_health \\
        target_scales --results benchmarks/taxonomy/results/examined.jsonl

Three hundred runs of the lineage were examined before them. Two rules were made on those, which are
no test of them: when a critic that is too low and when a penalty is a warning. The temperature's
rule was made on both sets. Numbers at which the other findings speak are conventions, older than
both.
"""

from __future__ import annotations

import math
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

BENCHMARKS = Path(__file__).parents[1]
sys.path.append(str(BENCHMARKS))
from counting import (  # noqa: E402
    Row,
    dmc_fails,
    hits_and_alarms,
    large_v,
    place_of_run,
    structures,
)  # fmt: skip
from lines import counted, dig, moment_of, of_parent, read_lines, table  # noqa: E402

from ftfl.forensics.instruments.critic import ORDERED  # noqa: E402
from ftfl.forensics.instruments.health_findings import OUTWEIGHS, RISEN  # noqa: E402

Rule = Callable[[Row], "bool | None"]
ALWAYS_INFO = {"reward-shrunk", "reward-shifted", "channels-without-skill", "reward-constant"}
"""On tasks that never terminate."""


def told(line: Row) -> set[str]:
    """Findings that are a warning or a failure.

    Lines of the lineage hold no severities: there the rules are applied to the numbers.
    """
    names = set(line["findings"])
    if "told_as_info" in line:
        return names - set(line["told_as_info"])
    if "critic-too-low" in names:
        twin = line["autopsy"]["critic_account"]["smaller_twin"]
        parts = ("critic_fit", "reward_model", "next_state_model", "penalty")
        lowest = min((p for p in parts if p in twin), key=lambda p: twin[p][0])
        if lowest == "penalty" or not twin["correlation_over_states"][2] < ORDERED:
            names.discard("critic-too-low")
    if "reward-penalised" in names:
        reward = line["autopsy"]["reward_fidelity"]
        if reward["penalty_mean_reward"][1] < reward["replay"]["true_std_reward"]:
            names.discard("reward-penalised")
    return names - ALWAYS_INFO


def below(name: str, bound: float) -> Rule:
    """A rule on the last value that training logged; None where there is none."""
    return lambda line: line[name] < bound if name in line else None


def either(*rules: Rule) -> Rule:
    """A rule that speaks where one of several does; None where none can."""

    def rule(line: Row) -> bool | None:
        said = [r(line) for r in rules]
        return None if all(s is None for s in said) else any(said)

    return rule


def about(*subjects: str) -> Rule:
    """A rule on warnings whose names begin so."""
    return lambda line: any(name.startswith(subjects) for name in told(line))


def runaway(line: Row) -> bool | None:
    """The rule of critic health, of runs examined before there was one: α began at 1, |A| = 1."""
    std = dig(line, "autopsy/reward_fidelity/replay/true_std_reward")
    alpha = line["agent/temperature"]
    return None if std is None else alpha > RISEN and alpha * math.log(2) > OUTWEIGHS * std


STRUCTURES = structures()
R2, SKILL = "model/reward_r2", "model/skill_over_persistence"
RULES: dict[str, Rule] = {
    "**any warning or failure**": lambda line: bool(told(line)),
    "**one about the critic**": about("critic-", "gradient-"),
    "**one about the reward**": about("reward-", "screen-"),
    "**one about critic or reward**": about("critic-", "gradient-", "reward-", "screen-"),
    "temperature-runaway (by the α that training logs)": runaway,
    "simple rule: reward R² that training logs < ½": below(R2, 0.5),
    "simple rule: skill that training logs < 0": below(SKILL, 0),
    "simple rule: either of these two": either(below(R2, 0.5), below(SKILL, 0)),
    "simple rule: reward R² that training logs < 0.8 (chosen after)": below(R2, 0.8),
    "simple rule: V > 10⁴": lambda line: large_v(STRUCTURES[place_of_run(line)]),
    "simple rule: DMC fails": lambda line: dmc_fails(place_of_run(line)[0]),
    "simple rule: always": lambda line: True,
}


def of_forks() -> str:
    """What was told of forks of one agent: those with a model, and SAC's beside them."""
    seen: dict[tuple[Any, ...], Row] = {}
    for name in ("findings", "lineage"):
        for line in read_lines(BENCHMARKS / name / "results" / "forks.jsonl"):
            if "findings" in line:
                seen[*moment_of(line), line["arm"], line["seed"]] = line
    rows = []
    for moment in sorted({key[:4] for key in seen}):
        every = [line for key, line in seen.items() if key[:4] == moment]
        if {line["arm"] == "sac" for line in every} != {True, False}:
            continue  # nothing to compare with
        task, at, steps, parent = moment
        cells = [f"{task} at {at // 1000}k, {steps:,} steps on{of_parent(parent)}"]
        for mine in ([x for x in every if x["arm"] != "sac"],
                     [x for x in every if x["arm"] == "sac"]):  # fmt: skip
            ends = sorted(x["returns"][-1][1] for x in mine)
            cells.append(f"{ends[0]:.0f} to {ends[-1]:.0f}" if len(ends) > 1 else f"{ends[0]:.0f}")
            for subjects in (("critic-", "gradient-", "reward-", "screen-"),
                             ("worse-than", "absurd", "imagined", "overconfident")):  # fmt: skip
                said = sum(about(*subjects)(x) is True for x in mine)
                cells.append(counted(said, len(mine)))
        rows.append(cells)
    told_of = ["last returns", "critic or reward", "states"]
    head = ["agent", *(f"with a model: {x}" for x in told_of), *(f"SAC: {x}" for x in told_of)]
    return table(head, rows)


def count(lines: Iterable[Row], rule: Rule, fails: float) -> str:
    """Hits among the runs that failed, false alarms among the others."""
    seen = [(rule(line), line["return"] < fails) for line in lines]
    return hits_and_alarms((said, bad) for said, bad in seen if said is not None)


def examined() -> list[list[Row]]:
    """Finished runs: those that rules were made on, and those of other dials."""
    return [
        [row for row in read_lines(path) if row["state"] == "done"]
        for path in (
            BENCHMARKS / "lineage" / "results" / "probes.jsonl",
            Path(__file__).parent / "results" / "examined.jsonl",
        )
    ]  # fmt: skip


def alike(lines: Iterable[Row], fails: float) -> str:
    """How far seeds of one arm at one level are cases of their own."""
    ends: dict[tuple[Any, ...], list[bool]] = defaultdict(list)
    for line in lines:
        ends[line["dial"], line["level"], line["arm"]].append(line["return"] < fails)
    seeds = {len(bad) for bad in ends.values()}
    same = sum(len(set(bad)) == 1 for bad in ends.values())
    return (
        f"{len(ends)} cells (an arm at a level) × {min(seeds)} seeds, and in {same} of them all"
        " seeds end alike"
    )


def calibration(fails: float) -> str:
    """Every finding that was told, and simple rules; a run fails below the return ``fails``."""
    sets = examined()
    every = [line for lines in sets for line in lines]
    rows = [[name, *(count(lines, rule, fails) for lines in sets)] for name, rule in RULES.items()]

    def add(name: str, rule: Rule) -> None:
        rows.append([
            name,
            *(count(x, rule, fails) if any(map(rule, x)) else "–" for x in sets),
        ])  # fmt: skip

    for name in sorted({name for line in every for name in told(line)}):
        add(name, lambda line, name=name: name in told(line))
    for name in sorted({name for line in every for name in set(line["findings"]) - told(line)}):
        add(f"{name} (info)", lambda line, name=name: name in set(line["findings"]) - told(line))
    head = [
        "said", f"the lineage's {len(sets[0])} runs (rest, reward-unit@−10, noise-count@32; asked:"
        " critic account, reward fidelity, screens)",
        f"{len(sets[1])} runs of other dials",
    ]  # fmt: skip
    return table(head, rows)
