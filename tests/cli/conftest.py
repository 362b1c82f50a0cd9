"""One tiny trained run that all tests of the command line share."""

import contextlib
import io
import json
import shutil
from pathlib import Path

import pytest

from ftfl.cli import main

TINY = (
    "--profile probe --steps 60 --warmup-steps 20 --eval-every 30 --eval-episodes 1"
    " --checkpoint-every 30 --log-every 20 --sac.hidden 16 16 --sac.batch-size 16"
    " --sac.updates-per-step 1 --dynamics.hidden 16 16 --dynamics.max-updates 10"
    " --dynamics.members 2 --dynamics.elites 1 --rollouts.per-step 4 --rollouts.retention-steps 20"
).split()


def call(*argv):
    """Exit status, stdout and stderr of ``ftfl argv``; ``--help`` leaves by SystemExit."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = main([str(a) for a in argv])
        except SystemExit as stop:
            status = stop.code
    return status, out.getvalue(), err.getvalue()


@pytest.fixture(scope="session")
def training(tmp_path_factory):
    """What ``ftfl train --json`` answered for a run of 60 steps, two checkpoints kept."""
    out = tmp_path_factory.mktemp("runs")
    status, stdout, stderr = call(
        "train", "gym/Pendulum-v1", "--algo", "ftfl", "--out", out, "--json", *TINY
    )
    logs = "".join(path.read_text() for path in out.rglob("stderr.txt"))
    assert status == 0, stderr + logs
    return stdout


@pytest.fixture(scope="session")
def trained(training):
    """The run directory; read only."""
    return Path(json.loads(training)["runs"][0]["path"])


@pytest.fixture
def run_copy(trained, tmp_path):
    """A run directory that a test may damage."""
    return Path(shutil.copytree(trained, tmp_path / "copy" / trained.name))
