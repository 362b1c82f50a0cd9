"""What several verbs share: numbers from the command line, and text that fits the terminal."""

from __future__ import annotations

import json
import os
import shutil
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from ftfl.errors import FtflError
from ftfl.store.files import plain, why

_NARROWEST, _WIDEST = 40, 120


def print_json(content: Mapping[str, Any]) -> None:
    """One JSON object on one line of stdout; what is not finite becomes null."""
    print(json.dumps(plain(content, nonfinite_as_null=True)))


def common_folder(paths: Sequence[Path]) -> Path:
    """The innermost folder that holds all of these, or is the only one."""
    return Path(os.path.commonpath([path.resolve() for path in paths]))


def report_path(option: str, given: str | None, folders: Sequence[Path], name: str) -> Path:
    """Where a report goes, checked before time is spent: as given, or ``name`` beside the runs.

    Raises:
        FtflError: it cannot be written there.
    """
    path = Path(given) if given else common_folder(folders) / name
    if path.is_dir():
        raise FtflError(f"{option} {path} is a folder: give the file that is to be written.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FtflError(f"cannot write the report {path}: {why(error)}.") from error
    if not os.access(path.parent, os.W_OK):
        raise FtflError(
            f"cannot write the report {path}: its folder is read-only; name another file with"
            f" {option}."
        )
    return path


def width() -> int:
    """Columns to fill: the terminal's, within what is comfortable to read."""
    return min(max(shutil.get_terminal_size().columns, _NARROWEST), _WIDEST)


def one_line(text: str, out: TextIO) -> str:
    """What fits on one line of the terminal ``out``: its end, for names come first."""
    try:
        room = os.get_terminal_size(out.fileno()).columns - 1
    except (OSError, ValueError):
        room = 79
    return text if len(text) <= room else f"…{text[len(text) - max(room, 2) + 1 :]}"


def wrapped(text: str, indent: int = 0, hanging: int = 0, lead: str = "") -> str:
    """One paragraph, indented; ``lead`` stands before it, lines after the first hang further in."""
    start = " " * indent + lead
    return textwrap.fill(
        " ".join(text.split()),
        width(),
        initial_indent=start,
        subsequent_indent=" " * (len(start) + hanging),
        break_long_words=False,
        break_on_hyphens=False,
    )


def columns(names: Sequence[str], indent: int = 2, gap: int = 2) -> str:
    """Names in as many columns as fit, read downwards."""
    if not names:
        return ""
    cell = max(map(len, names)) + gap
    count = max(1, (width() - indent + gap) // cell)
    rows = -(-len(names) // count)
    lines = ("".join(f"{name:<{cell}}" for name in names[row::rows]) for row in range(rows))
    return "\n".join(" " * indent + line.rstrip() for line in lines)
