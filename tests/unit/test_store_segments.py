"""Append-only tables: exact rows back, only new rows written, nothing doubted or overwritten."""

import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ftfl.errors import FtflError
from ftfl.store import segments
from ftfl.store.checkpoint import (
    CheckpointStore,
    latest_valid,
    load_checkpoint,
)
from ftfl.store.segments import Table
from growing import is_true, problems, reading, rows, save, table


def names(root):
    return sorted(path.name.rpartition("_")[0] for path in (root / "segments").iterdir())


def rows_of(root):
    return [name.partition("_")[2].replace("0" * 9, "") for name in names(root)]


def test_a_save_writes_the_new_rows_only_and_a_load_gives_the_newest_back(tmp_path):
    store, log = CheckpointStore(tmp_path), []
    for step, total in enumerate((0, 10, 10, 25, 31), start=1):
        path = store.save(step, {}, {}, {"real": reading(table(total, min(total, 20)), log)})
        loaded = load_checkpoint(path)
        assert is_true(loaded.tables["real"], total, min(total, 20))
    assert [r for r in log if r[0] < r[1]] == [(0, 10), (10, 25), (25, 31)]
    assert rows_of(tmp_path) == ["000-010", "010-025", "025-031"]
    assert [s.start for s in loaded.segments["real"].segments] == [10, 25], "0-10 is all too old"


def test_rows_overwritten_between_two_saves_are_never_asked_for(tmp_path):
    store = CheckpointStore(tmp_path)
    store.save(1, {}, {}, {"real": table(10, 5)})
    path = store.save(2, {}, {}, {"real": table(100, 5)})
    assert is_true(load_checkpoint(path).tables["real"], 100, 5)
    assert rows_of(tmp_path) == ["005-010", "095-100"]


def test_a_window_that_widens_again_is_filled_from_the_owner(tmp_path):
    store = CheckpointStore(tmp_path)
    store.save(1, {}, {}, {"real": table(10, 3)})
    path = store.save(2, {}, {}, {"real": table(12, 9)})
    assert rows_of(tmp_path) == ["003-007", "007-010", "010-012"]
    assert is_true(load_checkpoint(path).tables["real"], 12, 9)


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 30), st.booleans()), max_size=8),
    st.integers(1, 400),
)
@settings(max_examples=40, deadline=None)
def test_any_history_of_saves_and_resumes_gives_the_true_rows(tmp_path_factory, history, most):
    root = tmp_path_factory.mktemp("any")
    store, total = CheckpointStore(root), 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segments, "_SEGMENT_BYTES", most)
        patch.setattr(os, "fsync", lambda _: None)  # for speed
        for step, (new, kept, resumed) in enumerate(history):
            total, kept = total + new, min(kept, total + new)
            store.save(step, {}, {}, {"real": table(total, kept)})
            store.prune(2)
            found, damage = latest_valid(root)
            assert damage == []
            assert is_true(found.tables["real"], total, kept)
            if resumed:
                store = CheckpointStore(root, found)


def test_a_large_gap_becomes_several_segments(tmp_path, monkeypatch):
    monkeypatch.setattr(segments, "_SEGMENT_BYTES", 10 * 21)  # a row of these tables has 21 bytes
    path = CheckpointStore(tmp_path).save(1, {}, {}, {"real": table(25, 25)})
    assert rows_of(tmp_path) == ["000-010", "010-020", "020-025"]
    assert is_true(load_checkpoint(path).tables["real"], 25, 25)


def test_without_tables_no_row_is_read_and_the_store_can_still_go_on(tmp_path):
    path = save(CheckpointStore(tmp_path), 1)
    for segment in (tmp_path / "segments").iterdir():
        segment.write_bytes(bytes(segment.stat().st_size))
    found = load_checkpoint(path, tables=False)
    assert found.tables == {}
    assert found.components["run"]["step"] == 1
    assert latest_valid(tmp_path, tables=False)[0].step == 1
    assert {name: spec.total for name, spec in found.segments.items()} == {
        "real": 7,
        "synthetic": 5,
    }
    with pytest.raises(FtflError, match=r"real_0+-0+7_\w+\.safetensors is damaged"):
        load_checkpoint(path)


def test_a_resumed_store_continues_the_segments_of_its_base(tmp_path):
    store = CheckpointStore(tmp_path)
    save(store, 1)
    found, _ = latest_valid(tmp_path)
    again = CheckpointStore(tmp_path, found)
    assert (CheckpointStore(tmp_path).last_step, again.last_step) == (None, 1)
    before = {p.name: p.stat().st_ino for p in (tmp_path / "segments").iterdir()}
    path = save(again, 2)
    assert again.last_step == 2
    after = {p.name: p.stat().st_ino for p in (tmp_path / "segments").iterdir()}
    assert before.items() < after.items(), "what was there was not written again"
    assert problems(load_checkpoint(path)) == []


def test_a_fork_brings_all_kept_rows_into_its_own_directory(tmp_path):
    store = CheckpointStore(tmp_path / "parent")
    save(store, 1)
    save(store, 2)
    found, _ = latest_valid(tmp_path / "parent")
    path = save(CheckpointStore(tmp_path / "child", found), 3)
    assert problems(load_checkpoint(path)) == []
    assert problems(latest_valid(tmp_path / "parent")[0]) == []


