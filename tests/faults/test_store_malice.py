"""A checkpoint made to deceive is refused in one sentence; nothing outside it is touched."""

import hashlib
import json
import os
import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

import growing
from ftfl.errors import FtflError
from ftfl.store import manifest
from ftfl.store.checkpoint import CheckpointStore, latest_valid, load_checkpoint
from ftfl.store.manifest import _content_hash
from ftfl.store.rundir import RunDir

AGENT = {"actor.w": np.arange(6, dtype=np.float32).reshape(2, 3), "step": np.int32(7)}


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda _: None)


def save(root: Path) -> Path:
    meta = {"generator": {"state": 2**127 + 1}, "schedule": [1, 2.5, None], "name": "é"}
    tables = {"real": growing.table(9, 4)}
    store = CheckpointStore(root)
    store.save(49_000, {}, {}, {"real": growing.table(6, 6)})
    path = store.save(50_000, {"agent": AGENT, "replay": {}}, meta, tables)
    store.prune(1)
    return path


def forge(path: Path, change) -> None:
    """Rewrite the manifest as an attacker would: with a correct hash of its own."""
    file = path / "manifest.json"
    content = json.loads(file.read_text())
    change(content)
    content["sha256"] = _content_hash(content)
    file.write_text(json.dumps(content))


@pytest.mark.parametrize(
    "name",
    ["../agent.safetensors", "/etc/x.safetensors", "a/b.safetensors", "agent.npz", ".safetensors",
     "agent.safetensors\n", "Agent.safetensors", "..safetensors", "a\0.safetensors"],
)  # fmt: skip
def test_lying_manifest_cannot_name_other_files(tmp_path, name):
    path = save(tmp_path / "run")
    shutil.copy(path / "agent.safetensors", tmp_path / "run" / "agent.safetensors")

    def change(content):
        content["files"][name] = content["files"].pop("agent.safetensors")

    forge(path, change)
    with pytest.raises(FtflError, match="refused: it names"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shape": [3, 2]}, r"array 'actor\.w' is F32 of shape \(2, 3\)"),
        ({"dtype": "int32"}, r"array 'actor\.w' is F32"),
        ({"shape": [10**12, 10**12]}, "claim"),
        ({"shape": [10**6] * 33}, "no valid dtype and shape"),
        ({"shape": [-1, -6]}, "no valid dtype and shape"),
        ({"shape": [2.0, 3]}, "no valid dtype and shape"),
        ({"shape": None}, "no valid dtype and shape"),
        ({"dtype": "object"}, "no valid dtype and shape"),
        ({"dtype": ["float32"]}, "no valid dtype and shape"),
        ({"dtype": "O"}, "no valid dtype and shape"),
        ({"dtype": "<f4,O"}, "no valid dtype and shape"),
        ({"shape": [2**63]}, "no valid dtype and shape"),
        ({"shape": [2**62, 0]}, r"array 'actor\.w' is F32 of shape \(2, 3\)"),
    ],
)
def test_lying_manifest_about_an_array(tmp_path, change, message, monkeypatch):
    path = save(tmp_path)
    monkeypatch.setattr(np, "empty", pytest.fail)  # refused before anything is allocated
    forge(path, lambda c: c["files"]["agent.safetensors"]["arrays"]["actor.w"].update(change))
    with pytest.raises(FtflError, match=message) as caught:
        load_checkpoint(path)
    assert "agent.safetensors" in str(caught.value)


def test_array_missing_from_or_added_to_the_manifest(tmp_path):
    path = save(tmp_path)
    forge(path, lambda c: c["files"]["agent.safetensors"]["arrays"].pop("step"))
    with pytest.raises(FtflError, match="array 'step' is not in the manifest"):
        load_checkpoint(path)


