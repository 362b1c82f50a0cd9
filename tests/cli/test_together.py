"""Seeds trained together, as users meet them."""

import json

import pytest
from calling import MODEL_FREE, call

from ftfl.store.metrics_file import read_metrics, series
from ftfl.store.rundir import RunDir


@pytest.mark.slow
def test_seeds_together_are_runs_like_any_other(tmp_path):
    argv = [
        "gym/Pendulum-v1",
        *MODEL_FREE,
        "--seeds",
        0,
        1,
        "--out",
        tmp_path,
        "--jobs",
        1,
        "--json",
    ]
    status, out, err = call("train", *argv, "--together")
    assert (status, "each group on one core: 0+1" in err) == (0, True), err
    runs = [RunDir.open(path.parent) for path in sorted(tmp_path.rglob("config.json"))]
    assert [run.config()["seed"] for run in runs] == [0, 1]
    assert len({run.read_status()["pid"] for run in runs}) == 1
    assert [r["state"] for r in json.loads(out)["runs"]] == ["done", "done"]
    # Longer, and back to a process each.
    place = runs[0].path.parent
    status, out, err = call("resume", place, "--steps", 70, "--jobs", 1, "--json", "--together")
    assert (status, "each group on one core: 0+1" in err) == (0, True), err
    status, out, err = call("resume", runs[1].path, "--steps", 80, "--json", "--apart")
    assert status == 0, err
    ends = [series(read_metrics(r.metrics_path), "agent/updates_count")[0][-1] for r in runs]
    assert ends == [70, 80]


def test_together_and_apart_exclude_each_other():
    status, _, err = call("train", "gym/Pendulum-v1", "--together", "--apart")
    assert status == 2
    assert "--apart" in err
