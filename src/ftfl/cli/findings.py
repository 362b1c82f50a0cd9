"""Findings and numbers of several runs as text of 80 columns and more."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ftfl.cli.text import width, wrapped
from ftfl.forensics.autopsy import Autopsy
from ftfl.forensics.evidence import Estimate
from ftfl.forensics.listing import labels, listed, unlike, worse_half
from ftfl.forensics.registry import INSTRUMENTS

_CELL = 20
"""Columns of a number: -1.67e-05 ± 6.6e-05 and a space. A longer one shifts its line; cut short it
would be another number."""
_NAME = 40


def show(autopsies: Sequence[Autopsy], failed: Mapping[str, str]) -> None:
    """Print findings first, then the numbers, runs side by side."""
    for line in _text(autopsies, failed):
        print(line)


def _text(autopsies: Sequence[Autopsy], failed: Mapping[str, str]) -> Iterator[str]:
    for sentence in failed.values():
        yield wrapped(f"not examined: {sentence}", hanging=2)
    names = labels(autopsies)
    heads = names
    if any(len(name) > _CELL - 2 for name in names):  # cut short, two runs could look the same
        heads = [f"[{at}]" for at in range(1, len(names) + 1)]
    for name, head, autopsy in zip(names, heads, autopsies, strict=True):
        marked = name if head == name else f"{head} {name}"
        yield wrapped(_head(marked, autopsy), hanging=2)
        for note in autopsy.notes:
            yield wrapped(note, indent=2)
    yield from (wrapped(line, indent=2) for line in unlike(autopsies))
    yield ""
    yield from _findings(autopsies, names)
    fit = max(1, (width() - _NAME) // _CELL)
    for start in range(0, len(autopsies), fit):
        part = slice(start, start + fit)
        yield from _numbers(autopsies[part], heads[part])
    models = {a.subject.config.dynamics is not None for a in autopsies}
    if models == {True}:
        yield wrapped(
            "No run without a model is shown beside these: a critic errs by itself, too, so compare"
            " with an autopsy of sac on this task before the model is blamed."
        )
    if any(autopsy.results for autopsy in autopsies):
        yield wrapped(
            "± is the larger half of a 95 % interval: over episodes where rows are compared, over"
            " seeds where models were trained anew, over members in shares; “?” where there are too"
            " few for one. …reward and …value are in the task's own unit, …scaled in the agent's."
            " --json has everything, channel by channel, with each interval's n and method."
        )


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


def _numbers(autopsies: Sequence[Autopsy], heads: Sequence[str]) -> Iterator[str]:
    for instrument in INSTRUMENTS:
        columns = [
            {name: number(value) for name, value in listed(a.results[instrument.name].numbers())}
            if instrument.name in a.results
            else {}
            for a in autopsies
        ]
        fullest = sorted(columns, key=len, reverse=True)
        rows = list(dict.fromkeys(row for column in fullest for row in column))
        if not rows:
            continue
        yield f"{instrument.title.upper():<{_NAME}}{''.join(f'{h:>{_CELL}}' for h in heads)}"
        for row in rows:
            cells = "".join(f"{column.get(row, '–'):>{_CELL}}" for column in columns)
            name = f"  {row}"
            if len(name) >= _NAME:  # a line of its own, rather than another name
                yield name
                name = ""
            yield f"{name:<{_NAME}}{cells}"
        yield ""


def number(value: Any) -> str:
    """A number of three digits, with its interval's larger half if it has one."""
    if isinstance(value, Estimate):
        if math.isnan(value.value):
            return "–"
        half = worse_half(value)
        return f"{value.value:.3g} ± {'?' if math.isinf(half) else f'{half:.2g}'}"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return "–" if math.isnan(value) else f"{value:.3g}"
    return str(value)
