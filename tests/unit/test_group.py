"""Seeds trained together: each as if it had been alone, whatever becomes of the others."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ftfl import config as cfg
from ftfl.envs.faults import EnvFault
from ftfl.envs.make import make_env
from ftfl.errors import FtflError, Stopped
from ftfl.store.checkpoint import latest_valid
from ftfl.store.metrics_file import read_metrics
from ftfl.store.rundir import RunDir
from ftfl.training import grouping
from ftfl.training import learn as learning
from ftfl.training import state as run_state
from ftfl.training.group import Group, mesh_for
from ftfl.training.loop import Loop
from ftfl.training.signals import StopRequest
from helpers import compilations, tiny

pytestmark = pytest.mark.usefixtures("quick_compiles")
TASK = "envs_for_tests:make_simulated_lqr"
SEEDS = (0, 1, 2)
NAMES = ("explore", "act", "mode", "observe", "fit", "learn")
COMPILED = "backend_compile"
CHANGES = {"steps": 60, "log_every": 10, "eval_every": 30, "eval_episodes": 2}


class Failing:
    """An environment whose ``fails_at``-th step goes wrong, once."""

    def __init__(self, fails_at):
        self.inner = make_env(TASK)
        self.spec, self.reset, self.close = self.inner.spec, self.inner.reset, self.inner.close
        self.left = fails_at

    def step(self, action):
        self.left -= 1
        if self.left == 0:
            raise EnvFault("test", "simulator", "it broke", 0, 1, action)
        return self.inner.step(action)

    def render(self):
        return self.inner.render()

    def restart(self):
        self.inner.restart()


class Stop(StopRequest):
    """Asks all to leave once the first has done so many steps."""

    loops = ()

    @property
    def reason(self):
        return "SIGTERM" if self.loops and self.loops[0].progress.env_steps >= 45 else None


def loops_of(path, algo="sac", seeds=SEEDS, envs=None, stop=None, **changes):
    made = []
    for seed in seeds:
        config = tiny(algo, TASK, seed=seed, **(CHANGES | changes))
        place = path / f"seed_{seed}"
        exists = (place / "config.json").exists()
        run_dir = RunDir.open(place) if exists else RunDir.create(place, cfg.to_dict(config), {})
        env = (envs or {}).get(seed) or make_env(TASK)
        made.append(Loop(config, env, make_env(TASK), run_dir, (), stop))
    return made


def train(loops, devices=None):
    """How each seed ended, and the group."""
    ends = {}
    group = Group(loops, devices)
    group.run(lambda number, error: ends.update({number: error}))
    return [ends[number] for number in range(len(loops))], group


def arrays(loop):
    checkpoint, damage = latest_valid(loop.run_dir.checkpoints_path)
    assert not damage
    parts = {f"{c}/{n}": a for c, part in checkpoint.components.items() for n, a in part.items()}
    return parts | checkpoint.tables["real"].rows


def assert_alike(one, other, rtol=2e-3):
    """Two runs of a few updates: the same but for rounding."""
    left, right = (read_metrics(loop.run_dir.metrics_path) for loop in (one, other))
    assert [r.keys() for r in left] == [r.keys() for r in right]
    assert len(left) > 5
    for x, y in zip(left, right, strict=True):
        for name in x:
            if "second" not in name:
                np.testing.assert_allclose(x[name], y[name], rtol, 1e-4, err_msg=name)
    left, right = arrays(one), arrays(other)
    assert left.keys() == right.keys()
    for name, value in left.items():
        np.testing.assert_allclose(value, right[name], rtol, 1e-4, err_msg=name)


def test_seeds_together_equal_seeds_alone_up_to_rounding_and_compile_once(tmp_path):
    alone = loops_of(tmp_path / "alone", seeds=(0, 2))
    for loop in alone:
        loop.run()
    together = loops_of(tmp_path / "together")
    ends, group = train(together)
    assert ends == [None] * 3
    assert_alike(alone[0], together[0])
    assert_alike(alone[1], together[2])
    files = ({f.name for f in loop.run_dir.path.iterdir()} for loop in (alone[0], together[0]))
    assert len(set(map(frozenset, files))) == 1
    # Nothing random was shared: warm-up has the very same bits.
    warm = [arrays(loop)["action"][:40] for loop in (alone[0], together[0], together[1])]
    np.testing.assert_array_equal(warm[0], warm[1])
    assert not np.array_equal(warm[0], warm[2])
    sizes = {name: compilations(getattr(group.learner, name)) for name in NAMES}
    assert sizes == dict.fromkeys(NAMES, 1) | {"fit": 0}
    assert compilations(group.single.learn) == 0, "no seed was ever behind"


def within(jaxpr, enter):
    """All equations of a program, those of inner programs where ``enter`` says so."""
    for equation in jaxpr.eqns:
        yield equation
        if enter(equation):
            for inner in jax.tree.leaves(
                list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns")
            ):
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    yield from within(inner, enter)


def sorts_at_every_call(jaxpr):
    """How often something is sorted outside conditionals."""
    equations = within(jaxpr, lambda e: e.primitive.name != "cond")
    return sum(e.primitive.name == "sort" for e in equations)


def loops_that_end_by_seed(jaxpr):
    """Loops whose seeds may end one by one: each is then kept as it is by copying all it has."""
    loops = (e for e in within(jaxpr, lambda e: True) if e.primitive.name == "while")
    return sum(e.params["cond_jaxpr"].out_avals[0].shape != () for e in loops)


@pytest.mark.parametrize("algo", ["mbpo", "macura", "infoprop"])
def test_together_no_loop_of_a_learn_step_copies_the_replays(algo):
    config, spec = tiny(algo, TASK), make_env(TASK).spec
    state = jax.tree.map(lambda x: jnp.stack([x, x]), run_state.init(config, spec))
    counts = []
    for axis in ("seeds", None):
        learn = learning.functions(config, spec, axis=axis)["learn"]
        program = jax.make_jaxpr(jax.vmap(learn, axis_name="seeds"))(state).jaxpr
        counts.append(loops_that_end_by_seed(program))
    assert counts[0] == 0
    assert counts[1] > 0, "the count sees nothing"


def test_together_a_screen_calibrates_after_refits_only_not_at_every_step():
    """A choice that might differ between seeds would be computed both ways at every step."""
    config = tiny("infoprop", TASK)
    spec = make_env(TASK).spec
    state = jax.tree.map(lambda x: jnp.stack([x, x]), run_state.init(config, spec))
    learn = learning.functions(config, spec, axis="seeds")["learn"]
    program = jax.make_jaxpr(jax.vmap(learn, axis_name="seeds"))(state).jaxpr
    assert sorts_at_every_call(program) == 0
    blind = learning.functions(config, spec)["learn"]
    program = jax.make_jaxpr(jax.vmap(blind))(state).jaxpr
    assert sorts_at_every_call(program) > 0, "the count sees nothing"


def test_a_fault_of_one_environment_voids_a_step_of_that_seed_only(tmp_path):
    calm = loops_of(tmp_path / "calm", seeds=(0,))[0]
    calm.run()
    alone = loops_of(tmp_path / "alone", seeds=(1,), envs={1: Failing(45)})[0]
    alone.run()
    together = loops_of(tmp_path / "together", seeds=(0, 1), envs={1: Failing(45)})
    ends, _ = train(together)
    assert ends == [None, None]
    assert [len(loop.progress.faults) for loop in together] == [0, 1]
    assert_alike(calm, together[0])
    assert_alike(alone, together[1])
    assert int(together[1].progress.env_steps) == 60


def test_a_seed_that_diverges_or_loses_its_environment_ends_alone(tmp_path):
    together = loops_of(tmp_path, faults_allowed=0, envs={1: Failing(50)})
    group = Group(together)
    state = together[2].seat.state
    agent = dataclasses.replace(state.agent, log_temperature=jnp.float32(np.nan))
    together[2].seat.state = dataclasses.replace(state, agent=agent)
    ends = {}
    group.run(lambda number, error: ends.update({number: error}))
    assert ends[0] is None
    assert "failed 1 times" in str(ends[1])
    assert "learning diverged" in str(ends[2])
    assert [loop.progress.env_steps for loop in together] == [60, 49, 40]
    assert together[0].run_dir.read_status()["state"] == "done"
    assert np.isfinite(arrays(together[0])["agent/log_temperature"])


def test_a_seed_rolls_back_by_itself_and_catches_up(tmp_path):
    changes = {"on_divergence": "roll_back", "checkpoint_every": 45}
    together = loops_of(tmp_path, seeds=(0, 1), **changes)
    group = Group(together)
    healthy, calls = group.learner, []

    def learn(state):
        calls.append(None)
        if len(calls) == 12:
            bad = state.agent.log_temperature.at[1].set(jnp.nan)
            state = eqx.tree_at(lambda s: s.agent.log_temperature, state, bad)
        return healthy.learn(state)

    group.learner = dataclasses.replace(healthy, learn=learn)
    ends = {}
    group.run(lambda number, error: ends.update({number: error}))
    assert ends == {0: None, 1: None}
    assert [loop.progress.rollbacks for loop in together] == [0, 1]
    assert [loop.progress.env_steps for loop in together] == [60, 60]
    assert compilations(group.single.learn) == 1, "the seed behind learned by itself"
    alone = loops_of(tmp_path / "alone", seeds=(0,), **changes)[0]
    alone.run()
    assert_alike(alone, together[0])


def test_stopped_together_resumed_alone_or_together(tmp_path):
    stop = Stop()
    first = loops_of(tmp_path / "run", stop=stop)
    stop.loops = first
    ends, _ = train(first)
    assert all(isinstance(end, Stopped) for end in ends)
    assert [loop.progress.env_steps for loop in first] == [45] * 3
    ends, _ = train(loops_of(tmp_path / "run", seeds=(0, 1)))
    assert ends == [None, None]
    alone = loops_of(tmp_path / "run", seeds=(2,))[0]
    alone.run()
    whole, _ = loops_of(tmp_path / "whole", seeds=(2, 0))
    whole.run()
    assert_alike(whole, alone)


def test_only_seeds_of_one_configuration_are_trained_together(tmp_path):
    one = loops_of(tmp_path / "a", seeds=(0,))
    other = loops_of(tmp_path / "b", seeds=(1,), sac__batch_size=16)
    with pytest.raises(FtflError, match="one configuration"):
        Group(one + other)


def test_devices_are_used_where_they_divide_the_seeds():
    devices = [jax.devices()[0]] * 4
    sizes = {n: mesh_for(n, devices).devices.size for n in (2, 4, 6, 8, 9)}
    assert sizes == {2: 2, 4: 4, 6: 3, 8: 4, 9: 3}
    assert mesh_for(5, devices) is None
    assert mesh_for(3, devices[:1]) is None


@pytest.mark.slow
def test_four_seeds_on_four_devices_equal_single_runs(tmp_path):
    env = dict(os.environ)
    env["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4 " + env.get("XLA_FLAGS", "")
    env["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])
    ran = subprocess.run(
        [sys.executable, str(Path(__file__)), str(tmp_path)],
        env=env, capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr[-3_000:]
    assert "4 devices" in ran.stdout


def sharded(path):
    """In a process with four devices: see the test above."""
    jax.config.update("jax_disable_most_optimizations", True)
    changes = {"steps": 45, "warmup_steps": 40, "eval_every": 45, "log_every": 5,
               "dynamics__train_every": 4}  # fmt: skip
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, _, **of: compiled.append(of.get("fun_name")) if COMPILED in event else None
    )
    together = loops_of(path / "together", "ftfl", seeds=range(4), **changes)
    ends, group = train(together)
    assert ends == [None] * 4
    for leaf in jax.tree.leaves(group.batch):
        shards = leaf.addressable_shards
        assert {shard.data.shape[0] for shard in shards} == {1}
        assert len({shard.device for shard in shards}) == 4
    # Not _cache_size: JAX writes the sharding of a key in two ways, and looks up both.
    counts = {name: compiled.count(f"jit({name})") for name in NAMES}
    assert counts == dict.fromkeys(NAMES, 1), counts
    for seed in (0, 3):
        alone = loops_of(path / "alone", "ftfl", seeds=(seed,), **changes)[0]
        alone.run()
        assert_alike(alone, together[seed], rtol=1e-2)
    print(len(jax.devices()), "devices")


class TestArrange:
    """Which seeds go into one process."""

    def arrange(self, path, configs, together, cores=2, accelerator=False):
        run_dirs = [
            RunDir.create(path / str(n), cfg.to_dict(config), {})
            for n, config in enumerate(configs)
        ]
        return grouping.arrange(run_dirs, configs, together, cores, accelerator)[0]

    def test_on_cpu_only_tiny_networks_train_together_dealt_out_to_the_cores(self, tmp_path):
        small = [tiny("sac", TASK, seed=s) for s in range(5)]
        assert self.arrange(tmp_path / "a", small, None) == [[0, 2, 4], [1, 3]]
        large = [tiny("sac", TASK, seed=s, sac__hidden=(256, 256)) for s in range(3)]
        assert self.arrange(tmp_path / "b", large, None) == [[0], [1], [2]]
        assert self.arrange(tmp_path / "c", large, True) == [[0, 2], [1]]
        assert self.arrange(tmp_path / "d", small, False) == [[0], [1], [2], [3], [4]]

    def test_an_accelerator_takes_all_seeds_of_a_configuration_at_once(self, tmp_path):
        large = [tiny("sac", TASK, seed=s, sac__hidden=(256, 256)) for s in range(3)]
        other = [tiny("sac", TASK, seed=s, sac__hidden=(128, 128)) for s in range(2)]
        assert self.arrange(tmp_path, large + other, None, accelerator=True) == [[0, 1, 2], [3, 4]]

    def test_runs_at_different_steps_and_machines_train_apart(self, tmp_path, monkeypatch):
        configs = [tiny("sac", TASK, seed=s) for s in range(3)]
        monkeypatch.setattr(grouping, "list_checkpoints", lambda place: [place.parent.name])
        monkeypatch.setattr(grouping, "step_of", lambda name: {"0": 10, "1": 20, "2": 10}[name])
        assert self.arrange(tmp_path / "a", configs, True, cores=1) == [[0, 2], [1]]
        machine = [tiny("sac", TASK, seed=s, update_between_episodes=True) for s in range(2)]
        assert self.arrange(tmp_path / "b", machine, None) == [[0], [1]]
        with pytest.raises(FtflError, match="update_between_episodes"):
            self.arrange(tmp_path / "c", machine, True)

    def test_without_an_accelerators_plugin_no_process_is_started_to_ask(self, monkeypatch):
        monkeypatch.setattr(grouping.subprocess, "run", lambda *a, **k: pytest.fail("asked"))
        monkeypatch.setattr(grouping.metadata, "entry_points", lambda group: ())
        monkeypatch.setattr(grouping.importlib.util, "find_spec", lambda name: None)
        assert not grouping.has_accelerator({})
        monkeypatch.setattr(grouping.metadata, "entry_points", lambda group: ("cuda",))
        assert not grouping.has_accelerator({"JAX_PLATFORMS": "cpu"})

    def test_an_accelerator_that_does_not_start_is_said(self, monkeypatch):
        failed = subprocess.CompletedProcess([], 1, "", "x\nno driver")
        monkeypatch.setattr(grouping.metadata, "entry_points", lambda group: ("cuda",))
        monkeypatch.setattr(grouping.subprocess, "run", lambda *a, **k: failed)
        with pytest.raises(FtflError, match=r"no driver.*JAX_PLATFORMS=cpu"):
            grouping.has_accelerator({})
        asked = subprocess.CompletedProcess([], 0, "1\n", "")
        monkeypatch.setattr(grouping.subprocess, "run", lambda *a, **k: asked)
        assert grouping.has_accelerator({})


if __name__ == "__main__":
    sharded(Path(sys.argv[1]))
