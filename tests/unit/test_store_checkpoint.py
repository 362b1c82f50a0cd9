"""Checkpoints: exact round trips, every damage noticed and named, no half one ever visible."""

import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ftfl.errors import FtflError
from ftfl.store import checkpoint as module
from ftfl.store import files
from ftfl.store.checkpoint import (
    CheckpointStore,
    latest_valid,
    list_checkpoints,
    load_checkpoint,
    set_aside_after,
)
from ftfl.store.specs import DTYPES

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
    with tempfile.TemporaryDirectory() as root, pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)  # for speed
        loaded = load_checkpoint(CheckpointStore(Path(root)).save(step, components, {}))
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
        CheckpointStore(tmp_path).save(50_000, {}, {})
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
        CheckpointStore(tmp_path).save(1, components, meta)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("step", [-1, 1.0, True, 10**18])
def test_impossible_steps_are_refused(tmp_path, step):
    with pytest.raises(FtflError, match="cannot name a checkpoint"):
        CheckpointStore(tmp_path).save(step, {}, {})


def test_unwritable_place_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FtflError, match=r"cannot save checkpoint .*Not a directory"):
        CheckpointStore(tmp_path / "file" / "checkpoints").save(1, {}, {})


def names(root):
    return sorted(path.name for path in root.iterdir())


def test_prune_keeps_the_newest_and_hides_before_deleting(tmp_path, monkeypatch):
    for step in (1, 2, 3, 4):
        save(tmp_path, step)
    visible_at_delete = []

    def spy(path):
        if path.exists():
            visible_at_delete.append([p.name for p in list_checkpoints(tmp_path)])
        files.remove(path)

    monkeypatch.setattr(module, "remove", spy)
    store = CheckpointStore(tmp_path)
    kept = ["step_000000003", "step_000000004"]
    assert [p.name for p in store.prune(2)] == ["step_000000001", "step_000000002"]
    assert visible_at_delete == [kept, kept]
    assert names(tmp_path) == kept
    assert store.prune(2) == []
    with pytest.raises(FtflError, match="keep at least 1"):
        store.prune(0)


def test_prune_orders_by_number_not_by_name(tmp_path):
    store = CheckpointStore(tmp_path)
    big, small = save(tmp_path, 12_345_678_901), save(tmp_path, 999_999_999)
    assert store.prune(1) == [small]
    assert list_checkpoints(tmp_path) == [big]


def test_what_cannot_be_whole_does_not_count_as_kept(tmp_path):
    paths = [save(tmp_path, step) for step in (1, 2, 3, 4, 5)]
    (paths[4] / "manifest.json").write_text("")
    (paths[3] / "replay.safetensors").unlink()
    (paths[2] / "agent.safetensors").write_bytes(b"x")
    assert CheckpointStore(tmp_path).prune(1) == [paths[0]]
    assert latest_valid(tmp_path)[0].step == 2
    for path in paths[2:]:
        shutil.rmtree(path)
    (paths[1] / "manifest.json").unlink()
    assert CheckpointStore(tmp_path).prune(1) == [], "the last one is left even so"


def test_set_aside_after_hides_what_is_newer_so_that_it_can_be_saved_again(tmp_path):
    paths = [save(tmp_path, step) for step in (1, 2, 3)]
    (tmp_path / "damaged-step_000000003").mkdir()
    (tmp_path / "damaged-step_000000003" / "old").write_text("from an earlier time")
    (tmp_path / "damaged-by-me").mkdir()
    moved = set_aside_after(tmp_path, 1)
    assert moved == [tmp_path / "damaged-step_000000003", tmp_path / "damaged-step_000000002"]
    assert load_checkpoint(moved[0]).step == 3
    assert list_checkpoints(tmp_path) == paths[:1]
    assert set_aside_after(tmp_path, 1) == []
    assert save(tmp_path, 2) == paths[1]
    CheckpointStore(tmp_path).prune(2)
    assert names(tmp_path) == ["damaged-by-me", "step_000000001", "step_000000002"]


def test_orphans_of_a_killed_writer_are_swept_and_foreign_files_stay(tmp_path):
    orphans = (".tmp-step_000000002", ".tmp-del-step_000000001", ".tmp-del-damaged-step_000000001")
    for name in (*orphans, ".tmp-mine", ".tmp-step_2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x").write_text("")
    (tmp_path / "segments").mkdir()
    orphan = tmp_path / "segments" / f".tmp-real_{0:012d}-{7:012d}_{0:016d}.safetensors"
    orphan.write_text("")
    (tmp_path / "segments" / ".tmp-mine").write_text("")
    CheckpointStore(tmp_path)
    assert names(tmp_path) == [".tmp-mine", ".tmp-step_2", "segments"]
    assert names(tmp_path / "segments") == [".tmp-mine"]
