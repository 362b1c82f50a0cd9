"""The one exception users are meant to see, and somebody else's in a line."""

from __future__ import annotations

import difflib
import traceback
from collections.abc import Iterable
from pathlib import Path

_LINE = 200


class FtflError(Exception):
    """A mistake in what was asked for: one sentence with what was given and what is allowed."""


def unknown(kind: str, given: str, allowed: Iterable[str]) -> FtflError:
    """An error for a name that is not in ``allowed``, with its near misses first."""
    names = sorted(allowed)
    near = difflib.get_close_matches(given, names, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"allowed: {', '.join(names)}."
    return FtflError(f"unknown {kind} {given!r}: {hint}")


def in_a_line(error: BaseException) -> str:
    """``ValueError: its message (my_env.py, line 12)``: type, first line and innermost place."""
    try:
        message = str(error).strip().partition("\n")[0].rstrip(" .")[:_LINE]
    except Exception:  # noqa: BLE001 - the user's code, and only a label
        message = "its message cannot be printed"
    text = f"{type(error).__name__}: {message}" if message else type(error).__name__
    frames = traceback.extract_tb(error.__traceback__)
    place = Path(frames[-1].filename) if frames else Path()
    if not frames or "importlib" in str(place) or isinstance(error, SyntaxError):
        return text  # nobody's line, or in the message already
    return f"{text} ({place.name}, line {frames[-1].lineno})"


class Stopped(FtflError):
    """Not a mistake: a signal asked the run to leave, and it has saved itself first."""