@pytest.mark.parametrize("harm", ["delete", "shorten", "link"])
def test_segments_lost_between_two_saves_are_written_again(tmp_path, harm):
    store = CheckpointStore(tmp_path)
    save(store, 1)
    lost = next((tmp_path / "segments").glob("real_*"))
    content = lost.read_bytes()
    lost.unlink()
    if harm == "shorten":
        lost.write_bytes(content[:-1])
    if harm == "link":
        (tmp_path / "elsewhere").write_bytes(content)
        lost.symlink_to(tmp_path / "elsewhere")
    assert problems(load_checkpoint(save(store, 2))) == []
    assert not lost.is_symlink()
    assert problems(load_checkpoint(tmp_path / "step_000000001")) == [], "it is healed as well"


def test_what_already_has_the_name_of_a_segment_is_not_trusted(tmp_path):
    save(CheckpointStore(tmp_path / "model"), 1)
    (tmp_path / "run" / "segments").mkdir(parents=True)
    for segment in (tmp_path / "model" / "segments").iterdir():
        size = segment.stat().st_size
        (tmp_path / "run" / "segments" / segment.name).write_bytes(bytes(size))
    assert problems(load_checkpoint(save(CheckpointStore(tmp_path / "run"), 1))) == []


def test_other_rows_with_the_same_numbers_never_replace_those_of_another_checkpoint(tmp_path):
    """A run goes on from step 1 while the valid step 2 is still there, and learns other things."""
    store = CheckpointStore(tmp_path)
    save(store, 1)
    base, _ = latest_valid(tmp_path)
    second = save(store, 2)
    other = CheckpointStore(tmp_path, base)
    path = other.save(3, {}, {}, {"real": Table(14, 14, lambda a, b: rows(a, b, 1_000 * (a > 0)))})
    assert problems(load_checkpoint(second)) == []
    found = load_checkpoint(path).tables["real"].rows
    np.testing.assert_array_equal(found["reward"][7:], rows(7, 14, 1_000)["reward"])


def test_prune_deletes_only_segments_that_no_checkpoint_lists(tmp_path):
    store = CheckpointStore(tmp_path)
    for step in range(1, 6):
        save(store, step)
    foreign = tmp_path / "segments" / "notes.txt"
    foreign.write_text("mine")
    (tmp_path / "segments" / ".nfs0000001").write_text("")
    store.prune(2)
    found = [load_checkpoint(tmp_path / f"step_00000000{step}") for step in (4, 5)]
    assert [problems(checkpoint) for checkpoint in found] == [[], []]
    listed = {
        segments.file_name(name, segment)
        for checkpoint in found
        for name, spec in checkpoint.segments.items()
        for segment in spec.segments
    }
    kept = {path.name for path in (tmp_path / "segments").iterdir()}
    assert kept == listed | {"notes.txt", ".nfs0000001"}


def test_segments_wait_while_a_manifest_cannot_say_what_it_lists(tmp_path):
    store = CheckpointStore(tmp_path)
    for step in range(1, 6):
        save(store, step)
    (tmp_path / "step_000000005" / "manifest.json").write_text("{")
    before = set(names(tmp_path))
    store.prune(2)
    assert set(names(tmp_path)) == before
    assert latest_valid(tmp_path)[0].step == 4


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (Table(3, 4, rows), r"table real keeps 4 of 3 rows: give whole numbers"),
        (Table(3, -1, rows), "keeps -1 of 3 rows"),
        (Table(3.0, 3, rows), r"keeps 3 of 3\.0 rows"),
        (Table(4, 4, lambda a, b: rows(a, b + 1)), r"array 'obs' of shape \(1, 3\) for 0 rows"),
        (Table(4, 4, lambda a, b: rows(a, max(a, b - 1))), "for 4 rows"),
        (Table(4, 4, lambda a, b: {"x": np.float32(1)}), r"array 'x' of shape \(\) for 0 rows"),
        (Table(4, 4, lambda a, b: {"x": np.zeros(b - a, object)}), "has dtype object"),
        (Table(4, 4, lambda a, b: {"x": np.zeros(b - a, np.int8 if b > a else np.int16)}),
         "gave other arrays for rows 0 to 4"),
    ],
)  # fmt: skip
def test_a_table_that_breaks_its_promises_is_refused_and_leaves_nothing(tmp_path, given, message):
    with pytest.raises(FtflError, match=message):
        CheckpointStore(tmp_path).save(1, {}, {}, {"real": given})
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_table_must_go_on_from_its_base(tmp_path):
    store = CheckpointStore(tmp_path)
    save(store, 2)
    with pytest.raises(FtflError, match="has 7 rows, fewer than the 14 saved before"):
        save(store, 1)
    other = Table(20, 20, lambda a, b: {"x": np.zeros(b - a)})
    with pytest.raises(FtflError, match="table real has other arrays than before"):
        store.save(3, {}, {}, {"real": other})
    with pytest.raises(FtflError, match=r"'\.\./real' cannot be a checkpoint table"):
        store.save(3, {}, {}, {"../real": other})
    assert problems(latest_valid(tmp_path)[0]) == []
    assert os.listdir(tmp_path / "segments") != []
