"""The grid of probes can be stopped, gone on with and read, and names what it is asked wrongly."""

import argparse
import importlib.util
import json
import sys
from pathlib import Path

import pytest

from ftfl.errors import FtflError
from ftfl.training import workers

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks" / "probes"


@pytest.fixture
def grid(monkeypatch, tmp_path):
    """run.py and report.py, writing elsewhere."""
    monkeypatch.syspath_prepend(str(FOLDER))
    loaded = {}
    for name in ("run", "report"):
        spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)
        loaded[name] = module
    for module in loaded.values():
        monkeypatch.setattr(module, "RESULTS", tmp_path / "runs.jsonl")
    monkeypatch.setattr(loaded["report"], "HERE", tmp_path)
    monkeypatch.setattr(loaded["report"], "PAGE", tmp_path / "README.md")
    monkeypatch.setattr(loaded["report"], "FIGURES", tmp_path)
    (tmp_path / "INTRODUCTION.md").write_text("# Probes\n")
    return loaded["run"], loaded["report"]


def asked(**given):
    base = {"seeds": [0], "dial": None, "levels": None, "algos": ["sac", "mbpo"], "doors": None,
            "sac_at_levels": False, "profile": "probe"}  # fmt: skip
    return argparse.Namespace(**(base | given))


def test_every_dial_has_five_levels_with_rest_and_sac_runs_once_a_seed(grid):
    run, _ = grid
    cells = list(run.cells(asked(seeds=[0, 1])))
    assert len(set(cells)) == len(cells)
    assert [c.dial for c in cells if c.arm == "sac"] == ["rest", "rest"]
    turned = {c.dial for c in cells} - {"rest"}
    assert len(turned) == 10
    for dial in turned:
        assert len({c.level for c in cells if c.dial == dial}) + 1 >= 5
    assert [c.seed for c in cells] == sorted(c.seed for c in cells)


def test_every_dial_builds_a_task_and_a_configuration(grid):
    run, _ = grid
    for cell in run.cells(asked(algos=["ftfl"])):
        workers.check_task(cell.config())
    turned = run.Cell("reward-unit", -10, "mbpo", 3).config()
    assert (turned.task.name, turned.task.reward_unit) == ("probe/rest", 2.0**-10)
    assert (turned.seed, turned.profile, turned.steps) == (3, "probe", 1_500)
    large = run.Cell("reward-unit", -10, "mbpo", 3, "laptop").config()
    assert (large.profile, large.task) == ("laptop", turned.task)
    assert large.steps - large.warmup_steps == turned.steps - turned.warmup_steps == 1_000


def test_a_door_changes_one_thing_and_an_unknown_one_is_named(grid):
    run, _ = grid
    opened = run.Cell("slow", 6, "ftfl+floor", 0).config()
    assert opened.dynamics.logvar_min == -25.0
    assert opened.dynamics.target == "direct"
    with pytest.raises(FtflError, match="no door 'cellar': choose from scale, target"):
        run.Cell("slow", 6, "ftfl+cellar", 0).config()


def line(dial, level, arm, seed, value, state="done"):
    return {"dial": dial, "level": level, "arm": arm, "seed": seed, "state": state,
            "return": value, "seconds": 20.0, "model/reward_r2": 0.5}  # fmt: skip


def test_a_torn_line_is_left_out_and_the_page_says_what_failed(grid, tmp_path):
    run, report = grid
    rows = [line("rest", 0, arm, seed, -2.0 - seed) for arm in report.ALGOS for seed in range(3)]
    rows += [line("slow", 6, "ftfl", seed, -4.0 - seed) for seed in range(3)]
    rows += [line("slow", 6, "mbpo", 0, None, "failed")]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    run.RESULTS.write_text(text + '{"dial": "slow", "lev')
    assert run.read_lines(run.RESULTS) == rows
    (tmp_path / "laptop.jsonl").write_text(json.dumps(line("slow", 6, "ftfl", 0, -7.0)) + "\n")
    report.main()
    page = (tmp_path / "README.md").read_text()
    assert "22 runs, 1 of them failed" in page
    ftfl = next(row for row in page.splitlines() if row.startswith("| ftfl"))
    assert "| -3 ± 2.5 (3) |" in ftfl
    assert "-5 ± 2.5 (3)" in ftfl
    assert "**1 failed**" in page
    assert "| slow@6 | ftfl | -7 (1) | 0.5 (1) | -5 ± 2.5 (3) |" in page
    assert "</svg>" in (tmp_path / "slow.svg").read_text()
    assert not (tmp_path / "jump.svg").exists()