def test_a_file_that_is_no_safetensors_but_hashes_right(tmp_path):
    path = save(tmp_path)
    data = b"\xff" * (path / "agent.safetensors").stat().st_size
    (path / "agent.safetensors").write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    forge(path, lambda c: c["files"]["agent.safetensors"].update(sha256=digest))
    with pytest.raises(FtflError, match="not a safetensors file"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "not valid JSON"),
        ("[]", "does not hold a JSON object"),
        ("{}", "format_version"),
        ('{"format_version": 99}', "format version 99"),
        ('{"format_version": 0}', "format version 0 and this ftfl reads 1 to 2"),
        ('{"format_version": 3}', "use the ftfl version that wrote it"),
        ('{"format_version": 2.0}', "format_version"),
        ('{"format_version": true}', "format_version"),
        ('{"format_version": 1}', "its own SHA-256"),
        ('{"format_version": 2, "meta": ' + "[" * 900 + "]" * 900 + "}", "damaged"),
        ('{"format_version": ' + "9" * 5_000 + "}", "not valid JSON"),
        ("\ud800".encode("utf-8", "surrogatepass"), "not valid JSON"),
    ],
)
def test_nonsense_manifests(tmp_path, text, message):
    path = save(tmp_path)
    data = text if isinstance(text, bytes) else text.encode()
    (path / "manifest.json").write_bytes(data)
    with pytest.raises(FtflError, match=message):
        load_checkpoint(path)


@pytest.mark.parametrize(
    "change",
    [{"step": -1}, {"step": 1.0}, {"step": True}, {"meta": []}, {"files": []},
     {"files": {"agent.safetensors": []}}, {"files": {"agent.safetensors": {"bytes": 3}}},
     {"tables": []}, {"tables": {"real": []}}, {"tables": {"real": {"total": 3}}}],
)  # fmt: skip
def test_manifest_of_the_wrong_form_is_an_error_of_ours(tmp_path, change):
    path = save(tmp_path)
    forge(path, lambda content: content.update(change))
    with pytest.raises(FtflError, match=r"manifest\.json is damaged"):
        load_checkpoint(path)


def test_renamed_directory_is_not_another_step(tmp_path):
    path = save(tmp_path).rename(tmp_path / "step_000060000")
    with pytest.raises(FtflError, match="its manifest says step 50000"):
        load_checkpoint(path)


# tables ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["../real", "/etc/real", "a/b", "", "Real", "a\0b", "real\n", "."])
def test_a_table_cannot_name_files_elsewhere(tmp_path, name):
    path = save(tmp_path)
    forge(path, lambda c: c["tables"].update({name: c["tables"].pop("real")}))
    with pytest.raises(FtflError, match="cannot be the name of a table"):
        load_checkpoint(path)


def segment(index, **changes):
    return lambda table: table["segments"][index].update(changes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (segment(1, start=5), "says rows 5 to 9 where row 6 is next"),
        (segment(1, start=7), "says rows 7 to 9 where row 6 is next"),
        (segment(1, stop=6), "says rows 6 to 6 where"),
        (segment(1, stop=5), "says rows 6 to 5 where"),
        (segment(1, stop=8), "end at row 8 of 9"),
        (segment(1, stop=10), "end at row 10 of 9"),
        (segment(1, stop=10**9), "claim 20999999874 bytes, the file"),
        (segment(0, start=-1), "entry of table real is incomplete"),
        (segment(0, start=1.0), "entry of table real is incomplete"),
        (segment(0, sha256="../../../../etc/passwd"), "entry of table real is incomplete"),
        (segment(0, bytes=2**63), "entry of table real is incomplete"),
        (lambda t: t.update(total=8), "end at row 9 of 8"),
        (lambda t: t.update(kept=10), "keeps 10 of 9 rows, which its segments do not hold"),
        (lambda t: t.update(kept=0), "keeps 0 of 9 rows, which its segments do not hold"),
        (lambda t: t.update(kept=2), "keeps 2 of 9 rows, which its segments do not hold"),
        (lambda t: t.update(kept=-1), "entry of table real is incomplete"),
        (lambda t: t.update(total=0, kept=0), "end at row 9 of 0"),
        (lambda t: t["segments"].pop(0), "keeps 4 of 9 rows, which its segments do not hold"),
        (lambda t: t["segments"].reverse(), "which its segments do not hold"),
        (lambda t: t.update(segments=[]), "keeps 4 of 9 rows, which its segments do not hold"),
        (lambda t: t.update(segments=[3]), "entry of table real is incomplete"),
        (lambda t: t["arrays"].pop("obs"), "array 'obs' is not in the manifest"),
        (lambda t: t["arrays"].update(extra={"dtype": "int8", "shape": []}), "'extra' is missing"),
        (lambda t: t["arrays"]["obs"].update(shape=[2]), r"'obs' is F32 of shape \(6, 3\)"),
        (lambda t: t["arrays"]["obs"].update(dtype="int32"), "'obs' is F32"),
        (lambda t: t["arrays"]["obs"].update(dtype="object"), "array 'obs' of table real has no"),
        (lambda t: t["arrays"]["obs"].update(shape=[2**62, 0]), r"'obs' is F32|fit into memory"),
        # 1.5 TiB of rows.
        (lambda t: t["arrays"]["obs"].update(shape=[3 * 2**37]), "claim"),
    ],
)
def test_a_table_that_lies_about_its_rows(tmp_path, change, message):
    path = save(tmp_path)
    forge(path, lambda content: change(content["tables"]["real"]))
    tracemalloc.start()
    try:
        with pytest.raises(FtflError, match=message):
            load_checkpoint(path)
        assert tracemalloc.get_traced_memory()[1] < 10 << 20
    finally:
        tracemalloc.stop()


