"""Runs that are stopped on purpose, and what two runs must have in common."""

import functools
import hashlib
from unittest import mock

from ftfl import config as cfg
from ftfl.envs.make import make_env
from ftfl.errors import Stopped
from ftfl.store.checkpoint import latest_valid
from ftfl.store.metrics_file import read_metrics
from ftfl.store.rundir import RunDir
from ftfl.training import learn, loop
from ftfl.training.signals import StopRequest

SIMULATED = "envs_for_tests:make_simulated_lqr"
# Pure functions of configuration and task: compiled once for all the processes a test imitates.
learner = functools.lru_cache(maxsize=4)(learn.make_learner)


class StopAt(StopRequest):
    """Asks the run to leave once it has done so many steps."""

    def __init__(self, env_steps):
        super().__init__()
        self.env_steps = env_steps
        self.loop = None

    @property
    def reason(self):
        return "SIGTERM" if self.loop.progress.env_steps >= self.env_steps else None


def create(path, config):
    return RunDir.create(path, cfg.to_dict(config), {})


def go_on(path, stop_at=None, task=SIMULATED, env=None):
    """One process of a run: until it is done, or stopped at ``stop_at``; the loop it left."""
    run_dir = RunDir.open(path)
    config = cfg.from_dict(run_dir.config())
    stop = None if stop_at is None else StopAt(stop_at)
    with mock.patch.object(loop, "make_learner", learner):
        made = loop.Loop(config, env or make_env(task), make_env(task), run_dir, (), stop)
    if stop is None:
        made.run()
    else:
        stop.loop = made
        try:
            made.run()
        except Stopped:
            assert made.progress.env_steps == stop_at
        else:
            raise AssertionError(f"the run was not stopped at {stop_at}")
    return made


def digest(path):
    """SHA-256 over every array a run's newest checkpoint holds, with its name, dtype and shape."""
    checkpoint, damage = latest_valid(RunDir.open(path).checkpoints_path)
    assert not damage
    parts = {
        f"{c}/{n}": a for c, arrays in checkpoint.components.items() for n, a in arrays.items()
    }
    for name, table in checkpoint.tables.items():
        parts |= {f"{name}/{n}/{table.total}": a for n, a in table.rows.items()}
    whole = hashlib.sha256()
    for name in sorted(parts):
        whole.update(f"{name} {parts[name].dtype} {parts[name].shape}".encode())
        whole.update(parts[name].tobytes())
    return whole.hexdigest()


def records(path):
    """The metrics of a run without what the clock decides."""
    return [
        {k: v for k, v in record.items() if "second" not in k}
        for record in read_metrics(RunDir.open(path).metrics_path)
    ]
