"""Which cores there are, and which are taken, across commands: the least taken is claimed next.

Two commands that each pin their first run to core 0 would halve each other's speed beside an idle
core. A claim is a locked file that the training process inherits, so that it ends with that
process, however it ends, and costs nothing to look up.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

try:
    import fcntl
except ImportError:  # not on Windows, where nothing is pinned either
    fcntl = None

_MOST = 64
"""Claims on one core that are told apart."""


def available() -> list[int]:
    """Cores this process may use (all of them where the system does not say)."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def pin(core: int) -> None:
    """Keep this process on one core, where the system lets it (macOS does not)."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {core})


@dataclass(frozen=True)
class Claim:
    """A core, and the open lock that says so (None: the system has no such locks)."""

    core: int
    lock: int | None

    def release(self) -> None:
        """Give up this process's copy; one that a child inherited stays until the child ends."""
        if self.lock is not None:
            os.close(self.lock)


def claim(cores: Sequence[int], folder: Path | None = None) -> Claim:
    """The core of ``cores`` with the fewest claims, the first of equals.

    Args:
        cores: candidates; at least one.
        folder: where locks lie; default one per user, shared by all commands.
    """
    if fcntl is None:
        return Claim(cores[0], None)
    with contextlib.suppress(OSError):
        folder = folder or _folder()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for level in range(_MOST):
            for core in cores:
                lock = _try_lock(folder / f"core-{core}-{level}")
                if lock is not None:
                    return Claim(core, lock)
    return Claim(cores[0], None)  # no folder to lock in: as if alone


def _try_lock(path: Path) -> int | None:
    assert fcntl is not None
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def _folder() -> Path:
    user = os.getuid() if hasattr(os, "getuid") else 0
    return Path(tempfile.gettempdir(), f"ftfl-cores-{user}")
