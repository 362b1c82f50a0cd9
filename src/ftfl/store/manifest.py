"""The manifest of a checkpoint: what its files must be, checked before a byte of them is used.

It names every file with its size and SHA-256 and every array with its dtype and shape, and carries
a hash of itself, so that a flipped bit anywhere is noticed. The hashes find damage, not forgery;
against a forged manifest stand the checks of names, sizes and shapes, and that nothing loaded is
ever executed.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ftfl.errors import FtflError
from ftfl.store.files import plain, read_json

FORMAT_VERSION = 1
MANIFEST_NAME = "manifest.json"

DTYPES = {
    "bool": "BOOL",
    "int8": "I8",
    "int16": "I16",
    "int32": "I32",
    "int64": "I64",
    "uint8": "U8",
    "uint16": "U16",
    "uint32": "U32",
    "uint64": "U64",
    "float16": "F16",
    "float32": "F32",
    "float64": "F64",
}
"""NumPy names of the dtypes a checkpoint may hold, with their names in safetensors."""

# Lower case only: two names that differ by case are one file on some file systems.
_COMPONENT = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


class ArraySpec(NamedTuple):
    """What one array of a component file must be."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of data, in exact integers however large the shape claims to be."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


class FileSpec(NamedTuple):
    """What one component file must be."""

    sha256: str
    bytes: int
    arrays: dict[str, ArraySpec]


class Manifest(NamedTuple):
    """A checked manifest; ``files`` is keyed by component name."""

    step: int
    meta: dict[str, Any]
    files: dict[str, FileSpec]


def check_component(name: str) -> None:
    """Refuse a component name that is not a plain lower-case file name stem."""
    if not isinstance(name, str) or not _COMPONENT.fullmatch(name):
        raise FtflError(
            f"{name!r} cannot be a checkpoint component: "
            "use 1 to 64 lower-case letters, digits, '_' and '-'."
        )


def check_array_name(name: str) -> None:
    """Refuse an array name that is empty, unprintable, huge, or reserved by safetensors."""
    if (
        not isinstance(name, str)
        or not (0 < len(name) <= 512)
        or not name.isprintable()
        or name == "__metadata__"
    ):
        raise FtflError(
            f"{name!r:.80} cannot be an array name: use 1 to 512 printable characters "
            "other than '__metadata__'."
        )


def encode_manifest(manifest: Manifest) -> bytes:
    """The text of ``manifest.json``, with the hash of its own content."""
    content: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "step": manifest.step,
        "meta": plain(manifest.meta),
        "files": {
            f"{name}.safetensors": {
                "sha256": spec.sha256,
                "bytes": spec.bytes,
                "arrays": {
                    array: {"dtype": dtype, "shape": list(shape)}
                    for array, (dtype, shape) in spec.arrays.items()
                },
            }
            for name, spec in manifest.files.items()
        },
    }
    content["sha256"] = _content_hash(content)
    return json.dumps(content, indent=1, allow_nan=False).encode() + b"\n"


def read_manifest(directory: Path) -> Manifest:
    """The manifest of a checkpoint directory, checked in full.

    Raises:
        FtflError: one sentence that names the manifest, and the file and array at fault.
    """
    path = directory / MANIFEST_NAME
    content = read_json(path)
    version = content.get("format_version")
    if type(version) is not int:
        raise FtflError(f"{path} is damaged: it has no format_version.")
    if version != FORMAT_VERSION:
        raise FtflError(
            f"{path} has format version {version} and this ftfl reads {FORMAT_VERSION}: "
            "use the ftfl version that wrote it."
        )
    if content.get("sha256") != _content_hash(content):
        raise FtflError(f"{path} is damaged: its content does not match its own SHA-256.")
    step, meta, files = content.get("step"), content.get("meta"), content.get("files")
    if type(step) is not int or step < 0:
        raise FtflError(f"{path} is damaged: step is {step!r}, not a count.")
    if not isinstance(meta, dict) or not isinstance(files, dict):
        raise FtflError(f"{path} is damaged: meta or files is not a mapping.")
    return Manifest(step, meta, dict(_file_spec(path, name, spec) for name, spec in files.items()))


def _file_spec(path: Path, file_name: str, spec: Any) -> tuple[str, FileSpec]:
    component = file_name.removesuffix(".safetensors")
    if component == file_name or not _COMPONENT.fullmatch(component):
        raise FtflError(f"{path} is refused: it names {file_name!r:.80}, not NAME.safetensors.")
    if not (
        isinstance(spec, dict)
        and isinstance(spec.get("sha256"), str)
        and _SHA256.fullmatch(spec["sha256"])
        and _is_count(spec.get("bytes"))
        and isinstance(spec.get("arrays"), dict)
    ):
        raise FtflError(f"{path} is damaged: the entry of {file_name} is incomplete.")
    arrays = {}
    for name, array in spec["arrays"].items():
        try:
            check_array_name(name)
            arrays[name] = _array_spec(array)
        except (FtflError, ValueError) as error:
            raise FtflError(
                f"{path} is refused: array {name!r:.80} of {file_name} has no valid dtype and "
                "shape."
            ) from error
    claimed = sum(array.nbytes for array in arrays.values())
    if claimed > spec["bytes"]:
        raise FtflError(
            f"{path} is refused: the arrays of {file_name} claim {claimed} bytes, "
            f"the file {spec['bytes']}."
        )
    return component, FileSpec(spec["sha256"], spec["bytes"], arrays)


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
