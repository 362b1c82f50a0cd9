"""A run whose environment fails or whose disk is full: what it keeps, and what it says."""

import numpy as np
import pytest
from runs import SIMULATED, create, digest, go_on, records

from ftfl.envs.make import make_env
from ftfl.errors import FtflError
from ftfl.store.checkpoint import CheckpointStore, latest_valid, list_checkpoints
from ftfl.store.files import DiskError
from ftfl.store.metrics_file import read_metrics, series
from ftfl.store.rundir import RunDir
from ftfl.training import recorder
from helpers import equal_bits, tiny

pytestmark = pytest.mark.usefixtures("quick_compiles")


class Failing:
    """The simulated task; the inner environment fails at steps it is told, counted from 1."""

    def __init__(self, fails):
        self.guarded = make_env(SIMULATED)
        self.fails, self.count = set(fails), 0
        self.inner, self.spec = self.guarded, self.guarded.spec
        step = self.guarded.inner.step

        def failing(action):
            self.count += 1
            if self.count in self.fails:
                raise ValueError("the gripper is gone")
            return step(action)

        self.guarded.inner.step = failing
        # Made anew it is the same one, so that the counting goes on.
        adapter = self.guarded.inner
        self.guarded._make = lambda: adapter

    def reset(self, seed):
        return self.guarded.reset(seed)

    def step(self, action):
        return self.guarded.step(action)

    def render(self):
        return self.guarded.render()

    def close(self):
        self.guarded.close()

    def restart(self):
        self.guarded.restart()


def test_a_fault_costs_its_episode_and_no_false_transition(tmp_path):
    run_dir = create(tmp_path / "run", tiny("sac", SIMULATED, log_every=10, faults_allowed=2))
    loop = go_on(tmp_path / "run", env=Failing({30, 57}))
    assert int(loop.state.real.size) == 100
    obs, next_obs = loop.state.real.rows.obs[:100], loop.state.real.rows.next_obs[:100]
    # Within an episode each row begins where the one before it ended; a fault begins a new one.
    breaks = np.flatnonzero(next_obs[:-1, 0] != obs[1:, 0]) + 1
    # Steps 20, 40, … end episodes; the fault at the 30th call leaves 29 rows, at the 57th 55.
    assert breaks.tolist() == [20, 29, 49, 55, 75, 95]
    steps, counts = series(read_metrics(run_dir.metrics_path), "env/faults_count")
    assert dict(zip(steps.tolist(), counts.tolist(), strict=True)) == {
        10: 0, 20: 0, 30: 1, 40: 1, 50: 1, 60: 2, 70: 2, 80: 2, 90: 2, 100: 2,
    }  # fmt: skip
    first, second = run_dir.read_faults()
    assert (first["env_steps"], first["step"], first["cause"]) == (29, 10, "exception")
    assert "the gripper is gone" in first["message"]
    assert "Traceback" in first["details"]
    assert len(first["actions"]) == first["step"]
    assert second["env_steps"] == 55
    assert "2 environment faults" in run_dir.read_status()["message"]


def test_what_is_recorded_of_a_fault_reproduces_it(tmp_path):
    run_dir = create(tmp_path / "run", tiny("sac", SIMULATED))
    loop = go_on(tmp_path / "run", env=Failing({30}))
    (fault,) = run_dir.read_faults()
    env = make_env(SIMULATED)
    obs = env.reset(fault["seed"])
    rows = loop.state.real.rows
    for number, action in enumerate(fault["actions"][:-1]):
        assert np.array_equal(obs, rows.obs[20 + number])
        obs = env.step(np.array(action, np.float32)).obs


def test_one_fault_too_many_ends_the_run_with_everything_saved(tmp_path):
    run_dir = create(tmp_path / "run", tiny("sac", SIMULATED, faults_allowed=1))
    with pytest.raises(FtflError, match=r"failed 2 times within 10000 steps.*--faults-allowed"):
        go_on(tmp_path / "run", env=Failing({30, 57}))
    assert latest_valid(run_dir.checkpoints_path)[0].step == 55
    # Understood, and gone on with.
    assert go_on(tmp_path / "run").progress.env_steps == 100


