"""Append-only tables (replays): saved as segments of rows, so that a save costs what is new.

A segment is a file ``NAME_START-STOP_HASH.safetensors`` with rows START to STOP of table NAME,
numbered from the first row ever appended. Its name holds the beginning of its SHA-256: a file never
changes under a name, whoever writes the same rows again, so no checkpoint can lose a segment to
another. Manifests list the segments that overlap the rows still kept; what none lists is garbage.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ftfl.errors import FtflError
from ftfl.store.arrays import load_arrays, storable, verify_file, write_arrays
from ftfl.store.files import remove, rename
from ftfl.store.specs import ArraySpec, SegmentSpec, TableSpec, check_component

FOLDER = "segments"
_FILE = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}_[0-9]{12,18}-[0-9]{12,18}_[0-9a-f]{16}\.safetensors")
_HIDDEN = ".tmp-"
_SEGMENT_BYTES = 64 << 20  # more rows than fit are read, written and loaded in several segments


class Table(NamedTuple):
    """An append-only table as its owner hands it to a save."""

    total: int
    """Rows ever appended."""
    kept: int
    """A load gives back the newest so many."""
    read: Callable[[int, int], Mapping[str, np.ndarray]]
    """Rows [start, stop) by number, 0 the first ever appended: the same arrays every time, leading
    axis stop − start. Asked only for rows among the kept; an empty range asks for names, dtypes and
    shapes."""


class Stored(NamedTuple):
    """A loaded table: row i of its arrays is number total − rows + i."""

    total: int
    rows: dict[str, np.ndarray]


class Plan(NamedTuple):
    """What a save of one table has to write, and what lies there already."""

    table: Table
    arrays: dict[str, ArraySpec]
    present: list[SegmentSpec]
    missing: list[tuple[int, int]]
    """Rows [start, stop) of segments to write."""

    @property
    def bytes(self) -> int:
        """Bytes of data to write."""
        row_bytes = sum(array.nbytes for array in self.arrays.values())
        return sum(stop - start for start, stop in self.missing) * row_bytes


def plan(folder: Path, name: str, table: Table, before: TableSpec | None) -> Plan:
    """Compare a table with the segments of the checkpoint ``before``; nothing is written.

    A segment of it that has gone missing, or lost its size, is planned again.

    Raises:
        FtflError: the name, the counts or the arrays cannot be, or do not continue ``before``.
    """
    check_component(name, "checkpoint table")
    total, kept = table.total, table.kept
    if type(total) is not int or type(kept) is not int or not 0 <= kept <= total < 10**18:
        raise FtflError(
            f"table {name} keeps {kept!r} of {total!r} rows: give whole numbers, 0 ≤ kept ≤ total."
        )
    arrays = _specs(_read(name, table, total, total))
    if before is not None and total < before.total:
        raise FtflError(
            f"table {name} has {total} rows, fewer than the {before.total} saved before: after "
            "going back to a checkpoint, open the store with it as base."
        )
    if before is not None and arrays != before.arrays:
        raise FtflError(
            f"table {name} has other arrays than before: names, dtypes and the shape of a row must"
            " stay as they were."
        )
    first = total - kept
    rows = max(1, _SEGMENT_BYTES // max(1, sum(array.nbytes for array in arrays.values())))
    known = [s for s in (() if before is None else before.segments) if s.stop > first]
    present = [s for s in known if is_intact(folder / file_name(name, s), s.bytes)]
    # Lost ones by themselves, so that older checkpoints that list them are healed as well.
    lost = [(max(s.start, first), s.stop) for s in known if s not in present]
    missing = [
        (start, min(start + rows, stop_all))
        for start_all, stop_all in [*lost, *_gaps(first, total, known)]
        for start in range(start_all, stop_all, rows)
    ]
    return Plan(table, arrays, present, missing)


def write(folder: Path, name: str, todo: Plan) -> TableSpec:
    """Write the planned segments, each forced to disk before it gets its name."""
    written = [_write_segment(folder, name, todo, start, stop) for start, stop in todo.missing]
    segments = tuple(sorted([*todo.present, *written]))
    return TableSpec(todo.table.total, todo.table.kept, todo.arrays, segments)


def verify(folder: Path, name: str, spec: TableSpec) -> None:
    """Verify every segment of a table; raises FtflError with the name of the first bad file."""
    check_folder(folder)
    for segment in spec.segments:
        verify_file(folder / file_name(name, segment), spec.file(segment))


def load(folder: Path, name: str, spec: TableSpec) -> Stored:
    """The kept rows of a verified table.

    Raises:
        FtflError: a file's own header does not agree with the manifest, or memory is short.
    """
    first = spec.total - spec.kept
    try:
        rows = {n: np.empty((spec.kept, *a.shape), a.dtype) for n, a in spec.arrays.items()}
    except (MemoryError, ValueError) as error:
        raise FtflError(
            f"table {name} does not fit into memory: it has {spec.kept * spec.row_bytes} bytes."
        ) from error
    for segment in spec.segments:
        loaded = load_arrays(folder / file_name(name, segment), spec.file(segment))
        start = max(segment.start, first)
        for array, values in loaded.items():
            rows[array][start - first : segment.stop - first] = values[start - segment.start :]
    return Stored(spec.total, rows)


def file_name(name: str, segment: SegmentSpec) -> str:
    """Derived, never read: a manifest cannot name a file."""
    return f"{name}_{segment.start:012d}-{segment.stop:012d}_{segment.sha256[:16]}.safetensors"


def is_intact(path: Path, size: int) -> bool:
    """Whether a plain file of this size is there: what can be known without reading it."""
    try:
        found = path.lstat()
    except OSError:
        return False
    return stat.S_ISREG(found.st_mode) and found.st_size == size


def check_folder(folder: Path) -> None:
    """Refuse a folder of segments that leads to another place, whose files are not ours."""
    if folder.is_symlink():
        raise FtflError(f"{folder} is refused: it is a symbolic link.")


def sweep(folder: Path, listed: set[str] | None = None) -> None:
    """Delete what killed writers left and, given the names ``listed``, all other segments."""
    if folder.is_symlink() or not folder.is_dir():
        return
    for entry in list(folder.iterdir()):
        name = entry.name.removeprefix(_HIDDEN)
        hidden, segment = name != entry.name, _FILE.fullmatch(name) is not None
        if segment and (hidden or (listed is not None and name not in listed)):
            remove(entry)


def _write_segment(folder: Path, name: str, todo: Plan, start: int, stop: int) -> SegmentSpec:
    arrays = _read(name, todo.table, start, stop)
    if _specs(arrays) != todo.arrays:
        raise FtflError(f"table {name} gave other arrays for rows {start} to {stop} than before.")
    unnamed = SegmentSpec(start, stop, "0" * 64, 0)
    temporary = folder / f"{_HIDDEN}{file_name(name, unnamed)}"
    spec = write_arrays(temporary, arrays)
    segment = unnamed._replace(sha256=spec.sha256, bytes=spec.bytes)
    # What already has the name is not trusted: the same bytes take its place.
    rename(temporary, folder / file_name(name, segment))
    return segment


def _read(name: str, table: Table, start: int, stop: int) -> dict[str, np.ndarray]:
    arrays = storable(f"table {name}", table.read(start, stop))
    for key, array in arrays.items():
        if array.shape[:1] != (stop - start,):
            raise FtflError(
                f"table {name} gave array {key!r} of shape {array.shape} for {stop - start} rows."
            )
    return arrays


def _specs(arrays: Mapping[str, np.ndarray]) -> dict[str, ArraySpec]:
    """Dtype and the shape of one row."""
    return {name: ArraySpec(a.dtype.name, tuple(a.shape[1:])) for name, a in arrays.items()}


def _gaps(first: int, total: int, known: Iterable[SegmentSpec]) -> Iterator[tuple[int, int]]:
    """Ranges of rows in [first, total) that no known segment holds."""
    at = first
    for segment in known:
        if segment.start > at:
            yield at, segment.start
        at = segment.stop
    if at < total:
        yield at, total
