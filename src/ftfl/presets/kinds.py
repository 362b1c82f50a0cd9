"""What a preset and a profile are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Changes = Mapping[str, Any]


@dataclass(frozen=True)
class Preset:
    """A named algorithm: what it changes, and where that comes from."""

    summary: str
    source: str
    changes: Changes = field(default_factory=dict)
    per_task: Mapping[str, Changes] = field(default_factory=dict)
    """Further changes for one task, by task name without its version."""
    own_compute: bool = False
    """Stands for a publication: brings its own compute and ignores the profile."""


@dataclass(frozen=True)
class Profile:
    """A named amount of compute; the algorithm stays the same."""

    summary: str
    changes: Changes
