"""``--screen my_pkg:my_screen``: the tutorial as it stands, and mistakes named at the start."""

import re
import sys

import pytest
from calling import call

from ftfl import config as cfg
from ftfl.envs.make import make_env
from ftfl.store.checkpoint import latest_valid
from ftfl.store.metrics_file import read_metrics, series
from ftfl.store.rundir import RunDir
from ftfl.training import saving
from ftfl.training.loop import Loop
from helpers import equal_bits, tiny

pytestmark = pytest.mark.usefixtures("quick_compiles")
TASK = "envs_for_tests:make_lqr"
DRY = ["train", "gym/Pendulum-v1", "--algo", "ftfl-h5", "--profile", "probe", "--dry-run"]

MISTAKES = {
    "no_such:screen": r"importing no_such failed with ModuleNotFoundError",
    "own_screens:hafl": r"unknown screen in own_screens 'hafl': did you mean half",
    "own_screens:": r"not of the form package.module:function",
    "own_screens:number": r"is of type int: name a function of \(key, predictions, step, active, ",
    "own_screens:three": r"must take five arguments, \(key, predictions, step, active, state\)",
    "own_screens:branching": r"cannot be traced by JAX .*without if and float",
    "own_screens:a_tuple": r"returned a value of type tuple; it must return .*Screened",
    "own_screens:one_number": r"returned store as bool\[\]; it must be bool\[80\]",
    "own_screens:as_floats": r"returned proceed as float32\[80\]; it must be bool\[80\]",
    "own_screens:forgotten": r"returned state as \(\); it must be .*seen.*as its initial memory",
    "m2acc": r"unknown screen 'm2acc': did you mean m2ac",
}


@pytest.mark.parametrize("screen", MISTAKES)
def test_a_mistake_in_a_screen_is_one_sentence_before_anything_runs(screen):
    status, out, err = call(*DRY, "--screen", screen)
    assert (status, err.count("\n"), "Traceback" in err) == (2, 1, False), err
    assert "would write" not in out
    assert re.search(MISTAKES[screen], err), err


@pytest.mark.parametrize("screen", ["own_screens:half", "own_screens:counted", "macura"])
def test_a_screen_without_mistakes_passes(screen):
    status, out, err = call(*DRY, "--screen", screen)
    assert (status, err) == (0, "")
    # A variant gets a folder of its own.
    assert f"ftfl-h5+screen={screen.replace(':', '_')}/seed_0" in out


def test_a_model_free_algorithm_has_no_screen():
    status, _, err = call("train", "gym/Pendulum-v1", "--algo", "sac", "--screen", "m2ac")
    assert status == 2
    assert "--screen was given, but algorithm 'sac' has no dynamics model" in err


def train(path, screen, **changes):
    config = tiny(
        "ftfl-h5", TASK, rollouts__screen=screen, **{"steps": 60, "log_every": 5} | changes
    )
    run_dir = RunDir.create(path, cfg.to_dict(config), {})
    loop = Loop(config, make_env(TASK), make_env(TASK), run_dir)
    loop.run()
    return loop, read_metrics(run_dir.metrics_path)


def test_the_tutorials_screen_runs_as_written(docs, tmp_path, monkeypatch):
    block = re.search(r"```python\n# my_screens.py\n(.*?)```", docs, re.DOTALL)[1]
    assert len(block.strip().splitlines()) <= 30
    (tmp_path / "my_screens.py").write_text(block)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    loop, records = train(tmp_path / "run", "my_screens:reward_doubt")
    assert "my_screens:reward_doubt" in docs  # the command names it
    shares = series(records, "rollout/kept_share")[1]
    assert 0 < shares.min() < 1
    assert float(loop.state.screen.screen) > 0
    assert loop.learner.learn._cache_size() == 1
    monkeypatch.delitem(sys.modules, "my_screens")


@pytest.fixture
def docs(request):
    return (request.config.rootpath / "docs" / "your-own-screen.md").read_text(encoding="utf-8")


def test_a_screen_that_keeps_nothing_is_said_and_learning_goes_on(tmp_path):
    loop, records = train(tmp_path / "run", "own_screens:nothing")
    assert set(series(records, "rollout/usable_rows_count")[1]) == {0.0}
    assert set(series(records, "rollout/kept_share")[1]) == {0.0}
    assert int(loop.state.agent.updates) == 21 * loop.config.sac.updates_per_step
    assert "lets no synthetic row through" in loop.run_dir.read_status()["message"]


def test_a_screens_memory_outlives_a_checkpoint(tmp_path):
    """Saved and loaded again: the same bits."""
    loop, _ = train(tmp_path / "run", "own_screens:counted")
    assert int(loop.state.screen.screen["seen"]) == 21 * 5
    checkpoint, _ = latest_valid(loop.run_dir.checkpoints_path)
    restored, _ = saving.load(checkpoint, loop.config, loop.env.spec)
    assert equal_bits(restored, loop.state)
