"""Damage anywhere is noticed and named, and the checkpoint before is used; every format loads."""

import os
import re
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from ftfl.errors import FtflError
from ftfl.store.checkpoint import (
    CheckpointStore,
    latest_valid,
    list_checkpoints,
    load_checkpoint,
    set_aside_after,
)
from growing import problems, save

GOLDEN = Path(__file__).with_name("golden")


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture
def run(tmp_path):
    """Two checkpoints; the newer has two tables of two and one segments, one of them its own."""
    store = CheckpointStore(tmp_path / "checkpoints")
    save(store, 2)
    save(store, 3)
    return tmp_path / "checkpoints"


def files_of(root: Path) -> list[Path]:
    """Every file that the newest checkpoint is made of and the older is not."""
    own = ("*-000000000021_*", "*-000000000015_*")
    segments = [path for pattern in own for path in (root / "segments").glob(pattern)]
    return [*sorted((root / "step_000000003").iterdir()), *segments]


def harm(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    with pytest.raises(FtflError, match=re.escape(path.name)) as caught:
        load_checkpoint(path.parents[1] / "step_000000003")
    assert "\n" not in str(caught.value)


def test_every_flipped_byte_of_every_file_is_noticed_and_named(run):
    files = files_of(run)
    assert len(files) == 5, files
    for file in files:
        good = file.read_bytes()
        for index in range(len(good)):
            bit = 1 << index % 8
            harm(file, good[:index] + bytes([good[index] ^ bit]) + good[index + 1 :])
        file.write_bytes(good)
    assert problems(load_checkpoint(run / "step_000000003")) == []


def test_a_file_cut_anywhere_lengthened_or_gone_is_named_and_the_one_before_is_used(run):
    for file in files_of(run):
        good = file.read_bytes()
        for length in sorted({*range(0, len(good), max(1, len(good) // 12)), len(good) - 2}):
            harm(file, good[:length])
        harm(file, good + b"\0")
        harm(file, bytes(len(good)))
        file.unlink()
        found, damage = latest_valid(run)
        assert found.step == 2
        assert problems(found) == []
        assert len(damage) == 1
        assert file.name in damage[0]
        file.write_bytes(good)
    assert latest_valid(run)[1] == []


def test_a_run_goes_on_after_damage_as_if_the_damaged_checkpoint_had_never_been(run):
    damaged = next((run / "segments").glob("real_*-000000000021_*"))
    damaged.write_bytes(bytes(damaged.stat().st_size))
    found, damage = latest_valid(run)
    assert len(damage) == 1
    moved = set_aside_after(run, found.step)
    assert [path.name for path in moved] == ["damaged-step_000000003"]
    store = CheckpointStore(run, found)
    save(store, 3)
    save(store, 4)
    store.prune(2)
    assert [problems(load_checkpoint(path)) for path in list_checkpoints(run)] == [[], []]
    assert {path.name for path in run.iterdir()} == {
        "segments",
        "step_000000003",
        "step_000000004",
    }


@pytest.mark.parametrize("offset", [0, -3_600, 10 * 365 * 86_400])
@pytest.mark.parametrize("constant", [True, False])
def test_clocks_do_not_matter(tmp_path, monkeypatch, offset, constant):
    store, start = CheckpointStore(tmp_path), time.time()
    for step in range(1, 5):
        clock = start + (offset if step > 2 else 0)
        monkeypatch.setattr(time, "time", lambda c=clock: c if constant else c + time.monotonic())
        path = save(store, step)
        os.utime(path, (start - 100 * step, start - 100 * step))  # the newest looks oldest
    assert latest_valid(tmp_path)[0].step == 4
    assert [path.name for path in store.prune(2)] == ["step_000000001", "step_000000002"]
    assert [problems(load_checkpoint(path)) for path in list_checkpoints(tmp_path)] == [[], []]


def test_foreign_files_are_ignored_and_stay(run):
    first, second = list_checkpoints(run)
    big = save(CheckpointStore(run), 12_345_678_901)
    names = ("step_3", "step_000000003.bak", "step_0000000030", ".tmp-step_9", "latest", "step_",
             "step_٠٠٠٠٠٠٠٠٩", "step_000000004\n", "step_000000003 (copy)", "lost+found",
             )  # fmt: skip
    for name in names:
        (run / name).mkdir()
    litter = [
        folder / name
        for folder in (run, run / "segments", first)
        for name in (".DS_Store", "agent.safetensors~", ".nfs000000001", "#manifest.json#", "x")
    ]
    for path in litter:
        path.write_text("foreign")
    (run / "step_000000007").write_text("a file")
    assert list_checkpoints(run) == [first, second, big]
    assert [problems(load_checkpoint(path)) for path in (first, second)] == [[], []]
    store = CheckpointStore(run, load_checkpoint(second))
    assert store.prune(1) == [first, second]
    save(store, 12_345_678_902)
    assert all((run / name).is_dir() for name in names)
    assert [path for path in litter if not path.exists()] == [
        p for p in litter if p.parent == first
    ]


# formats -----------------------------------------------------------------------------------------


def test_a_checkpoint_of_format_version_1_loads(tmp_path):
    found = load_checkpoint(GOLDEN / "v1" / "step_000000010")
    assert (found.step, found.tables, found.segments) == (10, {}, {})
    assert found.meta["rewards"] == [10, -0.5, 2.25]
    real = found.components["real"]
    assert real["rows/obs"].tolist() == [[n, 10 * n, 100 * n] for n in range(6)]
    assert (real["cursor"], real["rows/terminated"].tolist()) == (6, [False] * 5 + [True])
    assert found.components["run"]["key"].dtype == np.uint32
    assert found.components["episode"]["actions"].shape == (0, 1)


def test_a_run_of_format_version_1_goes_on_in_version_2(tmp_path):
    shutil.copytree(GOLDEN / "v1", tmp_path / "checkpoints")
    base, _ = latest_valid(tmp_path / "checkpoints")
    store = CheckpointStore(tmp_path / "checkpoints", base)
    save(store, 11)
    assert problems(latest_valid(tmp_path / "checkpoints")[0]) == []
    assert store.prune(1) == [tmp_path / "checkpoints" / "step_000000010"]


def test_damage_to_a_checkpoint_of_format_version_1_is_noticed(tmp_path):
    shutil.copytree(GOLDEN / "v1", tmp_path / "checkpoints")
    manifest = tmp_path / "checkpoints" / "step_000000010" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"updates"', '"updated"'))
    with pytest.raises(FtflError, match="its own SHA-256"):
        load_checkpoint(manifest.parent)


def test_a_checkpoint_of_format_version_2_loads(tmp_path):
    found, damage = latest_valid(GOLDEN / "v2")
    assert damage == []
    assert found.step == 3
    assert problems(found) == []
    shutil.copytree(GOLDEN / "v2", tmp_path / "checkpoints")
    store = CheckpointStore(tmp_path / "checkpoints", latest_valid(tmp_path / "checkpoints")[0])
    assert problems(load_checkpoint(save(store, 4))) == []
