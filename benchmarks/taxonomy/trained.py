"""What training showed on real tasks, and whether it bears out what was said before."""

from __future__ import annotations

import csv
import sys
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

BENCHMARKS = Path(__file__).parents[1]
sys.path.append(str(BENCHMARKS))
from lines import moment_of, of_parent, read_lines  # noqa: E402

CELLS = ("mbpo", "mbpo-unit", "mbpo-direct", "ftfl")
CELL_OF = {
    **{cell: cell for cell in CELLS},
    "mbpo-h5": "mbpo", "mbpo-h5+scale": "mbpo-unit", "mbpo-h5+target": "mbpo-direct",
    "ftfl-h5": "ftfl",
}  # fmt: skip
"""Arms that are one of the four cells and change nothing else; h5: branches of five steps."""
CONTROLS = ("sac", "mbpo-h5", "mbpo-h5+scale", "mbpo-h5+target", "ftfl-h5", "ftfl-h5+innovation")
"""Arms of the lineage's forks that screen nothing."""
FAILS = 2.0
"""A cell fails where its median seed loses this many times what SAC's worst does; of rewards that
are a gain: where it gets less than SAC's worst ÷ this."""
LEARNED = 50.0
"""Where SAC's worst fork on DeepMind Control stays below this (of 1,000), nothing was learned that
synthetic data could have lost (a convention)."""


@dataclass(frozen=True)
class Moment:
    """Arms trained from one start for as long: last returns of all seeds, by arm."""

    words: str
    fork: bool
    returns: dict[str, list[float]]

    def cells(self) -> dict[str, list[float]]:
        """Returns by cell."""
        found: dict[str, list[float]] = defaultdict(list)
        for arm, values in self.returns.items():
            if arm in CELL_OF:
                found[CELL_OF[arm]] += values
        return dict(found)

    def outcomes(self) -> dict[str, bool]:
        """Whether each cell fails; none where nothing could be lost or compared.

        Where no SAC was trained the best of several cells stands for it.
        """
        cells = self.cells()
        sac = self.returns.get("sac")
        if sac is None:
            if len(cells) < 2:
                return {}
            sac = max(cells.values(), key=np.median)
        worst = min(sac)
        if self.fork and worst < LEARNED:
            return {}
        bound = FAILS * worst if worst < 0 else worst / FAILS
        return {cell: bool(np.median(values) < bound) for cell, values in cells.items()}

    def tell(self) -> str:
        """Medians with the number of seeds."""
        return f"{self.words}: " + ", ".join(
            f"{arm} {np.median(values):.0f} ({len(values)})" for arm, values in self.returns.items()
        )


def whole_runs() -> dict[str, list[Moment]]:
    """The core's benchmark, by task: the mean of a seed's last three evaluations.

    SAC alone says nothing of synthetic data, so such tasks are left out.
    """
    curves: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    steps: dict[str, int] = {}
    with open(BENCHMARKS / "core" / "results" / "curves.csv", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            curves[row["task"], row["name"], row["seed"]].append(float(row["return_mean"]))
            steps[row["task"]] = max(steps.get(row["task"], 0), int(float(row["env_steps"])))
    tasks: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for (task, name, _), values in sorted(curves.items()):
        if name == "sac" or name in CELLS:
            tasks[task][name].append(float(np.mean(values[-3:])))
    return {
        task: [Moment(f"{steps[task]:,} steps (seeds)", False, dict(arms))]
        for task, arms in tasks.items() if len(arms) > 1
    }  # fmt: skip


def forks() -> dict[str, list[Moment]]:
    """Forks of SAC on DeepMind Control, by task: last evaluations."""
    lines = read_lines(BENCHMARKS / "findings" / "results" / "forks.jsonl")
    lineage = read_lines(BENCHMARKS / "lineage" / "results" / "forks.jsonl")
    lines += [row for row in lineage if row["arm"] in CONTROLS]
    seen: dict[tuple[str, int, int, int], dict[str, dict[int, float]]] = {}
    for row in lines:
        arms = seen.setdefault(moment_of(row), defaultdict(dict))
        arms[row["arm"]][row["seed"]] = row["returns"][-1][1]
    found: dict[str, list[Moment]] = defaultdict(list)
    for (task, at, steps, parent), arms in sorted(seen.items()):
        if len(arms) > 1:  # else nothing to compare with
            found[f"dmc/{task}"].append(Moment(
                f"fork at {at // 1000}k{of_parent(parent)}, {steps:,} steps on (seeds)", True,
                {arm: list(values.values()) for arm, values in arms.items()},
            ))  # fmt: skip
    return dict(found)


def moments() -> dict[str, list[Moment]]:
    """All that was trained on real tasks, by task."""
    found: dict[str, list[Moment]] = defaultdict(list)
    for source in (whole_runs(), forks()):
        for task, several in source.items():
            found[task] += several
    return dict(found)


def ends(several: Iterable[Moment]) -> dict[str, tuple[int, int]]:
    """Of each cell: at how many moments it failed, of how many with an outcome."""
    found: dict[str, list[bool]] = defaultdict(list)
    for moment in several:
        for cell, bad in moment.outcomes().items():
            found[cell].append(bad)
    return {cell: (sum(bad), len(bad)) for cell, bad in found.items()}


def fails(several: Iterable[Moment]) -> dict[str, bool]:
    """Whether each cell fails on a task: at more than half of the moments with an outcome."""
    return {cell: 2 * bad > of for cell, (bad, of) in ends(several).items()}


@dataclass(frozen=True)
class Tested:
    """What training says of a row's predictions: True is right, False a miss, None not tested."""

    mbpo: bool | None
    ftfl: bool | None
    recommended: bool | None
    warned_of_a_trained_arm: bool

    @property
    def verified(self) -> bool:
        """Whether training tests the prediction at all."""
        return self.recommended is not None or self.warned_of_a_trained_arm


def hold(warned: dict[str, bool | None], preset: str | None, bad: dict[str, bool]) -> Tested:
    """Hold a row's predictions against outcomes.

    Args:
        warned: whether mbpo and ftfl were warned of; None where nothing was said.
        preset: what was recommended, None if nothing.
        bad: whether each trained cell fails.
    """

    def right(cell: str) -> bool | None:
        told = warned.get(cell)
        return None if told is None or cell not in bad else told == bad[cell]

    if preset == "sac":  # says that no cell is a gain over it
        recommended = all(bad.values()) if bad else None
    else:
        recommended = not bad[preset] if preset in bad and len(bad) > 1 else None
    return Tested(
        right("mbpo"), right("ftfl"), recommended,
        any(told and cell in bad for cell, told in warned.items()),
    )  # fmt: skip
