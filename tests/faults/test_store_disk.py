"""Disks that are full, slow or flaky, and power cuts: one sentence, and nothing lost before."""

import builtins
import contextlib
import errno
import io
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

import growing
from ftfl.errors import FtflError
from ftfl.store import checkpoint, files, segments
from ftfl.store.checkpoint import (
    CheckpointStore,
    latest_valid,
    list_checkpoints,
    load_checkpoint,
)
from ftfl.store.files import DiskError
from ftfl.store.metrics_file import MetricsWriter, read_metrics
from ftfl.store.rundir import RunDir
from ftfl.store.segments import Table
from growing import problems, save

FULL = OSError(errno.ENOSPC, "No space left on device")


class Disk:
    """Watches every operation that changes a disk and may refuse it; installed by ``watch``."""

    def __init__(self, refuse=lambda number, name: False, error=FULL):
        self.refuse, self.error, self.calls = refuse, error, []

    def tick(self, name, path):
        self.calls.append((name, Path(path).name))
        if self.refuse(len(self.calls), name):
            raise self.error


def watch(patch, disk):
    class Writer(io.BufferedWriter):
        def write(self, data):
            disk.tick("write", self.raw.name)
            return super().write(data)

    def open_(path, mode="r", *args, opener=None, **kwargs):
        if mode != "wb":
            return builtins.open(path, mode, *args, opener=opener, **kwargs)
        disk.tick("open", path)
        return Writer(io.FileIO(path, "w", opener=opener))

    def seen(name, function, path_of=lambda path, *_: path):
        def call(*args, **kwargs):
            disk.tick(name, path_of(*args))
            return function(*args, **kwargs)

        patch.setattr(os, name, call)

    seen("fsync", os.fsync, lambda descriptor: os.readlink(f"/proc/self/fd/{descriptor}"))
    seen("replace", os.replace, lambda source, target: target)
    seen("mkdir", os.mkdir)
    patch.setattr(files, "open", open_, raising=False)


def debris(root):
    """Entries that are no checkpoint, and segments that no checkpoint lists."""
    visible = list_checkpoints(root)
    listed = {
        segments.file_name(name, segment)
        for path in visible
        for name, spec in load_checkpoint(path).segments.items()
        for segment in spec.segments
    }
    top = {path.name for path in root.iterdir()} - {path.name for path in visible} - {"segments"}
    return top | ({path.name for path in (root / "segments").iterdir()} - listed)


@pytest.mark.skipif(sys.platform != "linux", reason="names descriptors through /proc")
def test_everything_is_on_disk_before_it_becomes_visible(tmp_path, monkeypatch):
    disk = Disk()
    root = tmp_path / "checkpoints"
    with monkeypatch.context() as patch:
        watch(patch, disk)
        store = CheckpointStore(root)
        save(store, 1)
    calls = [call for call in disk.calls if call[0] != "write"]
    real, synthetic = (
        next((root / "segments").glob(f"{name}_*")).name for name in ("real", "synthetic")
    )

    def hidden(name):
        return f".tmp-{name[:-28]}{'0' * 16}.safetensors"

    assert calls == [
        ("mkdir", "checkpoints"),
        ("mkdir", "segments"),
        ("fsync", "checkpoints"),
        ("open", hidden(real)),
        ("fsync", hidden(real)),
        ("replace", real),
        ("open", hidden(synthetic)),
        ("fsync", hidden(synthetic)),
        ("replace", synthetic),
        ("fsync", "segments"),
        ("mkdir", ".tmp-step_000000001"),
        ("open", "agent.safetensors"),
        ("fsync", "agent.safetensors"),
        ("open", "run.safetensors"),
        ("fsync", "run.safetensors"),
        ("open", "manifest.json"),
        ("fsync", "manifest.json"),
        ("fsync", ".tmp-step_000000001"),
        ("replace", "step_000000001"),
        ("fsync", "checkpoints"),
    ]
    save(store, 2)
    disk.calls.clear()
    with monkeypatch.context() as patch:
        watch(patch, disk)
        patch.setattr(segments, "remove", lambda path: disk.tick("remove", path))
        store.prune(1)
    assert disk.calls[:2] == [("replace", ".tmp-del-step_000000001"), ("fsync", "checkpoints")]
    assert ("remove", synthetic) in disk.calls[2:], "segments go when no power cut brings it back"


