"""``metrics.jsonl``: the one writer and the one reader.

A line is one JSON object with the counters ``env_steps``, ``updates``, ``seconds`` and any number
of registered metrics. Strict JSON has no NaN, so a non-finite value is written as ``null`` and its
name is repeated under ``nonfinite``: a diverged run stays readable and the divergence stays seen.
"""

from __future__ import annotations

import json
import logging
import math
import os
from collections import deque
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from ftfl.errors import FtflError, unknown
from ftfl.store.files import DiskError, fsync_directory, rename, why, write_file
from ftfl.store.lines import append, open_to_append, parse_line, read_lines
from ftfl.store.metrics import METRICS

COUNTERS = ("env_steps", "updates", "seconds")
"""Fields of every record: env steps taken, agent updates made, seconds since the run began."""

_MOST_WAITING = 100_000  # about 300 MB; at a line every 250 steps, a run of 25 million steps


class MetricsWriter:
    """Appends records to ``path``; a process killed in mid-line costs that line only.

    A disk that refuses a line (full, over quota) does not end the run: lines wait in memory, in
    order, and are tried again with every later one, in ``sync`` and in ``close``. ``pending`` and
    ``problem`` say so. Half a line never stays in the file.

    Raises:
        FtflError: the file cannot be opened, or a metric name is not registered.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.dropped = 0
        """Lines lost for good because too many were waiting."""
        self._waiting: deque[tuple[int, bytes]] = deque()
        self._trouble = ""
        try:
            self._file = open_to_append(self.path, _parse)
            self._end = self._size()
        except OSError as error:
            raise FtflError(f"cannot open {self.path} for writing: {why(error)}.") from error

    @property
    def pending(self) -> int:
        """Lines that wait in memory for the disk to take them."""
        return len(self._waiting)

    @property
    def problem(self) -> str:
        """One sentence on why lines wait; empty when all are written."""
        if not self._waiting:
            return ""
        lost = f", and {self.dropped} newer ones are lost" if self.dropped else ""
        return (
            f"cannot write metrics to {self.path}: {self._trouble}; {self.pending} lines wait in"
            f" memory{lost}."
        )

    def write(
        self, env_steps: int, updates: int, seconds: float, values: Mapping[str, float]
    ) -> None:
        """Append one record; ``values`` maps registered names to scalars."""
        record: dict[str, Any] = {
            "env_steps": int(env_steps),
            "updates": int(updates),
            "seconds": round(float(seconds), 3),
        }
        nonfinite = []
        for name, value in values.items():
            if name not in METRICS:
                raise unknown("metric", name, METRICS)
            number = float(value)
            record[name] = number if math.isfinite(number) else None
            if record[name] is None:
                nonfinite.append(name)
        if nonfinite:
            record["nonfinite"] = nonfinite
        line = json.dumps(record, allow_nan=False).encode() + b"\n"
        self._waiting.append((int(env_steps), line))
        self._flush()
        if len(self._waiting) > _MOST_WAITING:
            # The newest goes: what is written later must be a past without holes.
            self._waiting.pop()
            self.dropped += 1

    def _flush(self) -> None:
        """Write what waits, oldest first, as far as the disk takes it."""
        while self._waiting:
            try:
                if self._trouble:
                    self._reopen()
                    # Cut off what a failed write may have left.
                    if self._size() > self._end:
                        self._file.truncate(self._end)
                append(self._file, self._waiting[0][1])
            except OSError as error:
                self._trouble = why(error)
                return
            self._trouble = ""
            self._end += len(self._waiting.popleft()[1])

    def _reopen(self) -> None:
        """Follow the name to the file that has it now, replaced or served anew."""
        fresh = open_to_append(self.path, _parse)
        self._file.close()
        self._file = fresh

    def _size(self) -> int:
        return os.fstat(self._file.fileno()).st_size

    def truncate_after(self, env_steps: int) -> int:
        """Drop the records after ``env_steps`` (a run resumed there will write them again).

        Returns:
            How many records were dropped, waiting ones included. The file is replaced whole or not
            at all.

        Raises:
            DiskError: the disk refuses.
        """
        kept: list[bytes] = []
        dropped = 0
        for line, record in read_lines(self.path, _parse):
            if record["env_steps"] <= env_steps:
                kept.append(line.rstrip(b"\n") + b"\n")
            else:
                dropped += 1
        if dropped:
            temporary = self.path.with_name(f".tmp-{self.path.name}")
            try:
                write_file(temporary, lambda file: file.writelines(kept))
                rename(temporary, self.path)
                fsync_directory(self.path.parent)
                self._reopen()
                self._end = self._size()
            except OSError as error:
                raise DiskError(f"cannot shorten {self.path}: {why(error)}.") from error
        waiting = [entry for entry in self._waiting if entry[0] <= env_steps]
        dropped += len(self._waiting) - len(waiting)
        self._waiting = deque(waiting)
        return dropped

    def sync(self) -> None:
        """Force what was written to disk: call before a checkpoint, whose past this is.

        Lines that wait are tried first; ``pending`` says whether some still do.

        Raises:
            DiskError: the disk does not confirm it.
        """
        self._flush()
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            raise DiskError(f"cannot force {self.path} to disk: {why(error)}.") from error

    def close(self) -> None:
        """Close the file; closing twice is harmless.

        Raises:
            DiskError: lines still wait, and are lost now.
        """
        if self._file.closed:
            return
        self._flush()
        self._file.close()
        if self._waiting:
            raise DiskError(f"{self.pending} metrics are lost: {self.problem}")

    def __enter__(self) -> MetricsWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.close()
        except DiskError as lost:
            if kind is None:
                raise
            # What ended the block matters more, but this is not kept quiet either.
            logging.getLogger(__name__).warning("%s", lost)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """All records of a ``metrics.jsonl`` in file order; non-finite values are ``None``.

    A torn last line is dropped with a notice in the log: a run was killed there, or is still
    writing.

    Raises:
        FtflError: the file cannot be read, or a line before the last is damaged (names the line).
    """
    return [record for _, record in read_lines(Path(path), _parse)]


def series(records: Iterable[Mapping[str, Any]], name: str) -> tuple[np.ndarray, np.ndarray]:
    """One metric over time: env steps int64 (N,) and values float64 (N,), NaN where non-finite.

    Records without the metric are skipped. ``name`` may also be a counter.

    Raises:
        FtflError: the name is not registered.
    """
    if name not in METRICS and name not in COUNTERS:
        raise unknown("metric", name, (*METRICS, *COUNTERS))
    points = [(record["env_steps"], record[name]) for record in records if name in record]
    steps = np.array([step for step, _ in points], np.int64)
    values = np.array([math.nan if value is None else value for _, value in points], np.float64)
    return steps, values


def _parse(line: bytes) -> dict[str, Any]:
    record = parse_line(line)
    if type(record.get("env_steps")) is not int:
        raise ValueError("env_steps is not a whole number")
    for name, value in record.items():
        if name != "nonfinite" and type(value) not in (int, float, type(None)):
            raise ValueError(f"{name} is not a number")
    return record
