"""The report of an autopsy: findings first, then the figures and numbers behind them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ftfl.forensics.autopsy import Autopsy
from ftfl.forensics.evidence import SEVERITIES, Estimate, Finding
from ftfl.forensics.listing import Shown, labels, listed, unlike
from ftfl.forensics.registry import INSTRUMENTS, Instrument
from ftfl.report.curves import load_arms
from ftfl.report.html import write_report
from ftfl.report.instruments.views import VIEWS
from ftfl.report.parts import Cell, Notice, Section, Table
from ftfl.report.runs import provenance
from ftfl.sinks.table import number
from ftfl.store.rundir import RunDir

_NONE = "–"


def autopsy_report(
    autopsies: Sequence[Autopsy], path: Path, failed: Mapping[str, str] | None = None
) -> None:
    """Write one HTML file about examined runs, side by side.

    Args:
        autopsies: at least one.
        path: of the file; replaced if it exists.
        failed: why other runs could not be examined, by folder.

    Raises:
        FtflError: the file cannot be written.
    """
    tasks = list(dict.fromkeys(a.subject.config.task.name for a in autopsies))
    title = f"Autopsy: {', '.join(tasks)}" if len(tasks) < 3 else f"Autopsy of {len(tasks)} tasks"
    write_report(path, title, sections(autopsies, failed or {}), _facts(autopsies))


def sections(autopsies: Sequence[Autopsy], failed: Mapping[str, str]) -> list[Section]:
    """Findings, then one section for each instrument that measured something."""
    runs = dict(zip(labels(autopsies), autopsies, strict=True))
    shown = [i for i in INSTRUMENTS if any(i.name in a.results for a in autopsies)]
    return [findings_section(runs, failed), *(instrument_section(i, runs) for i in shown)]


def findings_section(runs: Mapping[str, Autopsy], failed: Mapping[str, str]) -> Section:
    """What was found, the worst first; the same finding in several runs is told once."""
    grouped: dict[str, dict[str, Finding]] = {}
    for label, autopsy in runs.items():
        for finding in autopsy.findings:
            grouped.setdefault(finding.name, {})[label] = finding
    notices = [_notice(name, found) for name, found in grouped.items()]
    notices.sort(key=lambda notice: SEVERITIES.index(notice.level))  # type: ignore[arg-type]
    sound = [label for label, autopsy in runs.items() if not autopsy.findings]
    paragraphs = [_summary(notices, runs)]
    if sound and notices:
        paragraphs.append(f"Nothing was found in {', '.join(sound)}.")
    modelled = {a.subject.config.dynamics is not None for a in runs.values()}
    valued = any("critic_account" in autopsy.results for autopsy in runs.values())
    if modelled == {True} and valued:
        paragraphs.append(
            "No run without a model is shown beside these: critics err by themselves, too, so"
            " compare with an autopsy of sac on this task before the model is blamed."
        )
    notes = [f"Not examined: {sentence}" for sentence in failed.values()]
    notes += [f"{line[0].upper()}{line[1:]}" for line in unlike(list(runs.values()))]
    notes += [f"{label}: {note}" for label, a in runs.items() for note in a.notes]
    reasons: dict[tuple[str, str], list[str]] = {}
    for label, autopsy in runs.items():
        for name, why in autopsy.unmeasured.items():
            reasons.setdefault((label, why), []).append(_title(name))
    notes += [
        f"Not measured in {label}: {', '.join(names)}: {why}"
        for (label, why), names in reasons.items()
    ]
    return Section(
        "What was found",
        tuple(paragraphs),
        notices=tuple(notices),
        tables=(Table("What was not measured", (), (), tuple(notes)),) if notes else (),
    )


def _summary(notices: Sequence[Notice], runs: Mapping[str, Autopsy]) -> str:
    if not runs:
        return "No run could be examined."
    there = "1 run was" if len(runs) == 1 else f"{len(runs)} runs were"
    counts = [
        f"{n} {level if level == 'info' else level + 's' * (n > 1)}"
        for level in SEVERITIES
        if (n := sum(notice.level == level for notice in notices))
    ]
    if not counts:
        return f"{there} examined, and nothing that calls for action was found."
    return (
        f"{there} examined: {', '.join(counts)}. A failure makes synthetic data harmful, a warning"
        " may, an info is worth knowing."
    )


def _notice(name: str, found: Mapping[str, Finding]) -> Notice:
    worst = min(found.values(), key=lambda finding: SEVERITIES.index(finding.severity))
    several = len(found) > 1
    facts: list[tuple[str, str]] = []
    for label, finding in found.items():
        numbers = ", ".join(f"{_words(k)} {_evidence(v)}" for k, v in finding.evidence.items())
        if numbers:
            facts.append((f"Numbers, {label}" if several else "Numbers", numbers))
    facts.append(("Rule", _sentence(worst.threshold)))
    for advice in dict.fromkeys(f.advice for f in found.values() if f.advice):
        who = [label for label, f in found.items() if f.advice == advice]
        facts.append(("What to do" if len(who) == len(found) else f"What to do, {', '.join(who)}",
                      _sentence(advice)))  # fmt: skip
    return Notice(
        worst.severity,
        _words(name),
        ", ".join(found),
        tuple(
            f"{label}: {_told(f.sentence)}" if several else _told(f.sentence)
            for label, f in found.items()
        ),
        tuple(facts),
    )


def instrument_section(instrument: Instrument, runs: Mapping[str, Autopsy]) -> Section:
    """Meaning, figures and table of one instrument."""
    view = VIEWS[instrument.name]
    results = {
        k: a.results[instrument.name] for k, a in runs.items() if instrument.name in a.results
    }
    columns = {label: dict(listed(result.numbers())) for label, result in results.items()}
    fullest = sorted(columns.values(), key=len, reverse=True)
    names = list(dict.fromkeys(name for column in fullest for name in column))
    rows = tuple(
        (name, *(_cell(column.get(name)) for column in columns.values())) for name in names
    )
    table = Table(
        f"{instrument.title}: all numbers",
        ("quantity", *columns),
        rows,
        (
            "Below each number its 95 % interval and the n it rests on (episodes, where rows of one"
            " episode depend on each other; seeds, where models were trained anew; members, in"
            " shares); ftfl autopsy --json has every channel.",
        ),
        folded=True,
    )
    return Section(
        instrument.title,
        (view.meaning,),
        figures=tuple(figure(results) for figure in view.figures),
        tables=(table,),
    )


def _facts(autopsies: Sequence[Autopsy]) -> dict[str, Any]:
    names = labels(autopsies)
    arms = load_arms({n: [RunDir(a.subject.path)] for n, a in zip(names, autopsies, strict=True)})
    examined = {}
    for name, autopsy in zip(names, autopsies, strict=True):
        subject, truth = autopsy.subject, autopsy.truth
        facts: dict[str, Any] = {
            "task": f"{subject.config.task.name}, seed {subject.config.seed}",
            "checkpoint": f"step {subject.step}, {len(subject.rewards)} real rows",
        }
        if truth is not None:
            facts["simulator"] = (
                f"{len(truth.answers)} real states of {len(set(truth.episode.tolist()))} episodes"
                f" came back exactly, by {truth.method}"
            )
            facts["states not used"] = [f"{n} {reason}" for reason, n in truth.dropped.items()]
        examined[name] = facts
    return {"examined": examined} | provenance(arms)


def _cell(value: Shown | None) -> Cell:
    if value is None:
        return Cell(_NONE)
    if isinstance(value, bool):
        return Cell("yes" if value else "no")
    if isinstance(value, str):
        return Cell(value)
    if not isinstance(value, Estimate):
        return Cell(_number(value))
    if math.isnan(value.value):
        return Cell(_NONE, value.method)
    if math.isinf(value.low) or math.isinf(value.high):
        return Cell(_number(value.value), f"no interval, n = {value.n}")
    return Cell(
        _number(value.value), f"{_number(value.low)} to {_number(value.high)}, n = {value.n}"
    )


def _evidence(value: Estimate | float) -> str:
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e6:
        return _number(int(value))
    cell = _cell(value)
    return f"{cell.text} ({cell.detail})" if cell.detail else cell.text


def _number(value: float) -> str:
    if isinstance(value, int):
        return f"{value:,}".replace("-", "−")
    if not math.isfinite(value):
        return _NONE if math.isnan(value) else "infinite" if value > 0 else "−infinite"
    return number(value).replace("-", "−")


def _words(name: str) -> str:
    return name.replace("_", " ").replace("-", " ")


def _sentence(text: str) -> str:
    text = text.strip()
    if text and not text.startswith("--"):
        text = text[0].upper() + text[1:]
    return text if not text or text.endswith((".", "?", "!")) else f"{text}."


def _told(text: str) -> str:
    """A sentence with true minus signs; advice keeps its own, for it is typed."""
    return re.sub(r"(?<![\w-])-(?=\d)", "−", _sentence(text))


def _title(name: str) -> str:
    return next((i.title.lower() for i in INSTRUMENTS if i.name == name), name)
