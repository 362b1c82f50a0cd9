"""Small file operations with the durability each caller needs, said once."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import shutil
import stat
import time
from collections.abc import Callable, Mapping
from io import BufferedReader, BufferedWriter
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ftfl.errors import FtflError

Result = TypeVar("Result")

# What a network file system answers while it hiccups; all else is an answer.
_PASSING = {errno.EIO, errno.ESTALE, errno.EINTR, errno.ETIMEDOUT}
_TRIES = 3
_PAUSE_SECONDS = 0.1


class DiskError(FtflError):
    """The disk refused to be written (full, read-only, gone); what was on it before is whole."""


def why(error: OSError) -> str:
    """The operating system's reason without its error number and path."""
    return error.strerror or type(error).__name__


def retrying(operation: Callable[[], Result]) -> Result:
    """``operation()``, tried again a few times where a network file system may have hiccuped.

    For single file operations that may be done twice, never around logic.
    """
    for _ in range(_TRIES - 1):
        try:
            return operation()
        except OSError as error:
            if error.errno not in _PASSING:
                raise
            time.sleep(_PAUSE_SECONDS)
    return operation()


def not_through_links(path: str | os.PathLike[str], flags: int) -> int:
    """An opener that refuses a symbolic link, so that nothing outside a run is ever written."""
    return os.open(path, flags | os.O_NOFOLLOW, 0o666)


def open_regular(path: Path) -> BufferedReader:
    """A file of ours for reading; what stands in its place must not lead elsewhere, nor block.

    Raises:
        FtflError: it is missing, cannot be opened, or is a link, directory, pipe or device.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = retrying(lambda: os.open(path, flags))
    except FileNotFoundError as error:
        raise FtflError(f"{path} is missing.") from error
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise FtflError(f"{path} is refused: it is a symbolic link.") from error
        raise FtflError(f"cannot read {path}: {why(error)}.") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise FtflError(f"{path} is refused: it is not a file.")
    return open(descriptor, "rb")


def write_file(path: Path, write: Callable[[BufferedWriter], Result]) -> Result:
    """Make a file and force it to disk; what ``write`` returned. On an OSError it is gone again.

    A hiccup starts again from the first byte: a failed fsync may have dropped what was written,
    and a second one would then succeed without it.
    """

    def attempt() -> Result:
        with open(path, "wb", opener=not_through_links) as file:
            result = write(file)
            file.flush()
            os.fsync(file.fileno())
        return result

    try:
        return retrying(attempt)
    except OSError:
        remove(path)
        raise


def rename(source: Path, target: Path) -> None:
    """Give ``source`` another name, taking the place of a file that has it."""
    tried = False

    def attempt() -> None:
        nonlocal tried
        try:
            os.replace(source, target)
        except FileNotFoundError:
            # A server may have renamed and only its answer got lost.
            if not tried or os.path.lexists(source) or not os.path.lexists(target):
                raise
        finally:
            tried = True

    retrying(attempt)


def remove(path: Path) -> None:
    """Delete a file or directory as far as possible; a link is deleted, not followed."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def plain(value: Any, *, nonfinite_as_null: bool = False) -> Any:
    """``value`` as JSON knows it: NumPy scalars become Python's, tuples become lists.

    Raises:
        FtflError: something has no JSON form; a NaN has none unless it may become ``null``.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        if math.isfinite(value):
            return value
        if nonfinite_as_null:
            return None
        raise FtflError(f"{value} cannot be stored as JSON: give a finite number or None.")
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise FtflError(f"{key!r} cannot be a JSON key: keys are strings.")
        return {k: plain(v, nonfinite_as_null=nonfinite_as_null) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, nonfinite_as_null=nonfinite_as_null) for item in value]
    if isinstance(value, Path):
        return str(value)
    raise FtflError(
        f"a {type(value).__name__} cannot be stored as JSON: "
        "give numbers, strings, lists and mappings."
    )


def read_json(path: Path, limit_bytes: int = 64 << 20) -> dict[str, Any]:
    """The JSON object in ``path``.

    Raises:
        FtflError: missing, unreadable, larger than the limit, or not a JSON object.
    """
    try:
        with open(path, "rb") as file:
            return parse_object(path, file, limit_bytes)
    except OSError as error:
        raise FtflError(f"cannot read {path}: {why(error)}.") from error


def parse_object(path: Path, file: BufferedReader, limit_bytes: int) -> dict[str, Any]:
    """The JSON object in an open file; ``path`` is what errors call it.

    Raises:
        FtflError: larger than the limit, or not a JSON object.
    """
    size = os.fstat(file.fileno()).st_size
    if size > limit_bytes:
        raise FtflError(f"{path} has {size} bytes, more than the {limit_bytes} allowed.")
    try:
        content = json.loads(file.read(size))
    except (ValueError, RecursionError) as error:
        raise FtflError(f"{path} is damaged: it is not valid JSON.") from error
    if not isinstance(content, dict):
        raise FtflError(f"{path} is damaged: it does not hold a JSON object.")
    return content


def replace_json(path: Path, content: Mapping[str, Any], *, durable: bool) -> None:
    """Write ``content`` so that a reader sees the old file or the new one, never a part.

    ``durable`` also survives a power cut, for a few milliseconds.
    """
    temporary = path.with_name(f".tmp-{path.name}")
    data = json.dumps(content, indent=1, allow_nan=False).encode() + b"\n"
    if durable:
        write_file(temporary, lambda file: file.write(data))
    else:
        with open(temporary, "wb", opener=not_through_links) as file:
            file.write(data)
    rename(temporary, path)
    if durable:
        fsync_directory(path.parent)


def fsync_directory(path: Path) -> None:
    """Make the names in a directory survive a power cut (a file's own fsync does not)."""

    def attempt() -> None:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    retrying(attempt)
