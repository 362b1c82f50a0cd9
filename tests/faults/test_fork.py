"""Forks: carried over bit by bit, but for what the change touches."""

from pathlib import Path

import numpy as np
import pytest
from runs import SIMULATED, create, digest, go_on

from ftfl import config as cfg
from ftfl.errors import FtflError
from ftfl.store.checkpoint import list_checkpoints
from ftfl.store.rundir import RunDir
from ftfl.training.fork import changed_config, fork
from helpers import equal_bits, tiny

pytestmark = pytest.mark.usefixtures("quick_compiles")


@pytest.fixture(scope="module")
def parents(tmp_path_factory):
    """A finished run of 57 steps, in mid-episode, of sac and of ftfl."""
    root = tmp_path_factory.mktemp("parents")
    for algo in ("sac", "ftfl"):
        create(root / algo, tiny(algo, SIMULATED, steps=57))
        go_on(root / algo)
    return root


def forked(parents, algo, out, preset=None, steps=100, **changes):
    parent = RunDir.open(parents / algo)
    before = cfg.from_dict(parent.config())
    asked = {k.replace("__", "."): v for k, v in changes.items()}
    config = changed_config(before, preset, asked, steps)
    return fork(parent, config, out, ["test"])


def test_a_fork_that_only_goes_on_is_the_parent_gone_on_with(parents, tmp_path):
    create(tmp_path / "long", tiny("ftfl", SIMULATED, steps=100))
    long = go_on(tmp_path / "long")
    made = forked(parents, "ftfl", tmp_path / "fork")
    assert made.fresh == ()
    before = digest(parents / "ftfl")
    assert equal_bits(go_on(tmp_path / "fork").state, long.state)
    assert digest(parents / "ftfl") == before, "forking changed the parent"


def test_a_fork_is_resumable_like_any_run(parents, tmp_path):
    forked(parents, "ftfl", tmp_path / "whole", dynamics__target="residual")
    forked(parents, "ftfl", tmp_path / "parts", dynamics__target="residual")
    whole = go_on(tmp_path / "whole")
    go_on(tmp_path / "parts", 70)
    assert equal_bits(go_on(tmp_path / "parts").state, whole.state)


@pytest.mark.parametrize(
    ("changes", "fresh"),
    [
        ({"dynamics__target": "residual"}, {"dynamics", "synthetic", "screen"}),
        ({"dynamics__max_updates": 5}, set()),
        ({"rollouts__per_step": 4}, {"synthetic", "screen"}),
        ({"rollouts__real_ratio": 0.5}, set()),
        ({"sac__discount": 0.9}, set()),
        ({"sac__hidden": (8, 8)}, {"agent"}),
        ({"seed": 7}, {"episode"}),
    ],
)
def test_what_a_change_touches_starts_fresh_and_nothing_else(changes, fresh, parents, tmp_path):
    made = forked(parents, "ftfl", tmp_path / "fork", **changes)
    assert set(made.fresh) == fresh
    stopped = go_on(tmp_path / "fork", 57)
    parent = go_on(parents / "ftfl").state
    for name in ("agent", "dynamics"):
        same = equal_bits(getattr(stopped.state, name), getattr(parent, name))
        assert same == (name not in fresh)
    kept = 0 if "synthetic" in fresh else int(parent.synthetic.size)
    assert int(stopped.state.synthetic.size) == kept
    assert np.array_equal(stopped.state.real.rows.obs[:57], parent.real.rows.obs[:57])
    (entry,) = RunDir.open(tmp_path / "fork").read_history()
    assert entry["event"] == "forked"
    assert set(entry["fresh"]) == fresh
    assert entry["parent"] == str(parents / "ftfl")


@pytest.mark.parametrize("preset", ["sac", "mbpo", "ftfl"])
def test_one_agent_goes_on_under_every_algorithm(preset, parents, tmp_path):
    base = {} if preset == "sac" else {
        f"dynamics__{k}": v for k, v in {
            "hidden": (16, 16), "weight_decay": (0.0, 0.0, 0.0), "members": 2, "elites": 1,
            "max_updates": 5, "batch_size": 16,
        }.items()
    }  # fmt: skip
    made = forked(parents, "sac", tmp_path / "fork", preset, **base)
    assert "agent" not in made.fresh
    assert made.config.algo == preset
    start = go_on(tmp_path / "fork", 57)
    assert equal_bits(start.state.agent, go_on(parents / "sac").state.agent)
    end = go_on(tmp_path / "fork")
    assert int(end.state.agent.updates) - int(start.state.agent.updates) == 43 * 2
    assert (end.state.dynamics is None) == (preset == "sac")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"task__action_repeat": 2}, "action_repeat cannot change in a fork"),
        ({"steps": 57}, "steps is 57, but the checkpoint is at step 57"),
        ({"sac__nonsense": 1}, "unknown configuration field"),
    ],
)
def test_an_impossible_fork_leaves_nothing_behind(changes, said, parents, tmp_path):
    with pytest.raises(FtflError, match=said):
        forked(parents, "ftfl", tmp_path / "fork", **changes)
    assert not (tmp_path / "fork").exists()


def test_another_checkpoint_can_be_asked_for_by_step(parents, tmp_path):
    parent = RunDir.open(parents / "sac")
    config = changed_config(cfg.from_dict(parent.config()), None, {}, 100)
    made = fork(parent, config, tmp_path / "early", ["test"], step=0)
    assert made.env_steps == 0
    assert [p.name for p in list_checkpoints(made.run_dir.checkpoints_path)] == ["step_000000000"]
    with pytest.raises(FtflError, match="no checkpoint at step 5; it has: 0, 57"):
        fork(parent, config, tmp_path / "none", ["test"], step=5)


def test_a_run_of_checkpoint_format_1_can_be_forked(tmp_path):
    parent = RunDir.open(Path(__file__).parent / "golden" / "run_v1")
    config = changed_config(cfg.from_dict(parent.config()), None, {"sac.discount": 0.9}, 70)
    made = fork(parent, config, tmp_path / "fork", ["test"])
    assert made.env_steps == 57
    assert go_on(tmp_path / "fork").progress.env_steps == 70


def test_a_label_alone_is_no_change(parents):
    before = cfg.from_dict(RunDir.open(parents / "sac").config())
    with pytest.raises(
        FtflError, match="algo is a label that changes nothing by itself: use --algo"
    ):
        changed_config(before, None, {"algo": "mbpo"}, 100)
