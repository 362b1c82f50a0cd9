"""``metrics.jsonl``: the one writer and the one reader.

A line is one JSON object with the counters ``env_steps``, ``updates``, ``seconds`` and any number
of registered metrics. Strict JSON has no NaN, so a non-finite value is written as ``null`` and its
name is repeated under ``nonfinite``: a diverged run stays readable and the divergence stays seen.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

import numpy as np

from ftfl.errors import FtflError, unknown
from ftfl.store.files import why
from ftfl.store.metrics import METRICS

COUNTERS = ("env_steps", "updates", "seconds")
"""Fields of every record: env steps taken, agent updates made, seconds since the run began."""

_TAIL_BYTES = 1 << 20  # far longer than any line: a full record is about 3 kB


class MetricsWriter:
    """Appends records to ``path``; a process killed in mid-line costs that line only.

    Opening repairs the end of the file, because a line appended to a torn one would turn damage
    at the end, which readers forgive, into damage in the middle, which they must not.

    Raises:
        FtflError: the file cannot be opened or written, or a metric name is not registered.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        try:
            _drop_torn_tail(self.path)
            # Unbuffered: one write call a record, so that a reader sees whole lines.
            self._file = open(self.path, "ab", buffering=0)
        except OSError as error:
            raise FtflError(f"cannot open {self.path} for writing: {why(error)}.") from error

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
        self._append(json.dumps(record, allow_nan=False).encode() + b"\n")

    def _append(self, line: bytes) -> None:
        start = os.fstat(self._file.fileno()).st_size
        remaining = memoryview(line)
        try:
            while remaining:
                remaining = remaining[self._file.write(remaining) :]
        except OSError as error:
            # Half a line (disk full) must not stay: the next record would be glued to it.
            with contextlib.suppress(OSError):
                self._file.truncate(start)
            raise FtflError(f"cannot write metrics to {self.path}: {why(error)}.") from error

    def truncate_after(self, env_steps: int) -> int:
        """Drop the records after ``env_steps`` (a run resumed there will write them again).

        Returns:
            How many records were dropped. The file is replaced whole or not at all.
        """
        kept: list[bytes] = []
        dropped = 0
        for line, record in _records(self.path):
            if record["env_steps"] <= env_steps:
                kept.append(line.rstrip(b"\n") + b"\n")
            else:
                dropped += 1
        if dropped:
            temporary = self.path.with_name(f".tmp-{self.path.name}")
            try:
                with open(temporary, "wb") as file:
                    file.writelines(kept)
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(temporary, self.path)
                self._file.close()
                self._file = open(self.path, "ab", buffering=0)
            except OSError as error:
                raise FtflError(f"cannot shorten {self.path}: {why(error)}.") from error
        return dropped

    def sync(self) -> None:
        """Force what was written to disk: call before a checkpoint, whose past this is."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file; closing twice is harmless."""
        self._file.close()

    def __enter__(self) -> MetricsWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """All records of a ``metrics.jsonl`` in file order; non-finite values are ``None``.

    A torn last line is dropped with a notice in the log: a run was killed there, or is still
    writing.

    Raises:
        FtflError: the file cannot be read, or a line before the last is damaged (names the line).
    """
    return [record for _, record in _records(Path(path))]


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


def _records(path: Path) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """Raw lines with their parsed records; forgives the last line only."""
    bad: tuple[int, str] | None = None
    try:
        with open(path, "rb") as file:
            for number, line in enumerate(file, start=1):
                if bad is not None:
                    raise FtflError(f"{path} is damaged at line {bad[0]}: {bad[1]}.")
                try:
                    yield line, _parse(line)
                except (ValueError, RecursionError) as error:
                    bad = number, str(error) or type(error).__name__
    except OSError as error:
        raise FtflError(f"cannot read {path}: {why(error)}.") from error
    if bad is not None:
        logging.getLogger(__name__).warning("%s: dropped the torn last line %d", path, bad[0])


def _parse(line: bytes) -> dict[str, Any]:
    record = json.loads(line, parse_constant=_refuse_constant)
    if not isinstance(record, dict):
        raise ValueError("not a JSON object")
    if type(record.get("env_steps")) is not int:
        raise ValueError("env_steps is not a whole number")
    for name, value in record.items():
        if name != "nonfinite" and type(value) not in (int, float, type(None)):
            raise ValueError(f"{name} is not a number")
    return record


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")


def _drop_torn_tail(path: Path) -> None:
    """Cut an incomplete last line off; end a complete one that lacks its newline."""
    if not path.exists():
        return
    with open(path, "r+b") as file:
        size = file.seek(0, os.SEEK_END)
        start = file.seek(max(0, size - _TAIL_BYTES))
        tail = file.read()
        body = tail.removesuffix(b"\n")
        last = body.rfind(b"\n") + 1
        if not body:
            return
        try:
            _parse(body[last:])
        except (ValueError, RecursionError):
            file.truncate(start + last)
        else:
            if not tail.endswith(b"\n"):
                file.write(b"\n")
