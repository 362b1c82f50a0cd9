"""What diagnose and autopsies are counted by: places, hits, alarms, and simple rules to beat."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent))
from lines import counted, read_lines  # noqa: E402

Row = dict[str, Any]
Place = tuple[str, float]
"""A task, and the power of two of its reward's unit."""
LARGE_V = 1e4


def place_of(line: Row) -> Place:
    """Of a line of structure.jsonl or fits.jsonl."""
    return line["task"], float(np.round(np.log2(line["unit"])))


def place_of_run(line: Row) -> Place:
    """Of a trained run's line: a dial and its level."""
    dial, level = line["dial"], line["level"]
    if dial in ("rest", "reward-unit"):
        return "probe/rest", float(level)
    return f"probe/{dial}@{level:g}", 0.0


def structures() -> dict[Place, Row]:
    """What diagnose saw, by place."""
    return {place_of(row): row for row in read_lines(HERE / "results" / "structure.jsonl")}


def large_v(line: Row) -> bool:
    """The simple rule V > 10⁴, of a line of structure.jsonl; a V that is not known is not large."""
    v = line["dynamics_over_reward"][0]
    return v is not None and v > LARGE_V


def dmc_fails(task: str) -> bool:
    """The simple rule that a task of DeepMind Control fails and any other does not."""
    return task.startswith("dmc/")


def hits_and_alarms(cases: Iterable[tuple[bool, bool]]) -> str:
    """Of pairs (told, failed): how many failures were told, and how many others."""
    cases = list(cases)
    failed = sum(bad for _, bad in cases)
    found = sum(told and bad for told, bad in cases)
    false = sum(told and not bad for told, bad in cases)
    return f"{counted(found, failed, 'found')}, {counted(false, len(cases) - failed, 'false')}"
