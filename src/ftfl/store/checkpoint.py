"""Checkpoints: directories ``step_000050000`` that are complete and verified, or not there.

Written under a hidden name, forced to disk, then renamed: a kill or power cut at any moment leaves
the earlier checkpoints untouched and no half of a new one in sight. Ordered by step, never by
clock. Arrays are safetensors and the rest is JSON, so nothing loaded is ever executed.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from ftfl.errors import FtflError
from ftfl.store.files import fsync_directory, plain, why
from ftfl.store.manifest import (
    DTYPES,
    MANIFEST_NAME,
    ArraySpec,
    FileSpec,
    Manifest,
    check_array_name,
    check_component,
    encode_manifest,
    read_manifest,
)

_STEP = re.compile(r"step_([0-9]{9}|[1-9][0-9]{9,17})")
_HIDDEN = ".tmp-"


@dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint: env step, arrays by component and name, and the caller's JSON."""

    step: int
    components: dict[str, dict[str, np.ndarray]]
    meta: dict[str, Any]


def save_checkpoint(
    root: Path,
    step: int,
    components: Mapping[str, Mapping[str, np.ndarray]],
    meta: Mapping[str, Any],
) -> Path:
    """Write one checkpoint and return its directory ``root/step_…``.

    Each component becomes one file; arrays may have any shape and a dtype of ``DTYPES`` (typed
    PRNG keys are converted by the caller). ``meta`` must be JSON. One writer per ``root``: what an
    earlier, killed writer left half done is swept away first.

    Raises:
        FtflError: the step exists, a name or dtype is not allowed, or the disk refuses; the
            earlier checkpoints are then untouched.
    """
    root = Path(root)
    if type(step) is not int or not 0 <= step < 10**18:
        raise FtflError(f"step {step!r} cannot name a checkpoint: give a whole number from 0.")
    final = root / f"step_{step:09d}"
    if os.path.lexists(final):
        raise FtflError(f"checkpoint {final} already exists: remove it or save another step.")
    arrays = {name: _checked_arrays(name, content) for name, content in components.items()}
    stored_meta = plain(meta)
    temporary = root / f"{_HIDDEN}{final.name}"
    try:
        root.mkdir(parents=True, exist_ok=True)
        _sweep(root)
        _require_space(root, arrays)
        temporary.mkdir()
        files = {name: _write_component(temporary, name, arrays[name]) for name in arrays}
        with open(temporary / MANIFEST_NAME, "wb") as file:
            file.write(encode_manifest(Manifest(step, stored_meta, files)))
            file.flush()
            os.fsync(file.fileno())
        fsync_directory(temporary)
        os.rename(temporary, final)
        fsync_directory(root)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        reason = why(error) if isinstance(error, OSError) else str(error)
        raise FtflError(f"cannot save checkpoint {final}: {reason}.") from error
    except BaseException:
        # Also when interrupted: an unfinished save leaves nothing behind.
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return final


def load_checkpoint(path: Path) -> Checkpoint:
    """Load a checkpoint, verifying sizes, hashes, names, dtypes and shapes before using an array.

    Raises:
        FtflError: one sentence naming the file, and where it applies the array, that is wrong.
    """
    path = Path(path)
    manifest = read_manifest(path)
    named = _STEP.fullmatch(path.name)
    if named and int(named[1]) != manifest.step:
        raise FtflError(f"{path} is damaged: its manifest says step {manifest.step}.")
    # All files are verified before the first is loaded: a damaged last one costs no memory.
    for name, spec in manifest.files.items():
        _verify_file(path / f"{name}.safetensors", spec)
    components = {
        name: _load_component(path / f"{name}.safetensors", spec)
        for name, spec in manifest.files.items()
    }
    return Checkpoint(manifest.step, components, manifest.meta)


def list_checkpoints(root: Path) -> list[Path]:
    """The checkpoint directories under ``root`` by rising step; anything else is ignored."""
    try:
        found = [entry for entry in Path(root).iterdir() if _STEP.fullmatch(entry.name)]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise FtflError(f"cannot list checkpoints in {root}: {why(error)}.") from error
    return sorted((entry for entry in found if entry.is_dir()), key=_step_of)


def latest_valid(root: Path) -> tuple[Checkpoint, list[str]]:
    """The newest checkpoint that verifies, and what is wrong with each newer one.

    Raises:
        FtflError: there is none; the sentence says what is wrong with the newest.
    """
    damage: list[str] = []
    for path in reversed(list_checkpoints(root)):
        try:
            return load_checkpoint(path), damage
        except FtflError as error:
            damage.append(str(error))
    if damage:
        raise FtflError(f"none of the {len(damage)} checkpoints in {root} is valid: {damage[0]}")
    raise FtflError(f"there is no checkpoint in {root}: the run has not saved one yet.")