def test_a_lie_about_sizes_on_all_levels_is_caught_by_the_disk(tmp_path, monkeypatch):
    path = save(tmp_path)

    def change(content):
        content["files"]["agent.safetensors"].update(bytes=3 * 2**39)
        content["files"]["agent.safetensors"]["arrays"]["actor.w"].update(shape=[3 * 2**37 - 8])

    forge(path, change)
    monkeypatch.setattr(np, "empty", pytest.fail)
    with pytest.raises(
        FtflError, match=r"agent\.safetensors is damaged: it has \d+ bytes, not 1649"
    ):
        load_checkpoint(path)


def replace_content(path: Path, data: bytes) -> None:
    """Another content for the component agent, that the manifest vouches for."""
    (path / "agent.safetensors").write_bytes(data)
    proof = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    forge(path, lambda content: content["files"]["agent.safetensors"].update(proof))


def lying(header, data=b"\0" * 28, length=None):
    text = json.dumps(header).encode() if not isinstance(header, bytes) else header
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


GOOD = {
    "actor.w": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
    "step": {"dtype": "I32", "shape": [], "data_offsets": [24, 28]},
}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (lying({**GOOD, "step": {**GOOD["step"], "data_offsets": [24, 2**40]}}), "not a safetens"),
        (lying({**GOOD, "step": {**GOOD["step"], "data_offsets": [20, 24]}}), "not a safetensors"),
        (lying({**GOOD, "step": {**GOOD["step"], "data_offsets": [28, 24]}}), "not a safetensors"),
        (lying({**GOOD, "actor.w": {**GOOD["actor.w"], "shape": [2**40]}}), "not a safetensors"),
        (lying({**GOOD, "actor.w": {**GOOD["actor.w"], "shape": [3, 2]}}), "but the manifest says"),
        (lying({**GOOD, "actor.w": {**GOOD["actor.w"], "dtype": "I32"}}), "but the manifest says"),
        (lying({**GOOD, "actor.w": {**GOOD["actor.w"], "dtype": "O"}}), "not a safetensors"),
        (lying({"other": GOOD["actor.w"], "step": GOOD["step"]}), "'actor.w' is missing"),
        (lying(GOOD, length=2**63), "not a safetensors"),
        (lying(GOOD, length=10**9), "not a safetensors"),
        (lying(b"[" * 100_000), "not a safetensors"),
        (lying(b""), "not a safetensors"),
        (b"\x80\x04\x95" + b"cos\nsystem\n(S'touch /x'\ntR." * 9, "not a safetensors"),  # a pickle
        (b"PK\3\4" + bytes(200), "not a safetensors"),  # a zip
    ],
)
def test_a_lying_header_with_the_right_hash(tmp_path, data, message):
    path = save(tmp_path)
    replace_content(path, lying(GOOD))
    assert load_checkpoint(path).components["agent"]["step"] == 0, "the honest one loads"
    # Nor is the promise of its size what stops it.
    data += bytes(max(0, 28 - len(data)))
    replace_content(path, data)
    with pytest.raises(FtflError, match=message):
        load_checkpoint(path)


