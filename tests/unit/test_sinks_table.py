"""Run tables and summaries at several widths: nothing broken, nothing cut that is a number."""

import io
import math

import pytest
from rich.console import Console

from ftfl.sinks.table import RunTable, duration, number, print_summary, steps, summary_table
from statuses import ALL, MBPO, SAC


def render(renderable, width: int) -> list[str]:
    stream = io.StringIO()
    Console(file=stream, width=width).print(renderable)
    return stream.getvalue().splitlines()


def test_wide_table_shows_every_column():
    lines = render(RunTable(ALL), 140)
    header = lines[0].split("  ")
    assert [title.strip() for title in header if title.strip()] == [
        "run", "seed", "state", "steps", "%", "return", "reward R²", "synthetic / real reward",
        "steps/s", "ETA",
    ]  # fmt: skip
    assert lines[2].split() == ["sac", "0", "training", "12.5k/100k", "12%", "123.5", "151",
                                "9m40s"]  # fmt: skip
    assert "-0.41" in lines[3]
    assert "1.2e-3 / 0.153" in lines[3]
    assert "99%" in lines[3]  # not 100 % before the end
    assert "2h05m" in lines[3]


def test_table_of_sac_alone_has_no_model_columns():
    text = "\n".join(render(RunTable([SAC]), 140))
    assert "R²" not in text
    assert "synthetic" not in text


@pytest.mark.parametrize("width", [30, 40, 60, 80, 100, 140])
def test_no_width_breaks_a_row(width):
    lines = render(RunTable(ALL), width)
    assert max(map(len, lines)) <= width
    assert set(lines[1]) == {"─"}
    assert [line.split()[0][:8] for line in lines[2:5]] == ["sac", "mbpo", "ftfl-tun"]
    for line, status in zip(lines[2:5], ALL, strict=True):
        assert "123.5" in line
        assert f" {status['seed']} " in line  # seeds tell the runs apart: never dropped


def test_narrow_table_drops_columns_by_priority():
    header = render(RunTable(ALL), 60)[0]
    for title in ("run", "seed", "state", "%", "return", "ETA"):
        assert title in header
    for title in ("steps/s", "synthetic", "R²"):
        assert title not in header


def test_messages_are_shown_whole_and_cannot_paint_the_terminal():
    text = " ".join(line.strip() for line in render(RunTable(ALL), 60)[5:])
    message = "the critic diverged [bold]here[/bold] [2J at step 12500"
    assert text == f"ftfl-tuned-on-a-task seed 1: {message}"


def test_ascii_terminal_gets_ascii():
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii", newline="\n")
    Console(file=stream, width=140).print(RunTable([{**MBPO, "label": "long" * 30}]))
    stream.flush()
    assert b"reward R2" in stream.buffer.getvalue()  # pyright: ignore


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, ""), (0.0, "0"), (0.153, "0.153"), (0.0012, "1.2e-3"), (-0.5, "-0.500"),
     (99.96, "100.0"), (1234.5, "1234"), (2.5e6, "2.5e+6"), (math.nan, "nan"), (math.inf, "inf")],
)  # fmt: skip
def test_numbers(value, text):
    assert number(value) == text


def test_counts_and_durations():
    assert [steps(n) for n in (None, 0, 999, 1000, 12_540, 10**6)] == [
        "", "0", "999", "1k", "12.5k", "1M",
    ]  # fmt: skip
    assert [duration(s) for s in (None, math.nan, math.inf, -1, 0, 59.6, 3599.7, 7_500)] == [
        "", "", "", "", "0s", "1m00s", "1h00m", "2h05m",
    ]  # fmt: skip


ROWS = [
    {"run": "ftfl", "seeds": 5, "return": 912.345, "95 % interval": "[880.1, 940.2]", "ok": True},
    {"run": "mbpo", "seeds": 5, "return": None, "95 % interval": "[1.0, 2.0]", "ok": False},
]


def test_summary_is_a_table_where_it_fits_and_a_list_where_not():
    wide = render(summary_table(ROWS, "Result"), 60)
    assert wide[0] == "Result"
    assert wide[1].split("  ")[0] == "run"
    assert wide[3].split() == ["ftfl", "5", "912.3", "[880.1,", "940.2]", "yes"]
    narrow = render(summary_table(ROWS), 30)
    assert "95 % interval  [880.1, 940.2]" in narrow
    assert len(narrow) == 11
    assert render(summary_table([]), 30) == [""]


def test_summary_in_a_pipe_is_as_wide_as_it_needs():
    stream = io.StringIO()
    print_summary([{**ROWS[0], "note": "x" * 200}], stream)
    assert len(stream.getvalue().splitlines()) == 3
    assert "x" * 200 in stream.getvalue()
