"""Which checkpoints lie in a directory, told by their names: never by a clock or a pointer file."""

from __future__ import annotations

import re
from pathlib import Path

from ftfl.errors import FtflError
from ftfl.store import segments
from ftfl.store.files import DiskError, fsync_directory, remove, rename, why
from ftfl.store.manifest import read_manifest

STEP = re.compile(r"step_([0-9]{9}|[1-9][0-9]{9,17})")
"""A visible checkpoint."""

ASIDE = re.compile(rf"damaged-{STEP.pattern}")
"""One that ``set_aside_after`` hid."""

LEFTOVER = re.compile(rf"\.tmp-(del-)?(damaged-)?{STEP.pattern}")
"""What a killed writer had not finished to write or to delete."""


def list_checkpoints(root: Path) -> list[Path]:
    """The checkpoint directories under ``root`` by rising step; anything else is ignored."""
    try:
        found = [entry for entry in Path(root).iterdir() if STEP.fullmatch(entry.name)]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise FtflError(f"cannot list checkpoints in {root}: {why(error)}.") from error
    return sorted((entry for entry in found if entry.is_dir()), key=step_of)


def set_aside_after(root: Path, step: int) -> list[Path]:
    """Hide the checkpoints newer than ``step``, so that a run going on from there can save again.

    They were found damaged, or lead where the run has turned back from. Each gets the name
    ``damaged-step_…``, is never listed again, and is deleted by the next ``prune``.

    Returns:
        Their new paths, by falling step.

    Raises:
        DiskError: the disk refuses.
    """
    root = Path(root)
    newer = [path for path in reversed(list_checkpoints(root)) if step_of(path) > step]
    moved = [path.with_name(f"damaged-{path.name}") for path in newer]
    try:
        # Newest first: a kill on the way leaves a shorter history, never one with a hole.
        for path, target in zip(newer, moved, strict=True):
            remove(target)
            rename(path, target)
        if moved:
            fsync_directory(root)
    except OSError as error:
        raise DiskError(f"cannot set checkpoints in {root} aside: {why(error)}.") from error
    return moved


def looks_whole(path: Path) -> bool:
    """Whether a checkpoint can be valid, judged by all that needs no reading of arrays."""
    if path.is_symlink():
        return False
    folder = path.parent / segments.FOLDER
    try:
        manifest = read_manifest(path)
    except FtflError:
        return False
    return all(
        segments.is_intact(path / f"{name}.safetensors", spec.bytes)
        for name, spec in manifest.files.items()
    ) and all(
        segments.is_intact(folder / segments.file_name(name, segment), segment.bytes)
        for name, table in manifest.tables.items()
        for segment in table.segments
    )


def step_of(path: Path) -> int:
    """The env step in the name of a visible checkpoint."""
    return int(path.name.removeprefix("step_"))