def test_an_environment_that_only_fails_ends_the_run_and_does_not_hang(tmp_path):
    create(tmp_path / "run", tiny("sac", SIMULATED, faults_allowed=3))
    with pytest.raises(FtflError, match="failed 4 times"):
        go_on(tmp_path / "run", env=Failing(range(1, 1000)))


def test_faults_are_the_same_ones_after_a_stop(tmp_path):
    config = tiny("sac", SIMULATED, log_every=10, checkpoint_every=20)
    whole = create(tmp_path / "whole", config)
    go_on(tmp_path / "whole", env=Failing({30}))
    parts = create(tmp_path / "parts", config)
    go_on(tmp_path / "parts", 35, env=Failing({30}))
    # Killed: the checkpoint at 35 is gone, and the fault will be met again.
    list_checkpoints(parts.checkpoints_path)[-1].rename(tmp_path / "gone")
    go_on(tmp_path / "parts", env=Failing({10}))
    assert parts.read_faults() == whole.read_faults()
    assert records(tmp_path / "parts") == records(tmp_path / "whole")
    assert digest(tmp_path / "parts") == digest(tmp_path / "whole")


@pytest.fixture
def full_disk(monkeypatch):
    """Refuses every save while it is not empty."""
    full = []
    save = CheckpointStore.save

    def refusing(self, *args, **kwargs):
        if full:
            raise DiskError("cannot save checkpoint: No space left on device.")
        return save(self, *args, **kwargs)

    monkeypatch.setattr(CheckpointStore, "save", refusing)
    return full


def test_on_a_full_disk_training_goes_on_and_says_so(full_disk, tmp_path, monkeypatch):
    monkeypatch.setattr(recorder, "_STATUS_EVERY_SECONDS", 0.0)
    config = tiny("sac", SIMULATED, checkpoint_every=30)
    create(tmp_path / "whole", config)
    whole = go_on(tmp_path / "whole")
    run_dir = create(tmp_path / "run", config)
    go_on(tmp_path / "run", 40)
    full_disk.append(True)
    said = []

    class Watching(Failing):
        def step(self, action):
            said.append(run_dir.read_status().get("message", ""))
            if self.count == 45:
                full_disk.clear()
            return super().step(action)

    loop = go_on(tmp_path / "run", env=Watching(set()))
    assert any("No space left" in s and "training goes on" in s for s in said)
    assert equal_bits(loop.state, whole.state)
    assert latest_valid(run_dir.checkpoints_path)[0].step == 100
    assert run_dir.read_status()["state"] == "done"
    assert loop.recorder.notices == {}


def test_a_run_that_cannot_save_its_end_does_not_claim_to_be_done(full_disk, tmp_path):
    create(tmp_path / "run", tiny("sac", SIMULATED, checkpoint_every=30))
    go_on(tmp_path / "run", 40)
    full_disk.append(True)
    with pytest.raises(FtflError, match=r"last checkpoint could not be written.*kept: step 40"):
        go_on(tmp_path / "run")


def test_a_full_disk_stops_the_run_where_that_was_asked_for(full_disk, tmp_path):
    create(tmp_path / "run", tiny("sac", SIMULATED, checkpoint_every=30, on_full_disk="stop"))
    loop = go_on(tmp_path / "run", 40)
    full_disk.append(True)
    with pytest.raises(DiskError, match="No space left"):
        go_on(tmp_path / "run")
    assert latest_valid(loop.run_dir.checkpoints_path)[0].step == 40


def test_two_processes_cannot_train_one_run(tmp_path):
    from ftfl.training.workers import train_in_process

    run_dir = create(tmp_path / "run", tiny("sac", SIMULATED))
    run_dir.write_status({"state": "training", "label": "sac", "seed": 0})
    with run_dir.lock(), pytest.raises(FtflError, match="is in use by process"):
        train_in_process(RunDir.open(tmp_path / "run"))
    assert run_dir.read_status()["state"] == "training", "the holder's own status was overwritten"