@pytest.mark.skipif(sys.platform != "linux", reason="names descriptors through /proc")
@pytest.mark.parametrize("lasting", [False, True])
def test_a_full_disk_at_any_write_costs_that_checkpoint_only(tmp_path, monkeypatch, lasting):
    monkeypatch.setattr(os, "fsync", lambda _: None)
    model = tmp_path / "model"
    save(CheckpointStore(model), 1)
    writes = Disk()
    shutil.copytree(model, tmp_path / "all")
    with monkeypatch.context() as patch:
        watch(patch, writes)
        save(CheckpointStore(tmp_path / "all", latest_valid(model)[0]), 2)
    assert len(writes.calls) > 20
    refused = 0
    for number in range(1, len(writes.calls) + 1):
        root = tmp_path / "checkpoints"
        shutil.copytree(model, root)
        store = CheckpointStore(root, latest_valid(root)[0])
        with monkeypatch.context() as patch:
            # A disk that has gone full still lets names be changed.
            full = Disk(
                lambda n, name, at=number: n == at or (lasting and n > at and name != "replace")
            )
            watch(patch, full)
            said = refusal_to_save(store, 2)
        if said:
            refused += 1
            assert said.startswith("cannot save checkpoint ")
            assert said.endswith("step_000000002: No space left on device.")
            assert [path.name for path in list_checkpoints(root)] == ["step_000000001"]
            assert problems(latest_valid(root)[0]) == []
            assert debris(root) == set()
            save(store, 2)
        save(store, 3)
        assert problems(latest_valid(root)[0]) == [], "with space again, the run is whole again"
        shutil.rmtree(root)
    assert refused >= len(writes.calls) - 1, "all but making a directory that is there"


def refusal_to_save(store, step):
    try:
        save(store, step)
    except DiskError as error:
        return str(error)
    return ""


def test_a_disk_without_room_is_asked_before_anything_is_written(tmp_path, monkeypatch):
    store = CheckpointStore(tmp_path)
    save(store, 1)
    usage = shutil.disk_usage(tmp_path)._replace(free=283)
    disk = Disk()
    with monkeypatch.context() as patch:
        watch(patch, disk)
        patch.setattr(checkpoint.shutil, "disk_usage", lambda _: usage)
        with pytest.raises(DiskError, match=r"it needs 0\.0 MB and 0\.0 MB are free"):
            save(store, 2)  # 32 bytes of components and 12 rows of 21: 284
        assert disk.calls == [("mkdir", tmp_path.name)]
        patch.setattr(checkpoint.shutil, "disk_usage", lambda _: usage._replace(free=284))
        save(store, 2)
    assert problems(latest_valid(tmp_path)[0]) == []


LIMITED = """
    import os, resource, signal, sys
    from pathlib import Path
    import numpy as np
    from ftfl.store.checkpoint import CheckpointStore, latest_valid, list_checkpoints
    from ftfl.store.files import DiskError
    from growing import problems, save, table
    root = Path(sys.argv[1])
    store = CheckpointStore(root)
    save(store, 1)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    for what, tables in (({"x": np.zeros(20_000)}, {}), ({}, {"real": table(5_000, 4_000)})):
        try:
            store.save(2, {"agent": what}, {}, tables)
        except DiskError as error:
            print(error)
        assert sorted(os.listdir(root)) == ["segments", "step_000000001"], os.listdir(root)
        assert len(os.listdir(root / "segments")) == 2, os.listdir(root / "segments")
    assert problems(latest_valid(root)[0]) == []
    save(store, 2)
    assert problems(latest_valid(root)[0]) == []
"""