def test_a_manifest_of_100_mb_is_not_read(tmp_path):
    path = save(tmp_path)
    os.truncate(path / "manifest.json", 100 << 20)
    with pytest.raises(FtflError, match=r"manifest\.json has 104857600 bytes, more than the"):
        load_checkpoint(path)


def test_what_no_reader_would_accept_is_not_written_either(tmp_path, monkeypatch):
    monkeypatch.setattr(manifest, "_MANIFEST_BYTES", 2_000)
    with pytest.raises(FtflError, match="store large things as arrays"):
        CheckpointStore(tmp_path).save(1, {}, {"owed": [True] * 1_000})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["link", "directory", "pipe"])
@pytest.mark.parametrize("what", ["manifest.json", "agent.safetensors", "segment"])
def test_only_plain_files_are_read(tmp_path, kind, what):
    path = save(tmp_path / "run")
    file = next((tmp_path / "run/segments").iterdir()) if what == "segment" else path / what
    outside = tmp_path / "outside"
    shutil.move(file, outside)
    if kind == "link":
        file.symlink_to(outside)
    if kind == "directory":
        file.mkdir()
    if kind == "pipe":
        os.mkfifo(file)  # one that nobody ever writes to: opening it must not wait
    with pytest.raises(FtflError, match=f"{file.name} is refused: it is"):
        load_checkpoint(path)


def test_links_lead_no_deletion_and_no_writing_out_of_the_run(tmp_path):
    """Somebody else's checkpoint directory, full of links to what is dear to the user."""
    dear = tmp_path / "dear"
    save(dear)
    (dear / "letter").write_text("dear")
    before = {p: p.read_bytes() for p in sorted(dear.rglob("*")) if p.is_file()}
    root = tmp_path / "run"
    root.mkdir()
    for name in ("step_000050000", "step_000000001", "damaged-step_000000001",
                 ".tmp-step_000060000", ".tmp-del-step_000000001"):  # fmt: skip
        (root / name).symlink_to(dear / "step_000050000")
    with pytest.raises(FtflError, match="step_000050000 is refused: it is a symbolic link"):
        latest_valid(root)
    (root / "segments").symlink_to(dear / "segments")
    with pytest.raises(FtflError, match="segments is refused: it is a symbolic link"):
        CheckpointStore(root).save(60_000, {}, {}, growing.tables(1))
    (root / "segments").unlink()
    store = CheckpointStore(root)
    growing.save(store, 60_000)
    growing.save(store, 60_001)
    (root / "step_000099999").symlink_to(dear / "step_000050000")
    assert set(store.prune(1)) > {root / "step_000050000"}
    # A link is no checkpoint: it neither counts as kept nor hides the newest real one.
    assert {p.name for p in root.iterdir()} == {"step_000060001", "step_000099999", "segments"}
    assert latest_valid(root)[0].step == 60_001
    assert {p: p.read_bytes() for p in sorted(dear.rglob("*")) if p.is_file()} == before


def test_segments_through_a_link_are_not_read(tmp_path):
    path = save(tmp_path)
    shutil.move(tmp_path / "segments", tmp_path / "elsewhere")
    (tmp_path / "segments").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FtflError, match="segments is refused: it is a symbolic link"):
        load_checkpoint(path)
    assert load_checkpoint(path, tables=False).step == 50_000


def test_links_in_a_run_directory_are_not_written_through(tmp_path):
    mine = tmp_path / "mine"
    mine.write_text("half a li")
    run = RunDir.create(tmp_path / "run", {}, {})
    for name in ("metrics.jsonl", "history.jsonl", "faults.jsonl", ".lock", ".tmp-status.json"):
        (run.path / name).symlink_to(mine)
    with pytest.raises(FtflError, match=r"cannot open .*metrics\.jsonl"):
        run.metrics_writer()
    with pytest.raises(FtflError, match=r"cannot write to .*history\.jsonl"):
        run.append_history({"event": "started"})
    with pytest.raises(FtflError, match=r"cannot write to .*faults\.jsonl"):
        run.append_fault({"kind": "raised"})
    with pytest.raises(FtflError, match="cannot lock"), run.lock():
        pass
    run.write_status({"state": "training"})
    assert mine.read_text() == "half a li"
