"""The loop: what it learns when, what it leaves behind, and what must not change learning."""

import dataclasses
import os
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from ftfl import config as cfg
from ftfl import presets
from ftfl.envs.make import make_env
from ftfl.errors import FtflError
from ftfl.store.checkpoint import latest_valid
from ftfl.store.metrics_file import read_metrics, series
from ftfl.store.rundir import RunDir
from ftfl.training import saving, workers
from ftfl.training import state as run_state
from ftfl.training.evaluate import episode_seed, evaluate
from ftfl.training.loop import Loop
from helpers import compilations, equal_bits, every_preset, seldom, tiny

pytestmark = pytest.mark.usefixtures("quick_compiles")
TASK = "envs_for_tests:make_lqr"


def train(path, algo="sac", env=None, **changes):
    config = tiny(algo, TASK, **changes)
    run_dir = RunDir.create(path, cfg.to_dict(config), {})
    loop = Loop(config, env or make_env(TASK), make_env(TASK), run_dir)
    loop.run()
    return loop


# Every screen and every kind of target; other cells of the same methods compile much the same.
@pytest.mark.parametrize("algo", every_preset(
    "sac", "mbpo", "ftfl", "mbpo-innovation", "mbpo-2019", "m2ac-ftfl", "macura-ftfl",
    "infoprop-ftfl", "certainty-ftfl", "mve-ftfl", "m2ac-own", "macura-own", "infoprop-own",
    "mopo-own",
))  # fmt: skip
def test_every_preset_trains_fifty_steps(algo, tmp_path):
    rollouts = presets.build(TASK, algo).rollouts
    loop = train(tmp_path / "run", algo, steps=90, **seldom(algo))
    records = read_metrics(loop.run_dir.metrics_path)
    updates = series(records, "agent/updates_count")[1][-1]
    if rollouts is not None and rollouts.updates == "stored":
        assert 51 <= updates <= 51 * 2 * loop.config.sac.updates_per_step
    else:
        assert updates == 51 * loop.config.sac.updates_per_step
    assert series(records, "eval/return_mean_reward")[0].tolist() == [90]
    if loop.config.dynamics is not None:
        assert series(records, "rollout/rows_count")[1][-1] > 0
        assert series(records, "model/updates_count")[1][-1] > 0
        assert series(records, "rollout/nonfinite_rows_count")[1].sum() == 0
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(loop.state.agent))
    assert [compilations(getattr(loop.learner, f)) for f in ("act", "observe", "learn")] == [1] * 3
    checkpoint, _ = latest_valid(loop.run_dir.checkpoints_path)
    restored, progress = saving.load(checkpoint, loop.config, loop.env.spec)
    assert equal_bits(restored, loop.state)
    assert progress.updates == updates
    assert loop.run_dir.read_status()["state"] == "done"


@pytest.mark.parametrize("algo", ["sac", "ftfl"])
def test_a_checkpoint_holds_the_whole_state(algo, tmp_path):
    loop = train(tmp_path / "run", algo)
    checkpoint, damage = latest_valid(loop.run_dir.checkpoints_path)
    assert (checkpoint.step, damage) == (100, [])
    template = run_state.init(loop.config, loop.env.spec)
    assert not equal_bits(template, loop.state)
    restored = run_state.from_components(template, checkpoint.components, checkpoint.tables["real"])
    assert equal_bits(restored, loop.state)
    assert checkpoint.meta["env_steps"] == 100
    assert checkpoint.meta["rewards"][0] == 100
    # 100 steps of 20-step episodes: the newest has just begun.
    assert checkpoint.components["episode"]["actions"].shape == (0, 1)


def test_a_checkpoint_of_another_shape_is_refused(tmp_path):
    loop = train(tmp_path / "run")
    checkpoint, _ = latest_valid(loop.run_dir.checkpoints_path)
    other = run_state.init(tiny("sac", TASK, sac__hidden=(8, 8)), loop.env.spec)
    with pytest.raises(FtflError, match="configuration says"):
        run_state.from_components(other, checkpoint.components, checkpoint.tables["real"])


def test_the_same_seed_gives_the_same_bits_and_another_does_not(tmp_path):
    first, again = (train(tmp_path / name, "ftfl") for name in "ab")
    assert equal_bits(first.state, again.state)
    other = train(tmp_path / "c", "ftfl", seed=1)
    assert not np.array_equal(first.state.real.rows.obs, other.state.real.rows.obs)


def test_evaluating_more_often_changes_nothing_learned(tmp_path):
    seldom, often = train(tmp_path / "a"), train(tmp_path / "b", eval_every=10, log_every=7)
    assert equal_bits(seldom.state, often.state)
    evaluations = series(read_metrics(often.run_dir.metrics_path), "eval/return_mean_reward")[0]
    assert evaluations.tolist() == list(range(10, 101, 10))


def test_a_time_limit_is_stored_as_no_end(tmp_path):
    """Every episode here is cut by the clock: all steps bootstrap, on what the last one showed."""
    loop = train(tmp_path / "run")
    ring = loop.state.real
    assert loop.progress.episode == 5
    assert not ring.rows.terminated.any()
    assert int(loop.state.mismatches) == 0
    follows = np.asarray(ring.rows.obs[1:100] == ring.rows.next_obs[:99])[:, 0]
    np.testing.assert_array_equal(np.flatnonzero(~follows), [19, 39, 59, 79])


def test_evaluation_repeats_its_starts_and_never_meets_the_runs_own(monkeypatch):
    env, starts = make_env(TASK), []
    reset = env.reset
    monkeypatch.setattr(env, "reset", lambda seed: starts.append(seed) or reset(seed))
    for run_seed in (0, 0, 1):
        evaluate(env, lambda obs: np.zeros(1), run_seed, 20)
    first, again, other = starts[:20], starts[20:40], starts[40:]
    assert first == again
    own = {episode_seed(seed, episode) for seed in (0, 1) for episode in range(1_000)}
    assert len(own) == 2_000
    assert len({*first, *other}) == 40
    assert not own & {*first, *other}