def run_script(text, *arguments):
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(text), *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_a_limit_on_file_sizes_is_one_sentence(tmp_path):
    lines = run_script(LIMITED, tmp_path).splitlines()
    assert len(lines) == 2
    assert all(line.endswith("step_000000002: File too large.") for line in lines)


@pytest.mark.long
def test_a_file_system_that_is_really_full(tmp_path):
    """4 MB of tmpfs: checkpoints and metrics run full, are told so, and recover."""
    mount = tmp_path / "small"
    mount.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(mount)]
    if not shutil.which("mount") or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting needs root, and a system that allows it")
    try:
        run = RunDir.create(mount / "run", {}, {})
        store = CheckpointStore(run.checkpoints_path)
        with run.lock(), run.metrics_writer() as writer:
            save(store, 1)
            writer.write(1, 0, 0.0, {"agent/critic_loss": 1.0})
            ballast = mount / "ballast"
            with open(ballast, "wb", buffering=0) as file, contextlib.suppress(OSError):
                while file.write(bytes(4096)):
                    pass
            assert shutil.disk_usage(mount).free == 0
            for step in (2, 3):
                with pytest.raises(DiskError, match="cannot save"):
                    store.save(step, {"agent": {"x": np.zeros(99_999)}}, {}, growing.tables(step))
                # In the place where the precheck cannot know: all blocks are taken.
                with pytest.raises(DiskError, match=r"No space left|free"):
                    save(store, step)
                writer.write(step, 0, 0.0, {"agent/critic_loss": float(step)})
                run.write_status({"state": "training"})
                with pytest.raises(DiskError, match="No space left on device"):
                    run.append_fault({"step": step, "what": "x" * 9_000})
                assert debris(run.checkpoints_path) == set()
            ballast.unlink()
            writer.write(4, 0, 0.0, {"agent/critic_loss": 4.0})
            assert writer.pending == 0
            save(store, 4)
        assert problems(latest_valid(run.checkpoints_path)[0]) == []
        assert [r["env_steps"] for r in read_metrics(run.metrics_path)] == [1, 2, 3, 4]
        run.append_fault({"step": 4})
        assert run.read_faults() == [{"step": 4}]
    finally:
        subprocess.run(["umount", str(mount)], check=True)


# cost --------------------------------------------------------------------------------------------


def quadruped(total):
    """Rows of 78 observations and 12 actions, made when they are read."""

    def read(start, stop):
        rows = stop - start
        wide = np.full((rows, 78), start, np.float32)
        action = np.zeros((rows, 12), np.float32)
        return {"obs": wide, "next_obs": wide, "action": action, "reward": wide[:, 0]}

    return Table(total, total, read)


@pytest.mark.parametrize("stored", [10_000, 100_000])
def test_saving_costs_what_is_new_whatever_is_stored(tmp_path, monkeypatch, stored):
    monkeypatch.setattr(os, "fsync", lambda _: None)
    store = CheckpointStore(tmp_path)
    store.save(1, {}, {}, {"real": quadruped(stored)})
    before = {path.stat().st_ino for path in tmp_path.rglob("*") if path.is_file()}
    log = []
    store.save(2, {}, {}, {"real": growing.reading(quadruped(stored + 1_000), log)})
    found = [path for path in tmp_path.rglob("*") if path.is_file()]
    written = sum(path.stat().st_size for path in found if path.stat().st_ino not in before)
    data = 1_000 * (78 + 78 + 12 + 1) * 4
    assert data < written < data + 10_000
    assert [(a, b) for a, b in log if b > a] == [(stored, stored + 1_000)]


# flaky network file systems ----------------------------------------------------------------------


