"""Files of JSON objects, one a line: what a kill tears is the last line, and that is forgiven."""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from io import FileIO
from pathlib import Path
from typing import Any, NoReturn

from ftfl.errors import FtflError
from ftfl.store.files import (
    DiskError,
    fsync_directory,
    not_through_links,
    plain,
    rename,
    why,
    write_file,
)

Parse = Callable[[bytes], dict[str, Any]]
"""One line as a record; raises ValueError with what is wrong with it."""

_TAIL_BYTES = 1 << 20  # far longer than any line: a full record of metrics is about 3 kB


def parse_line(line: bytes) -> dict[str, Any]:
    """A line of strict JSON that holds an object."""
    record = json.loads(line, parse_constant=_refuse_constant)
    if not isinstance(record, dict):
        raise ValueError("not a JSON object")
    return record


def read_lines(path: Path, parse: Parse = parse_line) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """Raw lines with their records; a torn last line is dropped with a notice in the log.

    Raises:
        FtflError: the file cannot be read, or a line before the last is damaged (names the line).
    """
    bad: tuple[int, str] | None = None
    try:
        with open(path, "rb") as file:
            for number, line in enumerate(file, start=1):
                if bad is not None:
                    raise FtflError(f"{path} is damaged at line {bad[0]}: {bad[1]}.")
                try:
                    yield line, parse(line)
                except (ValueError, RecursionError) as error:
                    bad = number, str(error) or type(error).__name__
    except OSError as error:
        raise FtflError(f"cannot read {path}: {why(error)}.") from error
    if bad is not None:
        logging.getLogger(__name__).warning("%s: dropped the torn last line %d", path, bad[0])


def open_to_append(path: Path, parse: Parse = parse_line) -> FileIO:
    """The file, made if absent, with its end repaired.

    A line appended to a torn one would turn damage at the end, which readers forgive, into damage
    in the middle, which they must not. Unbuffered: one write a line, so readers see whole lines.
    """
    file = open(path, "a+b", buffering=0, opener=not_through_links)
    try:
        _repair_end(file, parse)
    except BaseException:
        file.close()
        raise
    return file


def append(file: FileIO, line: bytes) -> None:
    """Append a line whole or not at all; raises OSError.

    A part that cannot be cut off again stays torn: open the file anew before the next line.
    """
    start = os.fstat(file.fileno()).st_size
    remaining = memoryview(line)
    try:
        while remaining:
            remaining = remaining[file.write(remaining) :]
    except OSError:
        with contextlib.suppress(OSError):
            file.truncate(start)
        raise


def append_durably(path: Path, content: Mapping[str, Any]) -> None:
    """Append one object to a file of lines; once this returns, a power cut cannot take it.

    A number that is not finite becomes ``null``: what is recorded here is often why a run failed.

    Raises:
        DiskError: the disk refuses; what was there stays as it was.
        FtflError: the content is not JSON.
    """
    line = json.dumps(plain(content, nonfinite_as_null=True), allow_nan=False).encode() + b"\n"
    try:
        is_new = not path.exists()
        with open_to_append(path) as file:
            append(file, line)
            os.fsync(file.fileno())
        if is_new:
            fsync_directory(path.parent)
    except OSError as error:
        raise DiskError(f"cannot write to {path}: {why(error)}.") from error


def keep_first(path: Path, count: int) -> None:
    """Drop all lines after the first ``count``; the file is replaced whole or not at all.

    Raises:
        DiskError: the disk refuses.
        FtflError: a line before the last is damaged (names the line).
    """
    if not path.exists():
        return
    lines = [line.rstrip(b"\n") + b"\n" for line, _ in read_lines(path)]
    if len(lines) <= count:
        return
    temporary = path.with_name(f".tmp-{path.name}")
    try:
        write_file(temporary, lambda file: file.writelines(lines[:count]))
        rename(temporary, path)
        fsync_directory(path.parent)
    except OSError as error:
        raise DiskError(f"cannot shorten {path}: {why(error)}.") from error


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")


def _repair_end(file: FileIO, parse: Parse) -> None:
    """Cut an incomplete last line off; end a complete one that lacks its newline."""
    size = file.seek(0, os.SEEK_END)
    start = file.seek(max(0, size - _TAIL_BYTES))
    tail = file.read()
    body = tail.removesuffix(b"\n")
    last = body.rfind(b"\n") + 1
    if not body:
        return
    try:
        parse(body[last:])
    except (ValueError, RecursionError):
        file.truncate(start + last)
    else:
        if not tail.endswith(b"\n"):
            file.write(b"\n")
