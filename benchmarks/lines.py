"""Runs as lines of JSON: what the benchmarks that train many small runs share."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import NormalDist
from typing import Any

from ftfl.forensics.autopsy import examine
from ftfl.forensics.registry import INSTRUMENTS
from ftfl.forensics.subject import Subject

MADE_WITH = ("ftfl", "source", "git", "cpu", "instructions")
"""Of a run's provenance, what a line keeps."""


def read_lines(path: Path) -> list[dict[str, Any]]:
    """All lines so far; a last line that a power cut tore is left out."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def add_line(path: Path, line: dict[str, Any]) -> None:
    """Append one line."""
    path.parent.mkdir(exist_ok=True)
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def measured(run: Path, instruments: Sequence[str]) -> dict[str, Any]:
    """What instruments say of a finished run: values with intervals, and names of findings."""
    wanted = [i for i in INSTRUMENTS if i.name in instruments]
    found = examine(Subject.load(run), quick=True, instruments=wanted).to_json()
    return {
        "autopsy": rounded(found["numbers"]),
        "findings": [finding["name"] for finding in found["findings"]],
        "told_as_info": [f["name"] for f in found["findings"] if f["severity"] == "info"],
        "not_measured": found["not_measured"],
    }


def moment_of(line: dict[str, Any]) -> tuple[str, int, int, int]:
    """Where a fork began, and how far it went: task, steps of its parent, steps on, parent."""
    return line["task"], line["at"], line["steps"], line.get("parent", 1)


def of_parent(number: int) -> str:
    """Which of a task's parents, where it is not the first."""
    return "" if number == 1 else f", parent {number}"


def rounded(value: Any) -> Any:
    """Four digits, and intervals as [value, low, high]: a line a run should stay readable."""
    if isinstance(value, dict):
        if value.keys() >= {"value", "low", "high"}:
            return [rounded(value[k]) for k in ("value", "low", "high")]
        return {k: rounded(v) for k, v in value.items()}
    if isinstance(value, list):
        return [rounded(v) for v in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


def dig(line: dict[str, Any], path: str) -> float | None:
    """The number at a path of keys in a line, None if it is not there.

    Of an interval its value, of a list over steps that of the first.
    """
    value: Any = line
    for key in path.split("/"):
        if not isinstance(value, dict) or key not in value:
            return None
        value = value[key]
    while isinstance(value, list):
        value = value[0]
    return value


def wilson(count: int, of: int) -> tuple[float, float]:
    """The 95 % interval of a share by Wilson's score, which holds at none and at all, too."""
    z = NormalDist().inv_cdf(0.975)
    share, extra = count / of, z**2 / of
    centre = share + extra / 2
    half = z * math.sqrt(share * (1 - share) / of + extra / (4 * of))
    return max((centre - half) / (1 + extra), 0.0), min((centre + half) / (1 + extra), 1.0)


def counted(count: int, of: int, word: str = "") -> str:
    """A count and the 95 % interval of its share in percent: 3 of 14 found [8–48 %]."""
    words = f"{count} of {of} {word}".rstrip()
    if not of:
        return words
    low, high = wilson(count, of)
    return f"{words} [{100 * low:.0f}–{100 * high:.0f} %]"


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table."""
    head = list(head)
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
