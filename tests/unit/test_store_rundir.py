"""Run directories: taken or unwritable places refused, status replaced whole, one writer."""

import json
import math
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from ftfl.errors import FtflError
from ftfl.store import provenance
from ftfl.store.metrics_file import read_metrics
from ftfl.store.rundir import STATES, STATUS_FIELDS, RunDir


def make(path: Path) -> RunDir:
    return RunDir.create(path, {"seed": 1, "hidden": (256, 256)}, {"ftfl": "0.1.0"})


def test_create_open_and_the_names_of_the_files(tmp_path):
    run = make(tmp_path / "a" / "with spaces é")
    assert sorted(p.name for p in run.path.iterdir()) == [
        "checkpoints",
        "config.json",
        "provenance.json",
    ]
    again = RunDir.open(run.path)
    assert again == run
    assert again.config() == {"seed": 1, "hidden": [256, 256]}
    assert again.provenance() == {"ftfl": "0.1.0"}
    assert run.report_path.name == "report.html"
    with run.metrics_writer() as writer:
        writer.write(1, 0, 0.0, {})
    assert len(read_metrics(run.path / "metrics.jsonl")) == 1


def test_an_empty_directory_may_be_used_and_a_taken_one_not(tmp_path):
    (tmp_path / "empty").mkdir()
    run = make(tmp_path / "empty")
    before = run.config_path.read_bytes()
    with pytest.raises(FtflError, match="already exists and is not empty: choose another --out"):
        make(run.path)
    assert run.config_path.read_bytes() == before


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("mine")
    for path in (tmp_path / "file", tmp_path / "file" / "run", tmp_path / ("x" * 300)):
        with pytest.raises(FtflError, match=r"cannot create run directory .*choose another --out"):
            make(path)
    assert (tmp_path / "file").read_text() == "mine"


def test_config_must_be_json_and_is_checked_before_anything_is_made(tmp_path):
    with pytest.raises(FtflError, match="cannot be stored as JSON"):
        RunDir.create(tmp_path / "run", {"f": print}, {})
    assert not (tmp_path / "run").exists()


def test_open_refuses_what_is_no_run_and_names_the_runs_below(tmp_path):
    with pytest.raises(FtflError, match="there is no run directory"):
        RunDir.open(tmp_path / "absent")
    with pytest.raises(FtflError, match=r"it has no config\.json\.$"):
        RunDir.open(tmp_path)
    make(tmp_path / "seed_0")
    with pytest.raises(FtflError, match=r"give one run, for example .*seed_0"):
        RunDir.open(tmp_path)


def test_damaged_config_is_named(tmp_path):
    run = make(tmp_path / "run")
    run.config_path.write_text("{")
    with pytest.raises(FtflError, match=r"config\.json is damaged"):
        run.config()


def test_status_round_trip_and_refusals(tmp_path):
    run = make(tmp_path / "run")
    assert run.read_status() == {}
    run.write_status({"state": "training", "env_steps": np.int64(5), "last_return": math.nan})
    assert run.read_status() == {"state": "training", "env_steps": 5, "last_return": None}
    with pytest.raises(FtflError, match="did you mean env_steps"):
        run.write_status({"state": "training", "env_step": 5})
    with pytest.raises(FtflError, match="unknown state 'trainin'"):
        run.write_status({"state": "trainin"})
    assert run.read_status()["env_steps"] == 5
    for state in STATES:
        run.write_status({"state": state})
        assert run.read_status() == {"state": state}
    assert "state" in STATUS_FIELDS


def test_a_reader_never_sees_a_part_of_a_status(tmp_path):
    run = make(tmp_path / "run")
    run.write_status({"state": "training", "message": ""})
    stop = threading.Event()
    broken: list[bytes] = []
    seen: set[int] = set()

    def read():
        while not stop.is_set():
            data = run.status_path.read_bytes()
            try:
                seen.add(len(json.loads(data)["message"]))
            except ValueError:
                broken.append(data)

    thread = threading.Thread(target=read)
    thread.start()
    for size in range(200):
        run.write_status({"state": "training", "message": "x" * size * 100})
    stop.set()
    thread.join()
    assert broken == []
    assert len(seen) > 1


def test_a_status_that_cannot_be_written_does_not_end_the_run(tmp_path, monkeypatch):
    run = make(tmp_path / "run")
    run.write_status({"state": "training"})

    def refuse(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", refuse)
        run.write_status({"state": "done"})
    assert run.read_status() == {"state": "training"}


def test_one_writer_per_run_and_a_dead_one_frees_it(tmp_path):
    run = make(tmp_path / "run")
    with (
        run.lock(),
        pytest.raises(FtflError, match=f"in use by process {os.getpid()} on "),
        run.lock(),
    ):
        pass
    code = (
        "import os, sys; from pathlib import Path; from ftfl.store.rundir import RunDir\n"
        "with RunDir(Path(sys.argv[1])).lock(): os.kill(os.getpid(), 9)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, str(run.path)],
        env={"PYTHONPATH": ":".join(p for p in sys.path if p)},
    )
    assert result.returncode == -9
    with run.lock():
        assert (run.path / ".lock").read_text().startswith(f"process {os.getpid()} ")


def test_provenance_is_complete_json(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_some_flag=1")
    found = provenance.collect(["ftfl", "train", "my task"])
    assert json.loads(json.dumps(found)) == found
    assert found["command"] == "ftfl train 'my task'"
    assert found["xla_flags"] == "--xla_some_flag=1"
    assert found["started"].endswith("+00:00")
    assert found["cores"] >= found["cores_allowed"] >= 1
    assert found["packages"]["numpy"] == np.__version__
    assert set(found["packages"]) >= {"jax", "jaxlib", "equinox", "optax", "mujoco", "dm-control"}


def test_provenance_without_git_or_packages(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(provenance, "PACKAGES", ("no-such-package",))
    found = provenance.collect([])
    assert found["git"] is None
    assert found["packages"] == {"no-such-package": None}


def test_git_commit_is_of_a_checkout_that_tracks_the_package(tmp_path, monkeypatch):
    def git(*arguments):
        identity = ("-c", "user.name=a", "-c", "user.email=a@example.org")
        subprocess.run(
            ["git", "-C", str(tmp_path), *identity, *arguments], check=True, capture_output=True
        )

    package = tmp_path / "src" / "ftfl" / "store"
    package.mkdir(parents=True)
    (package / "provenance.py").write_text("")
    monkeypatch.setattr(provenance, "__file__", str(package / "provenance.py"))
    git("init")
    (tmp_path / "README.md").write_text("")
    git("add", "README.md")
    git("commit", "-m", "untracked package")
    assert provenance.collect([])["git"] is None
    git("add", ".")
    git("commit", "-m", "tracked package")
    clean = provenance.collect([])["git"]
    assert len(clean["commit"]) == 40
    assert clean["dirty"] is False
    (package / "provenance.py").write_text("changed")
    assert provenance.collect([])["git"] == {"commit": clean["commit"], "dirty": True}


def test_collecting_imports_nothing_heavy():
    code = (
        "import sys; from ftfl.store.provenance import collect; collect(['x'])\n"
        "print(sorted({'jax', 'mujoco', 'gymnasium', 'dm_control'} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": ":".join(p for p in sys.path if p)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.strip() == "[]"
