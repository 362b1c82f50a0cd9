"""Where a result came from: code, packages, machine and command, in plain JSON."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = (
    "jax",
    "jaxlib",
    "numpy",
    "equinox",
    "optax",
    "mujoco",
    "dm-control",
    "gymnasium",
    "safetensors",
)
"""Packages whose version can change a run's numbers, or whether its files can be read."""


def collect(argv: Sequence[str]) -> dict[str, Any]:
    """Everything recorded about how a run was made; never fails, unknown facts are ``None``.

    Versions are read from package metadata, so that collecting imports nothing heavy. ``started``
    is a label for people: nothing is ever ordered by it.
    """
    cpu = _first_core()
    return {
        "command": shlex.join(argv),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "ftfl": _version("ftfl"),
        "source": _source_hash(Path(__file__).resolve().parents[1]),
        "git": _git(Path(__file__).resolve().parents[1]),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": cpu.get("model name") or platform.processor() or None,
        "instructions": _instructions(cpu),
        "cores": os.cpu_count(),
        "cores_allowed": _cores_allowed(),
        "packages": {name: _version(name) for name in PACKAGES},
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
    }


INSTRUCTIONS = ("avx", "avx2", "fma", "avx512f", "avx512_bf16", "amx_tile", "asimd", "sve", "sve2")
"""Vector extensions, as Linux names them. XLA compiles for those that are there, and another width
adds in another order: rented machines of one model name had AVX-512 and had it not."""
NUMERIC = ("jax", "jaxlib", "mujoco", "dm-control", "gymnasium")
"""Packages whose minor releases have changed trajectories or random numbers before."""


@dataclass(frozen=True)
class Verdict:
    """What has changed around a run since it was last trained on."""

    refused: tuple[str, ...]
    """Changes that make it another experiment."""
    notes: tuple[str, ...]
    """Changes after which it may differ in the last bits."""


def compare(before: Mapping[str, Any], now: Mapping[str, Any]) -> Verdict:
    """Judge two results of ``collect``; a fact that either does not know is not judged."""
    refused, notes = [], []
    old, new = before.get("packages") or {}, now.get("packages") or {}
    for name in PACKAGES:
        a, b = old.get(name), new.get(name)
        if a is None or b is None or a == b:
            continue
        minor = name in NUMERIC and a.split(".")[:2] != b.split(".")[:2]
        (refused if minor else notes).append(f"{name} {a} → {b}")
    for name in ("ftfl", "python", "cpu", "instructions", "xla_flags", "platform"):
        a, b = before.get(name), now.get(name)
        if a is not None and b is not None and a != b:
            notes.append(f"{name} {a or 'none'} → {b or 'none'}")
    if before.get("source") and before["source"] != now.get("source"):
        notes.append(f"the code of ftfl {_code(before)} → {_code(now)}")
    return Verdict(tuple(refused), tuple(notes))


def _code(facts: Mapping[str, Any]) -> str:
    git = facts.get("git") or {}
    where = f"commit {str(git['commit'])[:10]}" if git else f"source {facts.get('source')}"
    return f"{where} with changes" if git.get("dirty") else where


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _source_hash(package: Path) -> str:
    """Names the code itself: a commit does not tell what was changed after it."""
    whole = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        whole.update(path.relative_to(package).as_posix().encode() + path.read_bytes())
    return whole.hexdigest()[:12]


def _git(source: Path) -> dict[str, Any] | None:
    """Commit and dirtiness of the package directory, if git tracks it."""

    def run(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(source), *arguments],
            check=True,
            capture_output=True,
            text=True,
            timeout=5,
        ).stdout.strip()

    try:
        # A package installed inside somebody else's checkout is not tracked by it: that commit
        # would say nothing about this code.
        run("ls-files", "--error-unmatch", "--", str(Path(__file__).resolve()))
        return {
            "commit": run("rev-parse", "HEAD"),
            "dirty": bool(run("status", "--porcelain", "--", str(source))),
        }
    except (OSError, ValueError, subprocess.SubprocessError):
        return None


def _first_core() -> dict[str, str]:
    """What Linux says of the first core; empty on other systems."""
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as file:
        entries = (line.partition(":") for line in file.read().partition("\n\n")[0].splitlines())
        return {name.strip(): value.strip() for name, _, value in entries}
    return {}


def _instructions(cpu: Mapping[str, str]) -> str | None:
    there = cpu.get("flags", cpu.get("Features", "")).split()
    return " ".join(name for name in INSTRUCTIONS if name in there) or None


def _cores_allowed() -> int | None:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count()
