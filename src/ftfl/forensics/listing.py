"""What several runs are called, and their numbers as one flat list: the same in text and report."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from ftfl.forensics.autopsy import Autopsy
from ftfl.forensics.evidence import Estimate

Shown: TypeAlias = "Estimate | float | int | bool | str"

_DETAILS = ("names", "channels", "by_channel", "mean_twin", "doors", "changes")
"""Left to ``--json``, as are all lists of lists."""


def labels(autopsies: Sequence[Autopsy]) -> list[str]:
    """Short names that tell the runs apart: the variant, its seed if need be, its path at last."""
    runs = [a.subject for a in autopsies]
    tasks = {s.config.task.name for s in runs}
    place = [f" ({s.config.task.name})" if len(tasks) > 1 else "" for s in runs]
    for kind in (
        [s.label for s in runs],
        [f"{s.label}/{s.config.seed}" for s in runs],
        [f"{s.label}/{s.config.seed}@{s.step}" for s in runs],
    ):
        named = [f"{name}{where}" for where, name in zip(place, kind, strict=True)]
        if len(set(named)) == len(named):
            return named
    return [str(s.path) for s in runs]


def unlike(autopsies: Sequence[Autopsy]) -> list[str]:
    """What must be known before runs of one task are compared: that they stand at other places."""
    found = []
    names = labels(autopsies)
    for task in dict.fromkeys(a.subject.config.task.name for a in autopsies):
        runs = [
            (name, a.subject) for name, a in zip(names, autopsies, strict=True)
            if a.subject.config.task.name == task
        ]  # fmt: skip
        for what, counts in (
            ("steps", {name: s.step for name, s in runs}),
            ("agent updates", {name: int(s.state.agent.updates) for name, s in runs}),
        ):
            if len(set(counts.values())) > 1:
                told = ", ".join(f"{name} {count:,}" for name, count in counts.items())
                found.append(
                    f"runs of {task} are compared after different numbers of {what}: {told}"
                )
    return found


def listed(numbers: Mapping[str, Any]) -> Iterator[tuple[str, Shown]]:
    """Every number by its dotted name; of one a channel, the median and the reward's."""
    yield from _mapping(numbers, "", ())


def _mapping(
    numbers: Mapping[str, Any], prefix: str, names: Sequence[str]
) -> Iterator[tuple[str, Shown]]:
    names = numbers.get("names", names)
    for name, value in numbers.items():
        if name in _DETAILS:
            continue
        label = f"{prefix}{name}".replace("_", " ")
        if isinstance(value, Mapping):
            yield from _mapping(value, f"{prefix}{name}: ", names)
        elif isinstance(value, list):
            yield from _list(label, value, names)
        elif value is not None:
            yield label, value


def _list(label: str, values: list[Any], names: Sequence[str]) -> Iterator[tuple[str, Shown]]:
    if not values or not isinstance(values[0], Estimate | float | int):
        return
    paid = int(bool(names) and names[-1] == "reward")
    if names and len(values) in (len(names), len(names) - paid):
        channels = [v.value if isinstance(v, Estimate) else float(v) for v in values]
        known = sorted(v for v in channels[: len(names) - paid] if not math.isnan(v))
        if known:
            yield f"{label}, median", float(statistics.median(known))
        if paid and len(values) == len(names):
            yield f"{label}, reward", values[-1]
    elif isinstance(values[0], Estimate):
        for i in sorted({0, len(values) - 1}):
            yield f"{label}, {i + 1}", values[i]


def worse_half(estimate: Estimate) -> float:
    """The larger half of the interval; infinite where the sample allows none."""
    return max(estimate.high - estimate.value, estimate.value - estimate.low)
