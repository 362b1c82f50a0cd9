"""Checkpoints: exact round trips, every damage noticed and named, no half one ever visible."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import save_file

from ftfl.errors import FtflError
from ftfl.store import checkpoint as module
from ftfl.store.checkpoint import (
    latest_valid,
    list_checkpoints,
    load_checkpoint,
    prune,
    save_checkpoint,
)
from ftfl.store.manifest import DTYPES

COMPONENTS = {
    "agent": {"actor.w": np.arange(6, dtype=np.float32).reshape(2, 3), "step": np.int32(7)},
    "replay": {"obs": np.zeros((0, 4)), "done": np.array([True, False])},
}
META = {"generator": {"state": 2**127 + 1}, "schedule": [1, 2.5, None], "name": "é"}


def save(root: Path, step: int = 50_000) -> Path:
    return CheckpointStore(root).save(step, COMPONENTS, META)


def test_round_trip_is_exact(tmp_path):
    path = save(tmp_path)
    assert path == tmp_path / "step_000050000"
    loaded = load_checkpoint(path)
    assert loaded.step == 50_000
    assert loaded.meta == META
    assert loaded.components.keys() == COMPONENTS.keys()
    for name, arrays in COMPONENTS.items():
        assert loaded.components[name].keys() == arrays.keys()
        for key, array in arrays.items():
            found = loaded.components[name][key]
            assert found.dtype == np.asarray(array).dtype
            np.testing.assert_array_equal(found, array, strict=True)


@st.composite
def arrays(draw):
    dtype = draw(st.sampled_from(sorted(DTYPES)))
    order = draw(st.sampled_from("<>"))
    array = draw(hnp.arrays(np.dtype(dtype).newbyteorder(order), hnp.array_shapes(min_dims=0)))
    if array.ndim and draw(st.booleans()):
        array = array[::-1].T  # strided: raw memory is not the array
    return array


names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20).filter(
    lambda s: s.isprintable() and s != "__metadata__"
)


@given(
    components=st.dictionaries(
        st.from_regex(r"[a-z0-9][a-z0-9_-]{0,8}", fullmatch=True),
        st.dictionaries(names, arrays(), max_size=3),
        max_size=3,
    ),
    step=st.integers(0, 10**12),
)
@settings(max_examples=60, deadline=None)
def test_any_arrays_come_back_bit_for_bit(components, step):
    with tempfile.TemporaryDirectory() as root:
        loaded = load_checkpoint(save_checkpoint(Path(root), step, components, {}))
    assert loaded.step == step
    assert loaded.components.keys() == components.keys()
    for name, content in components.items():
        assert loaded.components[name].keys() == content.keys()
        for key, array in content.items():
            found = loaded.components[name][key]
            assert found.dtype.name == array.dtype.name
            assert found.shape == array.shape
            little = np.asarray(array, array.dtype.newbyteorder("<"), order="C")
            assert found.tobytes() == little.tobytes()  # NaN payloads and −0 included


@pytest.mark.parametrize("name", ["agent", "replay"])
def test_flipped_byte_in_each_region_of_each_file(tmp_path, name):
    path = save(tmp_path)
    file = path / f"{name}.safetensors"
    good = file.read_bytes()
    for index in {0, 7, 8, 20, len(good) // 2, len(good) - 1}:
        file.write_bytes(good[:index] + bytes([good[index] ^ 0x10]) + good[index + 1 :])
        with pytest.raises(FtflError, match=f"{name}.safetensors is damaged.*SHA-256"):
            load_checkpoint(path)
    file.write_bytes(good)
    assert load_checkpoint(path).step == 50_000


@pytest.mark.parametrize("name", ["manifest.json", "agent.safetensors", "replay.safetensors"])
def test_truncated_or_missing_file_is_named(tmp_path, name):
    path = save(tmp_path)
    file = path / name
    good = file.read_bytes()
    for length in (0, 1, 8, len(good) // 2, len(good) - 2):
        file.write_bytes(good[:length])
        with pytest.raises(FtflError, match=re.escape(name)):
            load_checkpoint(path)
    file.unlink()
    with pytest.raises(FtflError, match=re.escape(name)):
        load_checkpoint(path)


def test_foreign_entries_are_ignored(tmp_path):
    second, first = save(tmp_path, 20), save(tmp_path, 3)
    big = save(tmp_path, 12_345_678_901)
    for name in ("step_3", "step_000000003.bak", "step_0000000030", ".tmp-step_000000009",
                 "step_٠٠٠٠٠٠٠٠٩", "step_000000004\n", "latest"):  # fmt: skip
        (tmp_path / name).mkdir()
    (tmp_path / "step_000000007").write_text("a file")
    (tmp_path / ".DS_Store").write_text("")
    (first / ".DS_Store").write_text("foreign")
    (first / "agent.safetensors~").write_text("editor backup")
    assert list_checkpoints(tmp_path) == [first, second, big]
    assert load_checkpoint(first).step == 3


def test_no_checkpoints_yet(tmp_path):
    assert list_checkpoints(tmp_path / "absent") == []
    with pytest.raises(FtflError, match="no checkpoint"):
        latest_valid(tmp_path / "absent")


def test_latest_valid_falls_back_and_says_so(tmp_path):
    paths = [save(tmp_path, step) for step in (1, 2, 3)]
    assert latest_valid(tmp_path)[1] == []
    (paths[2] / "manifest.json").unlink()
    (paths[1] / "replay.safetensors").write_bytes(b"")
    found, damage = latest_valid(tmp_path)
    assert found.step == 1
    assert [("step_000000003" in m, "step_000000002" in m) for m in damage] == [
        (True, False),
        (False, True),
    ]
    (paths[0] / "agent.safetensors").unlink()
    with pytest.raises(FtflError, match=r"none of the 3 checkpoints .*step_000000003"):
        latest_valid(tmp_path)


def test_existing_step_is_never_overwritten(tmp_path):
    path = save(tmp_path)
    before = (path / "manifest.json").read_bytes()
    with pytest.raises(FtflError, match="already exists"):
        save_checkpoint(tmp_path, 50_000, {}, {})
    assert (path / "manifest.json").read_bytes() == before


@pytest.mark.parametrize(
    ("components", "meta", "message"),
    [
        ({"../x": {}}, {}, "cannot be a checkpoint component"),
        ({"Agent": {}}, {}, "cannot be a checkpoint component"),
        ({"a\n": {}}, {}, "cannot be a checkpoint component"),
        ({"a": {"": np.zeros(1)}}, {}, "cannot be an array name"),
        ({"a": {"__metadata__": np.zeros(1)}}, {}, "cannot be an array name"),
        ({"a": {"x": np.array([object()])}}, {}, "array 'x' of a has dtype object"),
        ({"a": {"x": np.array(["text"])}}, {}, "array 'x' of a has dtype"),
        ({"a": {"x": np.zeros(1, complex)}}, {}, "array 'x' of a has dtype complex128"),
        ({}, {"x": float("nan")}, "nan cannot be stored as JSON"),
        ({}, {"x": object()}, "a object cannot be stored as JSON"),
        ({}, {1: 2}, "keys are strings"),
    ],
)
def test_what_cannot_be_saved_is_refused_and_leaves_nothing(tmp_path, components, meta, message):
    with pytest.raises(FtflError, match=message):
        save_checkpoint(tmp_path, 1, components, meta)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("step", [-1, 1.0, True, 10**18])
def test_impossible_steps_are_refused(tmp_path, step):
    with pytest.raises(FtflError, match="cannot name a checkpoint"):
        save_checkpoint(tmp_path, step, {}, {})


def test_unwritable_place_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FtflError, match=r"cannot save checkpoint .*Not a directory"):
        save_checkpoint(tmp_path / "file" / "checkpoints", 1, {}, {})


def test_full_disk_keeps_the_earlier_checkpoint(tmp_path, monkeypatch):
    save(tmp_path, 1)
    usage = shutil.disk_usage(tmp_path)._replace(free=10)
    with monkeypatch.context() as patch:
        patch.setattr(module.shutil, "disk_usage", lambda _: usage)
        with pytest.raises(FtflError, match=r"needs 0\.0 MB and 0\.0 MB are free"):
            save(tmp_path, 2)

    def refuse(arrays, path):
        save_file(arrays, path)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "save_file", refuse)
    with pytest.raises(FtflError, match="step_000000002: No space left on device"):
        save(tmp_path, 2)
    assert [p.name for p in tmp_path.iterdir()] == ["step_000000001"]
    assert latest_valid(tmp_path)[0].step == 1


@pytest.mark.skipif(sys.platform != "linux", reason="names descriptors through /proc")
def test_everything_is_on_disk_before_it_becomes_visible(tmp_path, monkeypatch):
    calls: list[str] = []
    fsync, rename = os.fsync, os.rename

    def name_of(descriptor):
        return Path(os.readlink(f"/proc/self/fd/{descriptor}")).name

    monkeypatch.setattr(os, "fsync", lambda fd: (calls.append(name_of(fd)), fsync(fd)))
    monkeypatch.setattr(os, "rename", lambda a, b: (calls.append("rename"), rename(a, b)))
    save(tmp_path, 5)
    assert calls == [
        "agent.safetensors",
        "replay.safetensors",
        "manifest.json",
        ".tmp-step_000000005",
        "rename",
        tmp_path.name,
    ]


def test_prune_keeps_the_newest_and_hides_before_deleting(tmp_path, monkeypatch):
    for step in (1, 2, 3, 4):
        save(tmp_path, step)
    visible_at_delete = []
    remove = shutil.rmtree

    def spy(path, ignore_errors=False):
        if path.exists():
            visible_at_delete.append([p.name for p in list_checkpoints(tmp_path)])
        remove(path, ignore_errors=ignore_errors)

    monkeypatch.setattr(module.shutil, "rmtree", spy)
    removed = prune(tmp_path, 2)
    kept = ["step_000000003", "step_000000004"]
    assert [p.name for p in removed] == ["step_000000001", "step_000000002"]
    assert visible_at_delete == [kept, kept]
    assert sorted(p.name for p in tmp_path.iterdir()) == kept
    assert prune(tmp_path, 2) == []
    with pytest.raises(FtflError, match="keep at least 1"):
        prune(tmp_path, 0)


def test_orphans_of_a_killed_writer_are_swept_and_foreign_files_stay(tmp_path):
    for name in (".tmp-step_000000002", ".tmp-del-step_000000001", ".tmp-mine"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x").write_text("")
    save(tmp_path, 2)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".tmp-mine", "step_000000002"]


KILLED = """
    import os, shutil, signal, sys
    import numpy as np
    from pathlib import Path
    from ftfl.store import checkpoint
    root, fatal = Path(sys.argv[1]), int(sys.argv[2])
    count = 0
    def deadly(function):
        def wrapped(*args, **kwargs):
            global count
            count += 1
            if count == fatal:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)
        return wrapped
    for module, name in ((os, "fsync"), (os, "rename"), (os, "unlink"), (os, "rmdir"),
                         (checkpoint, "save_file")):
        setattr(module, name, deadly(getattr(module, name)))
    for step in range(1, 4):
        checkpoint.save_checkpoint(root, step, {"agent": {"x": np.full(9, step)}}, {})
        print(step, flush=True)
        checkpoint.prune(root, 1)
"""


# Of three saves and two prunes; every call that changes the disk in a way others can see.
@pytest.mark.parametrize("fatal", range(1, 23))
def test_a_kill_at_any_moment_leaves_only_valid_checkpoints(tmp_path, fatal):
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(KILLED), str(tmp_path), str(fatal)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == -signal.SIGKILL, result.stderr
    finished = [int(line) for line in result.stdout.split()]
    for path in list_checkpoints(tmp_path):
        assert load_checkpoint(path).components["agent"]["x"][0] == load_checkpoint(path).step
    if finished:
        assert latest_valid(tmp_path)[0].step >= finished[-1]
