"""Checkpoints: directories ``step_000050000`` that are complete and verified, or not there.

Written under a hidden name, forced to disk, then renamed: a kill or power cut at any moment leaves
the earlier checkpoints untouched and no half of a new one in sight. Ordered by step, never by
clock. Arrays are safetensors and the rest is JSON, so nothing loaded is ever executed. Append-only
tables lie beside the checkpoints, in ``segments/`` that several of them share (``segments.py``).
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from ftfl.errors import FtflError
from ftfl.store import segments
from ftfl.store.arrays import load_arrays, storable, verify_file, write_arrays
from ftfl.store.files import DiskError, fsync_directory, plain, remove, rename, why, write_file
from ftfl.store.listing import (
    ASIDE,
    LEFTOVER,
    STEP,
    list_checkpoints,
    looks_whole,
    set_aside_after,
    step_of,
)
from ftfl.store.manifest import MANIFEST_NAME, Manifest, encode_manifest, read_manifest
from ftfl.store.segments import Stored, Table
from ftfl.store.specs import TableSpec, check_component

__all__ = [
    "Checkpoint",
    "CheckpointStore",
    "Stored",
    "Table",
    "latest_valid",
    "list_checkpoints",
    "load_checkpoint",
    "set_aside_after",
]

_NO_TABLES: Mapping[str, Table] = MappingProxyType({})


@dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint: env step, arrays by component and name, and the caller's JSON."""

    step: int
    components: dict[str, dict[str, np.ndarray]]
    meta: dict[str, Any]
    tables: dict[str, Stored] = field(default_factory=dict)
    """Append-only tables by name; empty when they were not asked for."""
    segments: dict[str, TableSpec] = field(default_factory=dict)
    """Where the rows of each table lie, for a store that goes on from here."""


class CheckpointStore:
    """The one writer of the checkpoints in ``root``; the run's lock keeps a second one out."""

    def __init__(self, root: Path, base: Checkpoint | None = None) -> None:
        """Go on from ``base``, or anew; what a killed writer left half done is swept away."""
        self.root = Path(root)
        self.last_step = None if base is None else base.step
        """The step of the newest checkpoint of this run's history: saved here, or the base."""
        self._tables = {} if base is None else base.segments
        try:
            self._sweep()
        except OSError as error:
            raise FtflError(f"cannot list checkpoints in {root}: {why(error)}.") from error

    def save(
        self,
        step: int,
        components: Mapping[str, Mapping[str, np.ndarray]],
        meta: Mapping[str, Any],
        tables: Mapping[str, Table] = _NO_TABLES,
    ) -> Path:
        """Write one checkpoint and return its directory ``root/step_…``.

        Each component becomes one file; arrays may have any shape and a dtype of ``DTYPES`` (typed
        PRNG keys are converted by the caller). ``meta`` must be JSON. Of each table only the rows
        are written that the last checkpoint does not have.

        Raises:
            DiskError: the disk refuses; the earlier checkpoints are untouched, and the next save
                can succeed.
            FtflError: the step exists, or a name, a dtype or a table is not allowed.
        """
        if type(step) is not int or not 0 <= step < 10**18:
            raise FtflError(f"step {step!r} cannot name a checkpoint: give a whole number from 0.")
        final = self.root / f"step_{step:09d}"
        if os.path.lexists(final):
            raise FtflError(f"checkpoint {final} already exists: remove it or save another step.")
        for name in components:
            check_component(name)
        arrays = {name: storable(name, content) for name, content in components.items()}
        stored_meta = plain(meta)
        segments.check_folder(self._folder)
        temporary = self.root / f".tmp-{final.name}"
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            self._sweep()
            plans = {
                name: segments.plan(self._folder, name, table, self._tables.get(name))
                for name, table in tables.items()
            }
            self._require_space(arrays, plans)
            specs = self._write_tables(plans)
            temporary.mkdir()
            files = {
                name: write_arrays(temporary / f"{name}.safetensors", content)
                for name, content in arrays.items()
            }
            text = encode_manifest(Manifest(step, stored_meta, files, specs))
            write_file(temporary / MANIFEST_NAME, lambda file: file.write(text))
            fsync_directory(temporary)
            rename(temporary, final)
            fsync_directory(self.root)
        except OSError as error:
            self._clean_up(temporary, final)
            raise DiskError(f"cannot save checkpoint {final}: {why(error)}.") from error
        except BaseException:
            # Also when interrupted: an unfinished save leaves nothing behind.
            self._clean_up(temporary, final)
            raise
        self.last_step, self._tables = step, specs
        return final

    def prune(self, keep: int) -> list[Path]:
        """Delete all older than the newest ``keep`` checkpoints; returns the paths that are gone.

        One that cannot be whole (by its manifest and the sizes of its files) is not counted, so
        that damage never costs the last good one. Each is hidden by a rename first: a kill during
        the deletion leaves no visible ruin. What ``set_aside_after`` put aside goes too, and last
        the segments that no visible checkpoint lists.

        Raises:
            DiskError: the disk refuses.
            FtflError: ``keep`` is below 1.
        """
        if keep < 1:
            raise FtflError(f"cannot keep {keep} checkpoints: keep at least 1 (2 survive damage).")
        paths = list_checkpoints(self.root)
        whole = [path for path in paths if looks_whole(path)]
        oldest = step_of(whole[-keep]) if len(whole) >= keep else 0
        removed = [path for path in paths if step_of(path) < oldest]
        try:
            aside = [entry for entry in self._entries() if ASIDE.fullmatch(entry.name)]
            hidden = [self.root / f".tmp-del-{path.name}" for path in [*removed, *aside]]
            for path, target in zip([*removed, *aside], hidden, strict=True):
                remove(target)
                rename(path, target)
            if hidden:
                # Before any segment goes: a power cut must not bring back what lists it.
                fsync_directory(self.root)
            self._drop_unlisted_segments()
        except OSError as error:
            raise DiskError(f"cannot prune checkpoints in {self.root}: {why(error)}.") from error
        for target in hidden:
            # What cannot be deleted now stays hidden and is swept at the next save.
            remove(target)
        return removed

    @property
    def _folder(self) -> Path:
        return self.root / segments.FOLDER

    def _entries(self) -> list[Path]:
        return list(self.root.iterdir()) if self.root.is_dir() else []

    def _sweep(self) -> None:
        for entry in self._entries():
            if LEFTOVER.fullmatch(entry.name):
                remove(entry)
        segments.sweep(self._folder)

    def _write_tables(self, plans: Mapping[str, segments.Plan]) -> dict[str, TableSpec]:
        if not plans:
            return {}
        if not self._folder.is_dir():
            self._folder.mkdir()
            fsync_directory(self.root)
        specs = {name: segments.write(self._folder, name, plan) for name, plan in plans.items()}
        fsync_directory(self._folder)
        return specs

    def _require_space(
        self,
        arrays: Mapping[str, Mapping[str, np.ndarray]],
        plans: Mapping[str, segments.Plan],
    ) -> None:
        needed = sum(array.nbytes for content in arrays.values() for array in content.values())
        needed += sum(plan.bytes for plan in plans.values())
        free = shutil.disk_usage(self.root).free
        if needed > free:
            raise DiskError(
                f"cannot save a checkpoint in {self.root}: it needs {needed / 1e6:.1f} MB and "
                f"{free / 1e6:.1f} MB are free."
            )

    def _drop_unlisted_segments(self) -> None:
        try:
            manifests = [read_manifest(path) for path in list_checkpoints(self.root)]
        except FtflError:
            return  # what a damaged manifest listed is not known: wait until it is pruned
        listed = {
            segments.file_name(name, segment)
            for manifest in manifests
            for name, table in manifest.tables.items()
            for segment in table.segments
        }
        segments.sweep(self._folder, listed)

    def _clean_up(self, temporary: Path, final: Path) -> None:
        with contextlib.suppress(OSError):
            if os.path.lexists(final):
                # Visible, but not confirmed to be on disk: a save that fails has not been.
                os.replace(final, temporary)
        remove(temporary)
        with contextlib.suppress(OSError):
            self._drop_unlisted_segments()


