"""A writer killed anywhere leaves valid checkpoints, the newest no older than the last save."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="names descriptors through /proc")


def harness(*arguments):
    script = Path(__file__).with_name("store_harness.py")
    result = subprocess.run(
        [sys.executable, str(script), *map(str, arguments)],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
            "OPENBLAS_NUM_THREADS": "1",  # a process that forks has one thread
        },
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    answer = json.loads(result.stdout)
    assert answer["jax"] is False, "saving a checkpoint must not need JAX"
    return answer


def test_a_kill_or_power_cut_between_any_two_file_operations(tmp_path):
    answer = harness("points", tmp_path)
    assert answer["wrong"] == []
    assert answer["points_after_0"] >= 30, "a first save makes directories, two tables, two files"
    assert answer["points_after_5"] >= 50, "a later one prunes a checkpoint and its segments"


@pytest.mark.parametrize(("count", "seed"), [(10, 1), pytest.param(100, 2, marks=pytest.mark.long)])
def test_kills_at_random_times_never_take_the_newest_finished_save_away(tmp_path, count, seed):
    answer = harness("kills", tmp_path, count, seed)
    assert answer["wrong"] == []
    assert answer["reached"] >= count // 2, "the writers must have come to saving"
