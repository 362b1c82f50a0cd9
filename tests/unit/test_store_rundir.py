"""Run directories: taken or unwritable places refused, status replaced whole, one writer."""

import fcntl
import io
import json
import math
import os
import re
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import numpy as np
import pytest

from ftfl.errors import FtflError
from ftfl.store import lines, provenance
from ftfl.store.files import DiskError
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


def test_history_and_faults_are_lines_that_survive_a_torn_end(tmp_path, caplog):
    run = make(tmp_path / "run")
    assert (run.read_history(), run.read_faults()) == ([], [])
    run.append_history({"event": "started", "seconds": np.float64(0.5), "path": Path("a")})
    run.append_history({"event": "resumed"})
    run.append_fault({"reward": math.nan})
    assert run.read_faults() == [{"reward": None}]
    whole = run.history_path.read_bytes()
    assert whole.count(b"\n") == 2
    run.history_path.write_bytes(whole[:-3])
    assert run.read_history() == [{"event": "started", "seconds": 0.5, "path": "a"}]
    assert "dropped the torn last line 2" in caplog.text
    run.append_history({"event": "resumed again"})
    assert [entry["event"] for entry in run.read_history()] == ["started", "resumed again"]
    run.history_path.write_bytes(b"{\n" + whole)
    with pytest.raises(FtflError, match=r"history\.jsonl is damaged at line 1"):
        run.read_history()
    with pytest.raises(FtflError, match="cannot be stored as JSON"):
        run.append_fault({"env": print})


def test_a_line_of_history_is_forced_to_disk_or_refused_whole(tmp_path, monkeypatch):
    run = make(tmp_path / "run")
    synced = []
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda number: synced.append(os.fstat(number).st_ino))
        run.append_history({"event": "started"})
        run.append_history({"event": "resumed"})
    file, folder = run.history_path.stat().st_ino, run.path.stat().st_ino
    assert synced == [file, folder, file]

    class HalfFull(io.FileIO):
        def write(self, data):
            super().write(bytes(data)[:7])
            raise OSError(28, "No space left on device")

    before = run.history_path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(lines, "open_to_append", lambda path: HalfFull(path, "a"))
        with pytest.raises(DiskError, match=r"cannot write to .*history\.jsonl: No space left on"):
            run.append_history({"event": "resumed"})
    assert run.history_path.read_bytes() == before


def script(text, *arguments, **kwargs):
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(text), *map(str, arguments)],
        env={"PYTHONPATH": ":".join(p for p in sys.path if p)},
        stdout=subprocess.PIPE,
        text=True,
        **kwargs,
    )


HOLD = """
    import sys, time
    from pathlib import Path
    from ftfl.store.rundir import RunDir
    with RunDir(Path(sys.argv[1])).lock():
        print("held", flush=True)
        time.sleep(600)
"""


def test_one_writer_per_run_and_a_dead_one_frees_it(tmp_path):
    run = make(tmp_path / "run")
    run.require_free()
    holder = script(HOLD, run.path)
    try:
        assert holder.stdout.readline() == "held\n"
        owner = rf"process {holder.pid} on \S+ since \d{{4}}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00"
        sentence = rf"run directory {re.escape(str(run.path))} is in use by {owner}: wait until it"
        with pytest.raises(FtflError, match=rf"^{sentence} ends\.$"), run.lock():
            pass
        with pytest.raises(FtflError, match=rf"^{sentence} ends\.$"):
            run.require_free()
    finally:
        holder.kill()
        holder.communicate()
    run.require_free()
    with run.lock():
        assert (run.path / ".lock").read_text().startswith(f"process {os.getpid()} ")
        with pytest.raises(FtflError, match=f"in use by process {os.getpid()} on "), run.lock():
            pass


def test_a_second_process_ends_with_one_sentence(tmp_path):
    run = make(tmp_path / "run")
    with run.lock():
        second = script(HOLD, run.path, stderr=subprocess.PIPE)
        _, errors = second.communicate(timeout=60)
    assert second.returncode == 1
    assert f"is in use by process {os.getpid()} on " in errors.splitlines()[-1]


def test_a_lock_copied_along_with_a_run_locks_nothing_and_its_text_is_harmless(tmp_path):
    run = make(tmp_path / "run")
    (run.path / ".lock").write_text("process 1 on elsewhere\x1b[2J\nsecond line\n" * 99)
    run.require_free()
    descriptor = os.open(run.path / ".lock", os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with pytest.raises(FtflError, match="in use by process 1 on elsewhere") as caught:
            run.require_free()
    finally:
        os.close(descriptor)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


def test_a_full_disk_costs_the_name_of_the_owner_and_not_the_lock(tmp_path):
    run = make(tmp_path / "run")
    text = """
        import resource, signal, sys
        from pathlib import Path
        from ftfl.errors import FtflError
        from ftfl.store.rundir import RunDir
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
        run = RunDir(Path(sys.argv[1]))
        try:
            with run.lock():
                print("held", flush=True)
                run.require_free()
        except FtflError as error:
            print(error)
    """
    held, refusal = script(text, run.path).communicate(timeout=60)[0].splitlines()
    assert held == "held"
    assert refusal.endswith("is in use by another process: wait until it ends.")


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


def test_other_vector_instructions_are_noted_where_both_are_known():
    narrow, wide = ({"instructions": known} for known in ("avx avx2", "avx avx2 avx512f"))
    verdict = provenance.compare(narrow, wide)
    assert verdict.notes == ("instructions avx avx2 → avx avx2 avx512f",)
    assert not verdict.refused
    assert provenance.compare({}, wide) == provenance.compare(wide, wide)
    assert provenance._instructions({"flags": "fpu avx fma avx2 avx512cd"}) == "avx avx2 fma"
    assert provenance._instructions({"Features": "fp asimd sve"}) == "asimd sve"
    assert provenance._instructions({}) is None


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