def load_checkpoint(path: Path, *, tables: bool = True) -> Checkpoint:
    """Load a checkpoint, verifying sizes, hashes, names, dtypes and shapes before using an array.

    Without ``tables`` (gigabytes of replay) the rows of the tables are neither read nor verified.

    Raises:
        FtflError: one sentence naming the file, and where it applies the array, that is wrong.
    """
    path = Path(path)
    folder = path.parent / segments.FOLDER
    if path.is_symlink():
        raise FtflError(f"{path} is refused: it is a symbolic link.")
    manifest = read_manifest(path)
    named = STEP.fullmatch(path.name)
    if named and int(named[1]) != manifest.step:
        raise FtflError(f"{path} is damaged: its manifest says step {manifest.step}.")
    wanted = manifest.tables if tables else {}
    # All files are verified before the first is loaded: a damaged last one costs no memory.
    for name, spec in manifest.files.items():
        verify_file(path / f"{name}.safetensors", spec)
    for name, table in wanted.items():
        segments.verify(folder, name, table)
    return Checkpoint(
        manifest.step,
        {n: load_arrays(path / f"{n}.safetensors", s) for n, s in manifest.files.items()},
        manifest.meta,
        {name: segments.load(folder, name, table) for name, table in wanted.items()},
        manifest.tables,
    )


def latest_valid(root: Path, *, tables: bool = True) -> tuple[Checkpoint, list[str]]:
    """The newest checkpoint that verifies, and what is wrong with each newer one.

    ``tables`` as for ``load_checkpoint``.

    Raises:
        FtflError: there is none; the sentence says what is wrong with the newest.
    """
    damage: list[str] = []
    for path in reversed(list_checkpoints(root)):
        try:
            return load_checkpoint(path, tables=tables), damage
        except FtflError as error:
            damage.append(str(error))
    if damage:
        raise FtflError(f"none of the {len(damage)} checkpoints in {root} is valid: {damage[0]}")
    raise FtflError(f"there is no checkpoint in {root}: the run has not saved one yet.")
