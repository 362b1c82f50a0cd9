"""metrics.jsonl: registered names only, strict JSON, and damage at the end forgiven."""

import json
import math
import os
import re
import subprocess
import sys

import numpy as np
import pytest

from ftfl.errors import FtflError
from ftfl.store import files, lines, metrics_file
from ftfl.store.files import DiskError
from ftfl.store.metrics import METRICS
from ftfl.store.metrics_file import MetricsWriter, read_metrics, series

RETURN = "eval/return_mean_reward"
LOSS = "agent/critic_loss"


def write(path, *steps):
    with MetricsWriter(path) as writer:
        for step in steps:
            writer.write(step, 2 * step, step / 4, {RETURN: float(step), LOSS: 0.5})


AREAS = "train|env|eval|agent|model|rollout|sentinel|termination|time"


def test_registry_is_well_formed():
    for name, metric in METRICS.items():
        assert metric.name == name
        assert re.fullmatch(
            r"(train|env|eval|agent|model|rollout|sentinel|termination|time)/[a-z0-9_]+", name
        )
        assert metric.unit
        assert metric.meaning.endswith(".")
        assert len(metric.meaning) > 20


def test_round_trip(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with MetricsWriter(path) as writer:
        writer.write(np.int64(10), 20, 1.23456, {RETURN: np.float32(0.1)})
        assert read_metrics(path) == [
            {"env_steps": 10, "updates": 20, "seconds": 1.235, RETURN: float(np.float32(0.1))}
        ]
    write(path, 20)
    assert [r["env_steps"] for r in read_metrics(path)] == [10, 20]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_nonfinite_is_null_and_named(tmp_path, value):
    path = tmp_path / "metrics.jsonl"
    with MetricsWriter(path) as writer:
        writer.write(1, 1, 0.0, {RETURN: value, LOSS: 2.0})
    line = path.read_text()
    record = json.loads(line, parse_constant=lambda text: pytest.fail(text))
    assert record[RETURN] is None
    assert record["nonfinite"] == [RETURN]
    steps, values = series(read_metrics(path), RETURN)
    assert steps.tolist() == [1]
    assert np.isnan(values).all()


def test_unknown_metric_is_refused_with_its_near_miss_and_writes_nothing(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with (
        MetricsWriter(path) as writer,
        pytest.raises(FtflError, match=f"did you mean {RETURN}"),
    ):
        writer.write(1, 1, 0.0, {LOSS: 1.0, "eval/return_mean": 1.0})
    assert path.read_bytes() == b""
    with pytest.raises(FtflError, match="unknown metric 'agent/criticloss'"):
        series([], "agent/criticloss")


def test_torn_last_line_is_dropped_at_every_length_and_repaired_by_the_writer(tmp_path, caplog):
    path = tmp_path / "metrics.jsonl"
    write(path, 1, 2)
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1
    for length in range(first, len(whole) + 1):
        path.write_bytes(whole[:length])
        complete = length >= len(whole) - 1  # only the newline is missing: nothing is lost
        caplog.clear()
        expected = [1, 2] if complete else [1]
        assert [r["env_steps"] for r in read_metrics(path)] == expected
        assert ("torn last line 2" in caplog.text) == (first < length < len(whole) - 1)
        write(path, 3)
        assert [r["env_steps"] for r in read_metrics(path)] == [*expected, 3]


def test_a_tail_of_zeros_after_a_power_cut_is_torn(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write(path, 1)
    path.write_bytes(path.read_bytes() + b"\0" * 500)
    assert len(read_metrics(path)) == 1
    write(path, 2)
    assert [r["env_steps"] for r in read_metrics(path)] == [1, 2]


@pytest.mark.parametrize(
    "bad",
    [b"{", b"", b"[1]", b'{"env_steps": 1.5}', b'{"env_steps": 1, "x": NaN}', b"\xff",
     b'{"env_steps": 1, "x": "text"}', b"[" * 100_000],
)  # fmt: skip
def test_interior_damage_is_an_error_with_its_line_number(tmp_path, bad):
    path = tmp_path / "metrics.jsonl"
    write(path, 1, 2)
    lines = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([lines[0], bad, lines[1]]) + b"\n")
    with pytest.raises(FtflError, match=r"metrics\.jsonl is damaged at line 2"):
        read_metrics(path)


def test_missing_file_and_unwritable_place(tmp_path):
    with pytest.raises(FtflError, match=r"cannot read .*No such file"):
        read_metrics(tmp_path / "metrics.jsonl")
    with pytest.raises(FtflError, match="for writing: Is a directory"):
        MetricsWriter(tmp_path)


def test_truncate_after_drops_later_records_only(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write(path, 10, 20, 20, 30)
    before = path.read_bytes().splitlines(keepends=True)
    with MetricsWriter(path) as writer:
        assert writer.truncate_after(20) == 1
        assert path.read_bytes() == b"".join(before[:3])
        writer.write(25, 50, 1.0, {})
        assert writer.truncate_after(100) == 0
        writer.sync()
    assert [r["env_steps"] for r in read_metrics(path)] == [10, 20, 20, 25]
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_series_skips_records_without_the_metric(tmp_path):
    records = [
        {"env_steps": 1, "seconds": 0.5, LOSS: 1.0},
        {"env_steps": 2, "seconds": 1.5},
        {"env_steps": 3, "seconds": 2.5, LOSS: 3},
    ]
    steps, values = series(records, LOSS)
    assert (steps.tolist(), values.tolist()) == ([1, 3], [1.0, 3.0])
    assert (steps.dtype, values.dtype) == (np.int64, np.float64)
    assert series(records, "seconds")[1].tolist() == [0.5, 1.5, 2.5]
    assert series(records, RETURN)[0].shape == (0,)


# a disk that refuses ------------------------------------------------------------------------------

FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from ftfl.store.metrics_file import MetricsWriter
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
path = Path(sys.argv[1])
with MetricsWriter(path) as writer:
    for limit in (150, 300, hard):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        first = 20 * int(limit == 300) + 40 * int(limit == hard)
        for step in range(first, first + 20):
            writer.write(step, 0, 0.0, {"agent/critic_loss": 0.25})
            assert path.read_bytes().endswith(b"}\\n"), "half a line"
        writer.sync()
        print(writer.pending, writer.problem)
"""


def test_lines_wait_for_a_full_disk_to_have_room_and_keep_their_order(tmp_path):
    path = tmp_path / "metrics.jsonl"
    result = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(path)],
        env={"PYTHONPATH": ":".join(p for p in sys.path if p)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    first, second, third = result.stdout.splitlines()
    problem = rf"cannot write metrics to {re.escape(str(path))}: File too large; \d+ lines wait in"
    assert re.fullmatch(rf"\d+ {problem} memory\.", first)
    assert int(first.split()[0]) < int(second.split()[0])
    assert third.strip() == "0"
    assert [r["env_steps"] for r in read_metrics(path)] == list(range(60))


@pytest.fixture
def full(monkeypatch):
    """Calling it fills the disk or gives room again."""
    state = {"full": False, "part": b""}

    def append(file, line):
        if state["full"]:
            file.write(state["part"])  # and cannot cut it off again
            raise OSError(28, "No space left on device")
        lines.append(file, line)

    monkeypatch.setattr(metrics_file, "append", append)

    def switch(on, part=b""):
        state.update(full=on, part=part)

    return switch


def test_what_a_failed_write_leaves_is_cut_off_even_if_that_failed_too(tmp_path, full):
    path = tmp_path / "metrics.jsonl"
    with MetricsWriter(path) as writer:
        writer.write(1, 0, 0.0, {})
        for part in (b'{"env_st', b'{"env_steps": 2, "updates": 0, "seconds": 0.0}'):
            full(True, part)
            writer.write(2, 0, 0.0, {})
        full(False)
        writer.write(3, 0, 0.0, {})
    assert [r["env_steps"] for r in read_metrics(path)] == [1, 2, 2, 3]


def test_only_so_many_lines_wait_and_the_newest_are_lost_and_counted(tmp_path, full, monkeypatch):
    monkeypatch.setattr(metrics_file, "_MOST_WAITING", 3)
    with MetricsWriter(tmp_path / "metrics.jsonl") as writer:
        full(True)
        for step in range(5):
            writer.write(step, 0, 0.0, {})
        assert (writer.pending, writer.dropped) == (3, 2)
        assert "3 lines wait in memory, and 2 newer ones are lost." in writer.problem
        full(False)
        writer.write(9, 0, 0.0, {})
        assert (writer.pending, writer.problem) == (0, "")
    assert [r["env_steps"] for r in read_metrics(tmp_path / "metrics.jsonl")] == [0, 1, 2, 9]


def test_waiting_lines_are_tried_by_sync_and_close_and_shortened_like_the_file(tmp_path, full):
    path = tmp_path / "metrics.jsonl"
    writer = MetricsWriter(path)
    writer.write(10, 0, 0.0, {})
    writer.write(20, 0, 0.0, {})
    full(True)
    for step in (30, 40, 50):
        writer.write(step, 0, 0.0, {})
    assert writer.truncate_after(40) == 1
    assert writer.pending == 2
    assert writer.truncate_after(10) == 3
    assert writer.pending == 0
    writer.write(15, 0, 0.0, {})
    full(False)
    writer.sync()
    assert [r["env_steps"] for r in read_metrics(path)] == [10, 15]
    full(True)
    writer.write(16, 0, 0.0, {})
    full(False)
    writer.close()
    assert [r["env_steps"] for r in read_metrics(path)] == [10, 15, 16]


def test_lines_that_still_wait_at_the_end_are_an_error_but_never_hide_another(
    tmp_path, full, caplog
):
    full(True)
    writer = MetricsWriter(tmp_path / "a")
    writer.write(1, 0, 0.0, {})
    with pytest.raises(DiskError, match=r"1 metrics are lost: .*No space left on device"):
        writer.close()
    writer.close()
    with pytest.raises(FtflError, match="unknown metric"), MetricsWriter(tmp_path / "b") as writer:
        [writer.write(1, 0, 0.0, values) for values in ({}, {"what ended the run": 1.0})]
    assert "1 metrics are lost" in caplog.text


def test_a_disk_that_does_not_confirm_is_an_error_of_the_disk(tmp_path, monkeypatch):
    def refuse(_):
        raise OSError(5, "Input/output error")

    with MetricsWriter(tmp_path / "metrics.jsonl") as writer:
        writer.write(10, 0, 0.0, {})
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", refuse)
            patch.setattr(files, "_PAUSE_SECONDS", 0)
            with pytest.raises(DiskError, match=r"cannot force .* to disk: Input/output error"):
                writer.sync()
            with pytest.raises(DiskError, match=r"cannot shorten .*: Input/output error"):
                writer.truncate_after(0)
    assert [entry.name for entry in tmp_path.iterdir()] == ["metrics.jsonl"]
    assert len(read_metrics(tmp_path / "metrics.jsonl")) == 1
