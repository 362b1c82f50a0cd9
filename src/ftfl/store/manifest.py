"""The manifest of a checkpoint: what its files must be, checked before a byte of them is used.

It names every file with its size and SHA-256 and every array with its dtype and shape, and carries
a hash of itself, so that a flipped bit anywhere is noticed. The hashes find damage, not forgery;
against a forged manifest stand the checks of names, sizes and shapes, and that nothing loaded is
ever executed.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ftfl import __version__
from ftfl.errors import FtflError
from ftfl.store.files import open_regular, parse_object, plain, why
from ftfl.store.specs import (
    COMPONENT,
    DTYPES,
    ArraySpec,
    FileSpec,
    SegmentSpec,
    TableSpec,
    check_array_name,
)

FORMAT_VERSION = 2
MANIFEST_NAME = "manifest.json"
_MANIFEST_BYTES = 32 << 20  # 100,000 segments are about 20 MB

_SHA256 = re.compile(r"[0-9a-f]{64}")


class Manifest(NamedTuple):
    """A checked manifest; ``files`` is keyed by component, ``tables`` by table name."""

    step: int
    meta: dict[str, Any]
    files: dict[str, FileSpec]
    tables: dict[str, TableSpec]


def encode_manifest(manifest: Manifest) -> bytes:
    """The text of ``manifest.json``, with the hash of its own content.

    Raises:
        FtflError: ``meta`` has no JSON form, or the text is longer than a reader would accept.
    """
    content: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "writer": {"ftfl": __version__},
        "step": manifest.step,
        "meta": plain(manifest.meta),
        "files": {
            f"{name}.safetensors": {
                "sha256": spec.sha256,
                "bytes": spec.bytes,
                "arrays": _arrays_content(spec.arrays),
            }
            for name, spec in manifest.files.items()
        },
        "tables": {
            name: {
                "total": spec.total,
                "kept": spec.kept,
                "arrays": _arrays_content(spec.arrays),
                "segments": [segment._asdict() for segment in spec.segments],
            }
            for name, spec in manifest.tables.items()
        },
    }
    content["sha256"] = _content_hash(content)
    text = json.dumps(content, indent=1, allow_nan=False).encode() + b"\n"
    if len(text) > _MANIFEST_BYTES:
        raise FtflError(
            f"the manifest of step {manifest.step} has {len(text)} bytes, and {_MANIFEST_BYTES} "
            "are read: store large things as arrays."
        )
    return text


def read_manifest(directory: Path) -> Manifest:
    """The manifest of a checkpoint directory, checked in full.

    Raises:
        FtflError: one sentence that names the manifest, and the file and array at fault.
    """
    path = directory / MANIFEST_NAME
    try:
        with open_regular(path) as file:
            content = parse_object(path, file, _MANIFEST_BYTES)
        content = _migrated(path, content)
    except OSError as error:
        raise FtflError(f"cannot read {path}: {why(error)}.") from error
    except RecursionError as error:
        raise FtflError(f"{path} is damaged: it is nested too deeply.") from error
    step, meta = content.get("step"), content.get("meta")
    files, tables = content.get("files"), content.get("tables")
    if not isinstance(step, int) or not _is_count(step):
        raise FtflError(f"{path} is damaged: step is {step!r:.80}, not a count.")
    if not (isinstance(meta, dict) and isinstance(files, dict) and isinstance(tables, dict)):
        raise FtflError(f"{path} is damaged: meta, files or tables is not a mapping.")
    return Manifest(
        step,
        meta,
        dict(_file_spec(path, name, spec) for name, spec in files.items()),
        {name: _table_spec(path, name, spec) for name, spec in tables.items()},
    )


def _version_1(content: dict[str, Any]) -> dict[str, Any]:
    """Version 1 had no tables: replays were components like all others."""
    return {**content, "tables": {}}


MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {1: _version_1}
"""From each older format version, what makes its parsed manifest one of the next version."""


def _migrated(path: Path, content: dict[str, Any]) -> dict[str, Any]:
    version = content.get("format_version")
    if type(version) is not int:
        raise FtflError(f"{path} is damaged: it has no format_version.")
    if version != FORMAT_VERSION and version not in MIGRATIONS:
        raise FtflError(
            f"{path} has format version {version!r:.80} and this ftfl reads 1 to {FORMAT_VERSION}: "
            "use the ftfl version that wrote it."
        )
    if content.get("sha256") != _content_hash(content):
        raise FtflError(f"{path} is damaged: its content does not match its own SHA-256.")
    for older in range(version, FORMAT_VERSION):
        content = MIGRATIONS[older](content)
    return content


def _file_spec(path: Path, file_name: str, spec: Any) -> tuple[str, FileSpec]:
    component = file_name.removesuffix(".safetensors")
    if component == file_name or not COMPONENT.fullmatch(component):
        raise FtflError(f"{path} is refused: it names {file_name!r:.80}, not NAME.safetensors.")
    if not (_is_hashed(spec) and isinstance(spec.get("arrays"), dict)):
        raise FtflError(f"{path} is damaged: the entry of {file_name} is incomplete.")
    arrays = _array_specs(path, file_name, spec["arrays"])
    _check_claim(path, file_name, sum(a.nbytes for a in arrays.values()), spec["bytes"])
    return component, FileSpec(spec["sha256"], spec["bytes"], arrays)


def _table_spec(path: Path, name: str, spec: Any) -> TableSpec:
    if not COMPONENT.fullmatch(name):
        raise FtflError(f"{path} is refused: {name!r:.80} cannot be the name of a table.")
    if not (
        isinstance(spec, dict)
        and _is_count(spec.get("total"))
        and _is_count(spec.get("kept"))
        and isinstance(spec.get("arrays"), dict)
        and isinstance(spec.get("segments"), list)
        and all(
            _is_hashed(s) and _is_count(s.get("start")) and _is_count(s.get("stop"))
            for s in spec["segments"]
        )
    ):
        raise FtflError(f"{path} is damaged: the entry of table {name} is incomplete.")
    arrays = _array_specs(path, f"table {name}", spec["arrays"])
    segments = tuple(
        SegmentSpec(s["start"], s["stop"], s["sha256"], s["bytes"]) for s in spec["segments"]
    )
    table = TableSpec(spec["total"], spec["kept"], arrays, segments)
    first = table.total - table.kept
    at = segments[0].start if segments else table.total
    if not 0 <= at <= first <= table.total or (segments and first >= segments[0].stop):
        raise FtflError(
            f"{path} is refused: table {name} keeps {table.kept} of {table.total} rows, which its "
            "segments do not hold."
        )
    for segment in segments:
        if segment.start != at or segment.stop <= at:
            raise FtflError(
                f"{path} is refused: a segment of table {name} says rows {segment.start} to "
                f"{segment.stop} where row {at} is next."
            )
        at = segment.stop
        rows = segment.stop - segment.start
        _check_claim(path, f"table {name}", rows * table.row_bytes, segment.bytes)
    if at != table.total:
        raise FtflError(
            f"{path} is refused: the segments of table {name} end at row {at} of {table.total}."
        )
    return table


def _array_specs(path: Path, owner: str, specs: dict[str, Any]) -> dict[str, ArraySpec]:
    arrays = {}
    for name, array in specs.items():
        try:
            check_array_name(name)
            arrays[name] = _array_spec(array)
        except (FtflError, ValueError) as error:
            raise FtflError(
                f"{path} is refused: array {name!r:.80} of {owner} has no valid dtype and shape."
            ) from error
    return arrays


def _check_claim(path: Path, owner: str, claimed: int, size: int) -> None:
    if claimed > size:
        raise FtflError(
            f"{path} is refused: the arrays of {owner} claim {claimed} bytes, the file {size}."
        )


def _arrays_content(arrays: Mapping[str, ArraySpec]) -> dict[str, Any]:
    return {name: {"dtype": dtype, "shape": list(shape)} for name, (dtype, shape) in arrays.items()}


def _is_hashed(spec: Any) -> bool:
    return (
        isinstance(spec, dict)
        and isinstance(spec.get("sha256"), str)
        and _SHA256.fullmatch(spec["sha256"]) is not None
        and _is_count(spec.get("bytes"))
    )


def _array_spec(spec: Any) -> ArraySpec:
    if not isinstance(spec, Mapping):
        raise ValueError("form")
    dtype, shape = spec.get("dtype"), spec.get("shape")
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise ValueError("dtype")
    # 32 axes: a product of a million claimed axes would itself be an attack.
    if not isinstance(shape, list) or len(shape) > 32 or not all(map(_is_count, shape)):
        raise ValueError("shape")
    return ArraySpec(dtype, tuple(shape))


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 63


def _content_hash(content: Mapping[str, Any]) -> str:
    body = {key: value for key, value in content.items() if key != "sha256"}
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
