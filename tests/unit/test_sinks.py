"""Live tables, plain lines for logs, and sinks that may fail without harm."""

import io
import logging
import math
import sys
import warnings

import pytest
from rich.console import Console

from ftfl.errors import FtflError
from ftfl.sinks import console as console_module
from ftfl.sinks.base import FailSoft
from ftfl.sinks.console import LiveTable, PlainLines, plain_line, read_statuses, watch
from ftfl.sinks.tensorboard import tensorboard_sink
from ftfl.store.rundir import RunDir
from statuses import ALL, FAILED, MBPO, SAC


class FakeClock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_plain_lines_are_rationed_but_news_comes_at_once():
    stream, clock = io.StringIO(), FakeClock()
    plain = PlainLines(stream, clock=clock)

    def new_lines(seconds: float, **change) -> int:
        before = stream.getvalue().count("\n")
        clock.now = seconds
        plain.update([{**SAC, **change}, MBPO])
        return stream.getvalue().count("\n") - before

    assert new_lines(0.0) == 2
    assert new_lines(5.0, env_steps=13_000) == 0
    assert new_lines(10.0, env_steps=13_500) == 1  # ten seconds passed; mbpo stands still
    assert new_lines(11.0, env_steps=13_600) == 0
    assert new_lines(12.0, env_steps=13_600, state="evaluating") == 1
    assert new_lines(13.0, env_steps=13_600, state="evaluating", last_return=5.0) == 1
    assert new_lines(14.0, env_steps=13_700, state="evaluating", last_return=5.0, message="x") == 0


def test_plain_line_is_one_searchable_line():
    assert plain_line(MBPO) == (
        "mbpo seed 0 evaluating steps=99.9k/100k 99% return=123.5 reward_r2=-0.412 "
        "synthetic_reward=1.2e-3 real_reward=0.153 steps/s=151 eta=2h05m"
    )
    assert plain_line(FAILED).endswith("- the critic diverged [bold]here[/bold] [2J at step 12500")
    assert plain_line({"label": "x", "seed": 0, "state": "starting"}) == "x seed 0 starting"


def test_plain_lines_survive_a_stream_without_unicode():
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii", newline="\n")
    PlainLines(stream).update([{**SAC, "label": "größe"}])
    assert b"gr??e seed 0 training" in stream.buffer.getvalue()  # pyright: ignore


@pytest.fixture
def runs(tmp_path):
    return [RunDir.create(tmp_path / f"seed_{seed}", {}, {}) for seed in (0, 1)]


def test_statuses_of_absent_damaged_and_killed_runs(runs):
    runs[1].status_path.write_text("{")
    first, second = read_statuses(runs)
    assert (first["label"], first["state"]) == ("seed_0", "starting")
    assert "status.json is damaged" in second["message"]
    runs[0].write_status(SAC)
    runs[1].write_status({**MBPO, "state": "done"})
    killed, done = read_statuses(runs, over=True)
    assert killed["state"] == "failed"
    assert "ended before the run was done" in killed["message"]
    assert done["state"] == "done"


def test_a_stopped_run_is_not_taken_for_a_failed_one(runs):
    runs[0].write_status({**SAC, "state": "stopped", "message": "go on with ftfl resume"})
    (stopped,) = read_statuses(runs[:1], over=True)
    assert (stopped["state"], stopped["message"]) == ("stopped", "go on with ftfl resume")
    assert "eta=" not in plain_line(stopped)
    assert "eta=" in plain_line({**stopped, "state": "training", "eta_seconds": 5})


class Tty(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("stream_type", [io.StringIO, Tty])
def test_watch_until_nothing_lives(runs, monkeypatch, stream_type):
    monkeypatch.setattr(console_module, "_POLL_SECONDS", 0.0)
    monkeypatch.setenv("TERM", "xterm")
    script = iter([SAC, {**SAC, "last_return": 987.6}, {**SAC, "state": "done"}])

    def is_alive() -> bool:
        status = next(script, None)
        if status is not None:
            runs[0].write_status(status)
        return status is not None

    runs[1].write_status({**FAILED, "message": "the env raised"})
    stream = stream_type()
    final = watch(runs, is_alive, stream)
    assert [status["state"] for status in final] == ["done", "failed"]
    for text in ("987.6", "done", "the env raised"):
        assert text in stream.getvalue()
    cursor_hidden, cursor_shown = "\x1b[?25l", "\x1b[?25h"
    is_tty = stream_type is Tty
    assert stream.getvalue().count(cursor_hidden) == is_tty
    assert stream.getvalue().count(cursor_shown) == is_tty


def test_a_closed_pipe_ends_the_display_and_not_the_waiting(runs, monkeypatch):
    monkeypatch.setattr(console_module, "_POLL_SECONDS", 0.0)

    class Closed(io.StringIO):
        def write(self, _):
            raise BrokenPipeError

    answers = [True, True, True, False, False]
    final = watch(runs, lambda: answers.pop(0), Closed())
    assert answers == [] or answers == [False]
    assert [status["state"] for status in final] == ["failed", "failed"]


def test_live_table_gives_the_cursor_back_after_an_interrupt(runs, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    stream = Tty()

    def interrupted() -> bool:
        if "sac" in stream.getvalue():
            raise KeyboardInterrupt
        return True

    runs[0].write_status(SAC)
    with pytest.raises(KeyboardInterrupt):
        watch(runs, interrupted, stream)
    assert stream.getvalue().rstrip("\n").endswith("\x1b[?25h")


def test_live_table_writes_to_a_given_console():
    stream = io.StringIO()
    live = LiveTable(console=Console(file=stream, width=60))
    live.update(ALL)
    live.close()
    live.close()
    assert "mbpo" in stream.getvalue()


def test_tensorboard_writes_event_files(tmp_path):
    sink = tensorboard_sink(tmp_path / "events")
    sink(10, {"agent/critic_loss": 0.5, "agent/actor_loss": math.nan})
    sink.close()
    data = b"".join(p.read_bytes() for p in (tmp_path / "events").iterdir())
    assert b"agent/critic_loss" in data
    assert b"agent/actor_loss" not in data


def test_missing_tensorboard_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(FtflError, match=r'pip install "ftfl\[tensorboard\]"'):
        tensorboard_sink(tmp_path)


def test_tensorboard_in_an_unwritable_place(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FtflError, match=r"cannot write TensorBoard files to .*Not a directory"):
        tensorboard_sink(tmp_path / "file" / "events")


class Raising:
    def __init__(self, error: Exception) -> None:
        self.error, self.calls, self.closed = error, 0, 0

    def __call__(self, env_steps, values):
        self.calls += 1
        raise self.error

    def close(self):
        self.closed += 1
        raise self.error


def test_a_failing_sink_is_switched_off_with_one_warning_line(caplog):
    inner = Raising(OSError("disk\nfull"))
    sink = FailSoft(inner, "Tracker")
    with caplog.at_level(logging.WARNING), warnings.catch_warnings():
        sink(1, {})
        sink(2, {})
        sink.close()
    assert (inner.calls, inner.closed) == (1, 1)
    assert [r.getMessage() for r in caplog.records] == [
        "Tracker is switched off (OSError: disk full); metrics.jsonl goes on recording."
    ]


def test_a_bug_in_a_sink_stays_loud():
    with pytest.raises(KeyError):
        FailSoft(Raising(KeyError("bug")), "Tracker")(1, {})