def prune(root: Path, keep: int) -> list[Path]:
    """Delete all but the newest ``keep`` checkpoints; returns the paths that are gone.

    Each is hidden by a rename first: a kill during the deletion leaves no visible ruin.

    Raises:
        FtflError: ``keep`` is below 1, or the disk refuses.
    """
    if keep < 1:
        raise FtflError(f"cannot keep {keep} checkpoints: keep at least 1 (2 survive damage).")
    root = Path(root)
    removed = list_checkpoints(root)[:-keep]
    try:
        hidden = [root / f"{_HIDDEN}del-{path.name}" for path in removed]
        for path, target in zip(removed, hidden, strict=True):
            shutil.rmtree(target, ignore_errors=True)
            os.rename(path, target)
        if removed:
            fsync_directory(root)
    except OSError as error:
        raise FtflError(f"cannot prune checkpoints in {root}: {why(error)}.") from error
    for target in hidden:
        # What cannot be deleted now stays hidden and is swept at the next save.
        shutil.rmtree(target, ignore_errors=True)
    return removed


def _checked_arrays(component: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    check_component(component)
    checked = {}
    for name, value in arrays.items():
        check_array_name(name)
        array = np.asarray(value)
        if array.dtype.name not in DTYPES:
            raise FtflError(
                f"array {name!r} of {component} has dtype {array.dtype}, which a checkpoint cannot "
                f"hold: convert it to one of {', '.join(DTYPES)}."
            )
        # safetensors reads raw memory: strides and byte order must be the plain ones.
        checked[name] = np.asarray(array, array.dtype.newbyteorder("<"), order="C")
    return checked


def _write_component(directory: Path, name: str, arrays: dict[str, np.ndarray]) -> FileSpec:
    path = directory / f"{name}.safetensors"
    save_file(arrays, path)
    with open(path, "r+b") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        os.fsync(file.fileno())
        size = os.fstat(file.fileno()).st_size
    return FileSpec(
        digest, size, {k: ArraySpec(v.dtype.name, tuple(v.shape)) for k, v in arrays.items()}
    )


def _verify_file(path: Path, spec: FileSpec) -> None:
    try:
        if not path.is_file():
            raise FtflError(f"{path} is missing: its manifest lists it.")
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size != spec.bytes:
                raise FtflError(f"{path} is damaged: it has {size} bytes, not {spec.bytes}.")
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise FtflError(f"cannot read {path}: {why(error)}.") from error
    if digest != spec.sha256:
        raise FtflError(f"{path} is damaged: its content does not match its SHA-256.")


def _load_component(path: Path, spec: FileSpec) -> dict[str, np.ndarray]:
    try:
        with safe_open(path, framework="numpy") as file:
            stored = set(file.keys())
            for name in sorted(stored ^ spec.arrays.keys()):
                where = "not in the manifest" if name in stored else "missing"
                raise FtflError(f"{path} is refused: array {name!r} is {where}.")
            for name, array in spec.arrays.items():
                found = file.get_slice(name)
                dtype, shape = found.get_dtype(), tuple(found.get_shape())
                if (dtype, shape) != (DTYPES[array.dtype], array.shape):
                    raise FtflError(
                        f"{path} is refused: array {name!r} is {dtype} of shape {shape}, but the "
                        f"manifest says {DTYPES[array.dtype]} of shape {array.shape}."
                    )
            return {name: file.get_tensor(name) for name in spec.arrays}
    except (OSError, SafetensorError) as error:
        raise FtflError(f"{path} is damaged: it is not a safetensors file.") from error


def _require_space(root: Path, arrays: Mapping[str, Mapping[str, np.ndarray]]) -> None:
    needed = sum(array.nbytes for content in arrays.values() for array in content.values())
    free = shutil.disk_usage(root).free
    if needed > free:
        raise FtflError(
            f"cannot save a checkpoint in {root}: it needs {needed / 1e6:.1f} MB and "
            f"{free / 1e6:.1f} MB are free."
        )


def _sweep(root: Path) -> None:
    for entry in root.iterdir():
        if entry.name.startswith(f"{_HIDDEN}step_") or entry.name.startswith(f"{_HIDDEN}del-"):
            shutil.rmtree(entry, ignore_errors=True)


def _step_of(path: Path) -> int:
    return int(path.name.removeprefix("step_"))