def test_evaluation_leaves_the_environment_of_the_run_alone(tmp_path, monkeypatch):
    env, starts = make_env(TASK), []
    reset = env.reset
    monkeypatch.setattr(env, "reset", lambda seed: starts.append(seed) or reset(seed))
    # At the ends of episodes, where nobody would notice but for the count of resets.
    train(tmp_path / "run", env=env, eval_every=20)
    assert starts == [episode_seed(0, episode) for episode in range(5)]


class Watched:
    """An environment that notes how many updates the agent had made at each step."""

    def __init__(self):
        self.inner, self.spec, self.seen, self.episodes = make_env(TASK), None, [], []
        self.spec = self.inner.spec

    def reset(self, seed):
        self.episodes.append([])
        return self.inner.reset(seed)

    def step(self, action):
        self.episodes[-1].append(int(self.loop.state.agent.updates))
        return self.inner.step(action)

    def render(self):
        return self.inner.render()

    def close(self):
        self.inner.close()

    def restart(self):
        self.inner.restart()


def test_learning_between_episodes_only_and_as_much(tmp_path):
    env = Watched()
    config = tiny("ftfl", TASK, update_between_episodes=True, steps=110)
    run_dir = RunDir.create(tmp_path / "run", cfg.to_dict(config), {})
    env.loop = loop = Loop(config, env, make_env(TASK), run_dir)
    loop.run()
    assert all(len(set(seen)) <= 1 for seen in env.episodes), "it learned within an episode"
    # Steps 40 to 110, those of the unfinished last episode included.
    assert int(loop.state.agent.updates) == 71 * config.sac.updates_per_step
    assert int(loop.state.dynamics.refits) == 4


def test_logged_transitions_come_first(tmp_path):
    rng = np.random.default_rng(0)
    rows = 1_500
    logged = {
        "obs": rng.normal(size=(rows, 1)),
        "action": rng.uniform(-1, 1, (rows, 1)),
        "reward": rng.normal(size=rows),
        "next_obs": rng.normal(size=(rows, 1)),
        "terminated": np.zeros(rows, bool),
    }
    np.savez(tmp_path / "log.npz", **logged)
    loop = train(
        tmp_path / "run", "ftfl", init_replay=str(tmp_path / "log.npz"), warmup_steps=0, steps=30
    )
    ring = loop.state.real
    assert (int(ring.size), int(loop.state.env_steps)) == (rows + 30, 30)
    np.testing.assert_array_equal(ring.rows.obs[:rows], logged["obs"].astype(np.float32))
    np.testing.assert_array_equal(ring.rows.reward[:rows], logged["reward"].astype(np.float32))
    assert loop.progress.rewards.count == rows + 30
    assert int(loop.state.agent.updates) == 30 * loop.config.sac.updates_per_step


def in_units(monkeypatch, path, algo, **changes):
    """The records of a run in the task's own unit of reward, and of one in another.

    In processes of their own: the promise is about the kernels that users get.
    """
    places = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, places)))
    configs = [tiny(algo, TASK, task__reward_unit=unit, **changes) for unit in (1.0, 2.0**-10)]
    made = workers.prepare(configs, [path / "plain", path / "dialled"], [])
    pool = workers.Pool(jobs=1)  # the second reads what the first has compiled
    for run in zip(made, configs, strict=True):
        pool.submit(run)
    while pool.poll():
        time.sleep(0.1)
    assert [run_dir.read_status()["state"] for run_dir in made] == ["done", "done"]
    return [read_metrics(run_dir.metrics_path) for run_dir in made]


@pytest.mark.slow
@pytest.mark.usefixtures("users_kernels")
def test_returns_and_rewards_are_in_the_tasks_own_unit(monkeypatch, tmp_path):
    plain, dialled = in_units(monkeypatch, tmp_path, "ftfl", steps=45)
    names = {name for record in plain for name in record if name.endswith("_reward")}
    assert {"eval/return_mean_reward", "model/reward_bias_reward",
            "rollout/synthetic_reward_mean_reward"} < names  # fmt: skip
    names |= {name for record in plain for name in record if name.startswith("agent/")}
    assert "agent/q_mean_scaled" in names
    for x, y in zip(plain, dialled, strict=True):
        assert {k: x[k] for k in x if k in names} == {k: y[k] for k in y if k in names}


def test_resets_happen_when_due(tmp_path):
    loop = train(tmp_path / "run", sac__reset_every_updates=50)
    # 61 learn steps of 2 updates: 122 updates cross 50 and 100.
    assert int(loop.state.resets) == 2
    assert int(loop.state.agent.updates) == 122


@pytest.mark.parametrize("algo", ["sac", "ftfl"])
def test_nothing_compiles_twice(algo, tmp_path):
    changes = {"replay_rows": 50, "log_every": 10, "eval_every": 30}
    if algo == "ftfl":
        # The schedule lengthens branches on the way, and both rings come round.
        changes |= {"rollouts__length": (40, 90, 1, 3), "rollouts__retention_steps": 10}
    learner = train(tmp_path / "run", algo, **changes).learner
    compiled = {
        field.name: compilations(getattr(learner, field.name))
        for field in dataclasses.fields(learner)
    }
    once = {"explore", "act", "mode", "observe", "learn"} | ({"fit"} if algo == "ftfl" else set())
    assert {name for name, count in compiled.items() if count} == once
    assert max(compiled.values()) == 1
