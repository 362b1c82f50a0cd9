"""Findings and numbers of several runs as text of 80 columns and more."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ftfl.cli.text import width, wrapped
from ftfl.forensics.autopsy import Autopsy
from ftfl.forensics.evidence import Estimate
from ftfl.forensics.registry import INSTRUMENTS

_CELL = 20
_NAME = 38
_DETAILS = ("names", "channels", "by_channel", "mean_twin", "doors", "changes")
"""Left to ``--json``, as are all lists of lists."""


def show(autopsies: Sequence[Autopsy], failed: Mapping[str, str]) -> None:
    """Print findings first, then the numbers, runs side by side."""
    for line in _text(autopsies, failed):
        print(line)


def _text(autopsies: Sequence[Autopsy], failed: Mapping[str, str]) -> Iterator[str]:
    for sentence in failed.values():
        yield wrapped(f"not examined: {sentence}", hanging=2)
    names = labels(autopsies)
    for name, autopsy in zip(names, autopsies, strict=True):
        yield wrapped(_head(name, autopsy), hanging=2)
        for note in autopsy.notes:
            yield wrapped(note, indent=2)
    yield ""
    yield from _findings(autopsies, names)
    fit = max(1, (width() - _NAME) // _CELL)
    for start in range(0, len(autopsies), fit):
        part = slice(start, start + fit)
        yield from _numbers(autopsies[part], names[part])
    models = {a.subject.config.dynamics is not None for a in autopsies}
    if models == {True}:
        yield wrapped(
            "No run without a model is shown beside these: a critic errs by itself, too, so compare"
            " with an autopsy of sac on this task before the model is blamed."
        )
    if any(autopsy.results for autopsy in autopsies):
        yield wrapped(
            "± is the larger half of a 95 % interval over episodes; “?” where there are too few for"
            " one. Rewards and values are in the task's own unit. --json has everything, channel by"
            " channel."
        )


def labels(autopsies: Sequence[Autopsy]) -> list[str]:
    """Short names that tell the runs apart: the variant, its seed if need be, its path at last."""
    runs = [a.subject for a in autopsies]
    for kind in (
        [s.label for s in runs],
        [f"{s.label}/{s.config.seed}" for s in runs],
        [f"{s.label}/{s.config.seed}@{s.step}" for s in runs],
    ):
        if len(set(kind)) == len(kind):
            return kind
    return [str(s.path) for s in runs]


def _head(name: str, autopsy: Autopsy) -> str:
    subject, truth = autopsy.subject, autopsy.truth
    text = (
        f"{name}: {subject.config.task.name}, seed {subject.config.seed}, step {subject.step},"
        f" {len(subject.rewards)} real rows ({subject.path})"
    )
    if truth is None:
        return text
    text += (
        f"; {len(truth.answers)} real states of {len(set(truth.episode.tolist()))} episodes came"
        f" back exactly, by {truth.method}"
    )
    lost = "; ".join(f"{count} {reason}" for reason, count in truth.dropped.items())
    return f"{text}; not used: {lost}" if lost else text


def _findings(autopsies: Sequence[Autopsy], names: Sequence[str]) -> Iterator[str]:
    yield "FINDINGS"
    silent = []
    for name, autopsy in zip(names, autopsies, strict=True):
        if not autopsy.findings:
            silent.append(name)
        for finding in autopsy.findings:
            yield f"  {finding.severity}: {finding.name} ({name})"
            yield wrapped(finding.sentence, indent=4)
            yield wrapped(finding.threshold, indent=4, hanging=2, lead="rule: ")
            if finding.advice:
                yield wrapped(finding.advice, indent=4, hanging=2, lead="do: ")
    if silent:
        yield wrapped(f"none for {', '.join(silent)}", indent=2)
    reasons: dict[tuple[str, str], list[str]] = {}
    for name, autopsy in zip(names, autopsies, strict=True):
        for instrument, why in autopsy.unmeasured.items():
            reasons.setdefault((name, why), []).append(_title(instrument))
    for (name, why), titles in reasons.items():
        yield wrapped(f"not measured ({name}): {', '.join(titles)}: {why}", indent=2, hanging=2)
    yield ""


def _title(name: str) -> str:
    return next((i.title.lower() for i in INSTRUMENTS if i.name == name), name)


def _numbers(autopsies: Sequence[Autopsy], names: Sequence[str]) -> Iterator[str]:
    for instrument in INSTRUMENTS:
        columns = [
            dict(_flat(a.results[instrument.name].numbers()))
            if instrument.name in a.results
            else {}
            for a in autopsies
        ]
        fullest = sorted(columns, key=len, reverse=True)
        rows = list(dict.fromkeys(row for column in fullest for row in column))
        if not rows:
            continue
        head = "".join(f"{name[: _CELL - 2]:>{_CELL}}" for name in names)
        yield f"{instrument.title.upper():<{_NAME}}{head}"
        for row in rows:
            cells = "".join(f"{column.get(row, '–')[: _CELL - 2]:>{_CELL}}" for column in columns)
            yield f"  {row[: _NAME - 3]:<{_NAME - 2}}{cells}"
        yield ""


def _flat(
    numbers: Mapping[str, Any], prefix: str = "", names: Sequence[str] = ()
) -> Iterator[tuple[str, str]]:
    """Every number by its dotted name, as text; of one a channel, the median and the reward's."""
    names = numbers.get("names", names)
    for name, value in numbers.items():
        if name in _DETAILS:
            continue
        label = f"{prefix}{name}".replace("_", " ")
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}: ", names)
        elif isinstance(value, list):
            yield from _listed(label, value, names)
        elif isinstance(value, str):
            yield label, value
        elif value is not None:
            yield label, number(value)


def _listed(label: str, values: list[Any], names: Sequence[str]) -> Iterator[tuple[str, str]]:
    if not values or not isinstance(values[0], Estimate | float | int):
        return
    if names and len(values) in (len(names), len(names) - 1):
        channels = [v.value if isinstance(v, Estimate) else float(v) for v in values]
        known = sorted(v for v in channels[: len(names) - 1] if not math.isnan(v))
        if known:
            yield f"{label}, median", number(statistics.median(known))
        if len(values) == len(names) and names[-1] == "reward":
            yield f"{label}, reward", number(values[-1])
    elif isinstance(values[0], Estimate):
        for i in sorted({0, len(values) - 1}):
            yield f"{label}, {i + 1}", number(values[i])


def number(value: Any) -> str:
    """A number of three digits, with its interval's larger half if it has one."""
    if isinstance(value, Estimate):
        if math.isnan(value.value):
            return "–"
        half = max(value.high - value.value, value.value - value.low)
        return f"{value.value:.3g} ± {'?' if math.isinf(half) else f'{half:.2g}'}"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return "–" if math.isnan(value) else f"{value:.3g}"
    return str(value)
