"""The report any set of runs gets: curves, final numbers, differences, and how to repeat it."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ftfl.config import Config, content_hash, difference
from ftfl.errors import FtflError
from ftfl.report.curves import Arm, Seed, load_arms
from ftfl.report.figures import learning_curves, metric_curves
from ftfl.report.html import write_report
from ftfl.report.intervals import METHOD
from ftfl.report.parts import Section
from ftfl.report.tables import difference_table, final_table, seed_table
from ftfl.store.rundir import RunDir

_FIGURES = (
    ("model/reward_r2", None),
    ("rollout/synthetic_reward_mean_reward", "rollout/real_reward_mean_reward"),
    ("model/skill_over_persistence", None),
    ("agent/q_mean_scaled", None),
)
"""Metrics drawn besides the return, where any arm recorded them, with what to compare them to."""

_UNREADABLE = "runs without a readable configuration"


def run_report(run_dirs: Sequence[RunDir], path: Path) -> None:
    """A report of any runs: seeds of one configuration become an arm, each task a section.

    Raises:
        FtflError: no runs are given, or the report cannot be written. Damaged runs are no error:
            they are listed with what is wrong with them.
    """
    if not run_dirs:
        raise FtflError("no runs were given: name at least one run directory.")
    runs = {run.path.resolve(): run for run in run_dirs}
    tasks = by_task(list(runs.values()))
    names = [task for task in tasks if task != _UNREADABLE]
    title = f"Report on {names[0]}" if len(names) == 1 else f"Report on {len(names)} tasks"
    sections = [task_section(task, arms) for task, arms in tasks.items()]
    everything = [arm for arms in tasks.values() for arm in arms]
    sections.append(reproduction_section(everything))
    write_report(path, title, sections, provenance(everything))


def by_task(runs: Sequence[RunDir]) -> dict[str, list[Arm]]:
    """Runs grouped into arms per task: equal configurations, but for the seed, are one arm.

    Arms are named after their algorithm; where two share it, after what sets them apart too.
    """
    single = [Arm("", (run,)) for run in runs]
    groups: dict[str, dict[str, list[RunDir]]] = {}
    sample: dict[str, Config] = {}
    for arm in single:
        config, run = arm.seeds[0].config, arm.runs[0]
        if config is None:
            groups.setdefault(_UNREADABLE, {}).setdefault(str(run.path), []).append(run)
            continue
        key = content_hash(dataclasses.replace(config, seed=0))
        sample[key] = config
        groups.setdefault(config.task.name, {}).setdefault(key, []).append(run)
    return {
        task: load_arms({_label(key, arms, sample): members for key, members in arms.items()})
        for task, arms in groups.items()
    }


def _label(key: str, arms: Mapping[str, Any], sample: Mapping[str, Config]) -> str:
    if key not in sample:
        return key
    mine, configs = sample[key], {other: sample[other] for other in arms}
    rivals = [c for k, c in configs.items() if k != key and c.algo == mine.algo]
    if not rivals:
        return mine.algo
    changed: dict[str, Any] = {}
    for other in rivals:
        changed |= {name: values[0] for name, values in difference(mine, other).items()}
    changed.pop("seed", None)
    return f"{mine.algo} ({', '.join(f'{name}={value}' for name, value in changed.items())})"


def task_section(task: str, arms: Sequence[Arm]) -> Section:
    """Curves, final numbers, every seed and the differences, for arms on one task."""
    recorded = {name for arm in arms for seed in arm.seeds for r in seed.records for name in r}
    figures = [learning_curves(arms)]
    figures += [
        metric_curves(arms, metric, reference=reference)
        for metric, reference in _FIGURES
        if metric in recorded
    ]
    tables = [final_table(arms), seed_table(arms)]
    if len(arms) > 1 and task != _UNREADABLE:
        tables.append(difference_table(arms))
    return Section(task, tuple(_introduction(arms)), tuple(figures), tuple(tables))


def _introduction(arms: Sequence[Arm]) -> list[str]:
    counts = ", ".join(f"{arm.label} ({_count(len(arm.seeds), 'seed')})" for arm in arms)
    failed = sum(seed.failed for arm in arms for seed in arm.seeds)
    runs = sum(len(arm.seeds) for arm in arms)
    lines = [
        f"{_count(len(arms), 'arm')}: {counts}. Intervals: {METHOD}, with n the number of seeds;"
        " they say how well the mean over seeds is known, not how far one seed may fall."
    ]
    if failed:
        lines.append(
            f"{failed} of {_count(runs, 'run')} failed. No run was left out: failed seeds count"
            " with their last evaluation and are named below the first table."
        )
    return lines


def _count(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


def reproduction_section(arms: Sequence[Arm]) -> Section:
    """The commands as they were given, and what else must be the same."""
    commands = Counter(
        str(_provenance(seed).get("command") or "") for arm in arms for seed in arm.seeds
    )
    unknown = commands.pop("", 0)
    paragraphs = [
        "These commands started the runs. Equal bits need equal code, package versions, flags and"
        " processor type, which are listed below; config.json in every run directory holds each"
        " value of its run."
    ]
    if unknown:
        paragraphs.append(f"{_count(unknown, 'run')} did not record a command.")
    if any((_provenance(seed).get("git") or {}).get("dirty") for a in arms for seed in a.seeds):
        paragraphs.append(
            "Some runs used code with changes that were not committed: the commit alone does not"
            " bring it back."
        )
    return Section("How to repeat this", tuple(paragraphs), code=tuple(commands))


def provenance(arms: Sequence[Arm]) -> dict[str, Any]:
    """Facts of all runs; where they do not agree, every value with the number of its runs."""
    seeds = [seed for arm in arms for seed in arm.seeds]
    facts: dict[str, Counter[str]] = {}
    for seed in seeds:
        for name, value in _provenance(seed).items():
            if name != "command":
                facts.setdefault(name, Counter())[_one_line(value)] += 1
    merged = {name: _agreed(values, len(seeds)) for name, values in facts.items()}
    return merged | {
        "runs": [f"{arm.label}, {seed.name}: {seed.run.path}" for arm in arms for seed in arm.seeds]
    }


def _agreed(values: Counter[str], runs: int) -> str | list[str]:
    if len(values) == 1 and sum(values.values()) == runs:
        return next(iter(values))
    return [f"{value} ({_count(count, 'run')})" for value, count in values.items()]


def _one_line(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_one_line(item)}" for name, item in value.items())
    if isinstance(value, list):
        return ", ".join(map(_one_line, value))
    if value is None:
        return "unknown"
    return value if isinstance(value, str) else json.dumps(value)


def _provenance(seed: Seed) -> dict[str, Any]:
    try:
        return seed.run.provenance()
    except FtflError:
        return {}
