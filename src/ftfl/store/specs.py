"""What a checkpoint's files, arrays and tables must be: the terms its manifest is written in."""

from __future__ import annotations

import math
import re
from typing import NamedTuple

import numpy as np

from ftfl.errors import FtflError

DTYPES = {
    "bool": "BOOL",
    "int8": "I8",
    "int16": "I16",
    "int32": "I32",
    "int64": "I64",
    "uint8": "U8",
    "uint16": "U16",
    "uint32": "U32",
    "uint64": "U64",
    "float16": "F16",
    "float32": "F32",
    "float64": "F64",
}
"""NumPy names of the dtypes a checkpoint may hold, with their names in safetensors."""

# Lower case only: two names that differ by case are one file on some file systems.
COMPONENT = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


class ArraySpec(NamedTuple):
    """What one array of a component file must be."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of data, in exact integers however large the shape claims to be."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


class FileSpec(NamedTuple):
    """What one component file must be."""

    sha256: str
    bytes: int
    arrays: dict[str, ArraySpec]


class SegmentSpec(NamedTuple):
    """Rows [start, stop) of a table, in a file whose name follows from them (``segments.py``)."""

    start: int
    stop: int
    sha256: str
    bytes: int


class TableSpec(NamedTuple):
    """A table: ``total`` rows were ever appended; its segments hold at least the last ``kept``."""

    total: int
    kept: int
    arrays: dict[str, ArraySpec]
    """Each with the shape of one row."""
    segments: tuple[SegmentSpec, ...]
    """By rising row number, without gap or overlap."""

    @property
    def row_bytes(self) -> int:
        """Bytes of data in one row."""
        return sum(array.nbytes for array in self.arrays.values())

    def file(self, segment: SegmentSpec) -> FileSpec:
        """What the file of a segment must be."""
        rows = segment.stop - segment.start
        arrays = {n: ArraySpec(a.dtype, (rows, *a.shape)) for n, a in self.arrays.items()}
        return FileSpec(segment.sha256, segment.bytes, arrays)


def check_component(name: str, kind: str = "checkpoint component") -> None:
    """Refuse a component (or table) name that is not a plain lower-case file name stem."""
    if not isinstance(name, str) or not COMPONENT.fullmatch(name):
        raise FtflError(
            f"{name!r:.80} cannot be a {kind}: use 1 to 64 lower-case letters, digits, '_' and '-'."
        )


def check_array_name(name: str) -> None:
    """Refuse an array name that is empty, unprintable, huge, or reserved by safetensors."""
    if (
        not isinstance(name, str)
        or not (0 < len(name) <= 512)
        or not name.isprintable()
        or name == "__metadata__"
    ):
        raise FtflError(
            f"{name!r:.80} cannot be an array name: use 1 to 512 printable characters "
            "other than '__metadata__'."
        )