def flaky(function, times, number):
    left = [times]

    def call(*args, **kwargs):
        if left[0]:
            left[0] -= 1
            raise OSError(number, os.strerror(number))
        return function(*args, **kwargs)

    return call


@pytest.fixture
def naps(monkeypatch):
    slept = []
    monkeypatch.setattr(files.time, "sleep", slept.append)
    return slept


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EINTR])
@pytest.mark.parametrize("name", ["fsync", "replace", "open"])
def test_a_hiccup_of_the_file_system_is_sat_out(tmp_path, monkeypatch, naps, name, number):
    store = CheckpointStore(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(os, name, flaky(getattr(os, name), 2, number))
        path = save(store, 1)
    assert naps == [0.1, 0.1]
    with monkeypatch.context() as patch:
        patch.setattr(os, name, flaky(getattr(os, name), 2, number))
        assert problems(load_checkpoint(path)) == []


def test_patience_ends(tmp_path, monkeypatch, naps):
    store = CheckpointStore(tmp_path)
    save(store, 1)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", flaky(os.fsync, 3, errno.EIO))
        with pytest.raises(DiskError, match="Input/output error"):
            save(store, 2)
    assert naps == [0.1, 0.1]
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step_000000001"]
    assert debris(tmp_path) == set()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES])
def test_an_answer_is_not_asked_for_again(tmp_path, monkeypatch, naps, number):
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", flaky(os.replace, 1, number))
        with pytest.raises(DiskError, match=os.strerror(number)):
            save(CheckpointStore(tmp_path), 1)
    assert naps == []


def test_after_a_failed_fsync_the_whole_file_is_written_again(tmp_path, monkeypatch, naps):
    """The kernel may have dropped the pages; a second fsync alone would call that a success."""
    written = []
    monkeypatch.setattr(os, "fsync", flaky(os.fsync, 1, errno.EIO))
    files.write_file(tmp_path / "x", lambda file: written.append(file.write(b"all")))
    assert written == [3, 3]
    assert (tmp_path / "x").read_bytes() == b"all"


def test_a_rename_whose_answer_got_lost_is_a_rename(tmp_path, monkeypatch, naps):
    rename = os.replace

    def deaf(source, target):
        rename(source, target)
        raise OSError(errno.ESTALE, "Stale file handle")

    for name in "ab":
        (tmp_path / name).write_text(name)
    with monkeypatch.context() as patch:
        calls = iter([deaf, rename])
        patch.setattr(os, "replace", lambda *paths: next(calls)(*paths))
        files.rename(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_text() == "a"
    with pytest.raises(FileNotFoundError):
        files.rename(tmp_path / "a", tmp_path / "b")


def test_metrics_survive_a_server_that_forgets_its_open_files(tmp_path, monkeypatch):
    path = tmp_path / "metrics.jsonl"
    with MetricsWriter(path) as writer:
        writer.write(1, 0, 0.0, {})
        stale = writer._file
        monkeypatch.setattr(writer, "_file", Stale(stale))
        writer.write(2, 0, 0.0, {})
        assert writer.pending == 1
        assert "Stale file handle; 1 lines wait in memory" in writer.problem
        writer.write(3, 0, 0.0, {})
        assert (writer.pending, writer.problem) == (0, "")
    assert [r["env_steps"] for r in read_metrics(path)] == [1, 2, 3]


class Stale:
    """An open file whose server was started anew."""

    def __init__(self, file):
        self.file, self.closed = file, False

    def fileno(self):
        raise OSError(errno.ESTALE, "Stale file handle")

    def close(self):
        self.file.close()


def test_an_error_of_the_disk_can_be_told_from_a_mistake(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DiskError, match="Not a directory"):
        save(CheckpointStore(tmp_path / "file" / "checkpoints"), 1)
    with pytest.raises(FtflError) as mistake:
        CheckpointStore(tmp_path).save(-1, {}, {})
    assert not isinstance(mistake.value, DiskError)
