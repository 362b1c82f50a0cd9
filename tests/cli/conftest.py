"""One tiny trained run that all tests of the command line share."""

import json
import shutil
from pathlib import Path

import pytest
from calling import TINY, call


@pytest.fixture(scope="session")
def training(tmp_path_factory):
    """What ``ftfl train --json`` answered for a run of 60 steps, two checkpoints kept."""
    out = tmp_path_factory.mktemp("runs")
    status, stdout, stderr = call(
        "train",
        "gym/Pendulum-v1",
        "--algo",
        "ftfl",
        "--out",
        out,
        "--json",
        "--name",
        "ftfl",
        *TINY,
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
