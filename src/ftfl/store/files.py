"""Small file operations with the durability each caller needs, said once."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ftfl.errors import FtflError


def why(error: OSError) -> str:
    """The operating system's reason without its error number and path."""
    return error.strerror or type(error).__name__


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
        size = path.stat().st_size
        if size > limit_bytes:
            raise FtflError(f"{path} has {size} bytes, more than the {limit_bytes} allowed.")
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise FtflError(f"cannot read {path}: {why(error)}.") from error
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
    with open(temporary, "w", encoding="utf-8") as file:
        json.dump(content, file, indent=1, allow_nan=False)
        file.write("\n")
        if durable:
            file.flush()
            os.fsync(file.fileno())
    os.replace(temporary, path)
    if durable:
        fsync_directory(path.parent)


def fsync_directory(path: Path) -> None:
    """Make the names in a directory survive a power cut (a file's own fsync does not)."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
