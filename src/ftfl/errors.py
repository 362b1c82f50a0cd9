"""The one exception users are meant to see."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class FtflError(Exception):
    """A mistake in what was asked for: one sentence with what was given and what is allowed."""


def unknown(kind: str, given: str, allowed: Iterable[str]) -> FtflError:
    """An error for a name that is not in ``allowed``, with its near misses first."""
    names = sorted(allowed)
    near = difflib.get_close_matches(given, names, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"allowed: {', '.join(names)}."
    return FtflError(f"unknown {kind} {given!r}: {hint}")


class Stopped(FtflError):
    """Not a mistake: a signal asked the run to leave, and it has saved itself first."""
