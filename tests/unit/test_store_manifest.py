"""A manifest that is damaged or lies is refused before anything it names is used."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from ftfl.errors import FtflError
from ftfl.store.checkpoint import load_checkpoint, save_checkpoint
from ftfl.store.manifest import _content_hash

AGENT = {"actor.w": np.arange(6, dtype=np.float32).reshape(2, 3), "step": np.int32(7)}


def save(root: Path) -> Path:
    meta = {"generator": {"state": 2**127 + 1}, "schedule": [1, 2.5, None], "name": "é"}
    return save_checkpoint(root, 50_000, {"agent": AGENT, "replay": {}}, meta)


def forge(path: Path, change) -> None:
    """Rewrite the manifest as an attacker would: with a correct hash of its own."""
    file = path / "manifest.json"
    content = json.loads(file.read_text())
    change(content)
    content["sha256"] = _content_hash(content)
    file.write_text(json.dumps(content))


def test_every_flipped_byte_of_the_manifest_is_noticed(tmp_path):
    path = save(tmp_path)
    manifest = path / "manifest.json"
    good = manifest.read_bytes()
    for index in range(len(good)):
        manifest.write_bytes(good[:index] + bytes([good[index] ^ 1]) + good[index + 1 :])
        with pytest.raises(FtflError, match=r"manifest\.json"):
            load_checkpoint(path)


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
    ],
)
def test_lying_manifest_about_an_array(tmp_path, change, message):
    path = save(tmp_path)
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
        ('{"format_version": 1}', "its own SHA-256"),
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
     {"files": {"agent.safetensors": []}}, {"files": {"agent.safetensors": {"bytes": 3}}}],
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
