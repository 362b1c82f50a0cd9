"""One file of named arrays: the safetensors format, forced to disk, hashed, and read with distrust.

https://huggingface.co/docs/safetensors: eight bytes that say how long the header is, the header in
JSON, then the arrays' plain memory. Written here from the arrays as they lie in memory, without the
library's copies, and hashed on the way; read by the library.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from io import BufferedWriter
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from ftfl.errors import FtflError
from ftfl.store.files import open_regular, retrying, why, write_file
from ftfl.store.specs import DTYPES, ArraySpec, FileSpec, check_array_name


def storable(owner: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """``arrays`` as plain memory: little-endian and C-contiguous.

    Raises:
        FtflError: a name or dtype (``DTYPES``) is not allowed.
    """
    checked = {}
    for name, value in arrays.items():
        check_array_name(name)
        array = np.asarray(value)
        if array.dtype.name not in DTYPES:
            raise FtflError(
                f"array {name!r} of {owner} has dtype {array.dtype}, which a checkpoint cannot "
                f"hold: convert it to one of {', '.join(DTYPES)}."
            )
        checked[name] = np.asarray(array, array.dtype.newbyteorder("<"), order="C")
    return checked


def spec_of(array: np.ndarray) -> ArraySpec:
    """Dtype and shape of an array in memory."""
    return ArraySpec(array.dtype.name, tuple(array.shape))


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> FileSpec:
    """Write ``storable`` arrays to a file, force it to disk, and say what a reader must find."""
    # Widest first, so that every array starts at a multiple of its item size.
    names = sorted(arrays, key=lambda name: (-arrays[name].itemsize, name))
    header, at = {}, 0
    for name in names:
        array = arrays[name]
        header[name] = {
            "dtype": DTYPES[array.dtype.name],
            "shape": list(array.shape),
            "data_offsets": [at, at + array.nbytes],
        }
        at += array.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    start = len(text).to_bytes(8, "little") + text

    def write(file: BufferedWriter) -> str:
        digest = hashlib.sha256()
        for part in (start, *(arrays[name].reshape(-1).view(np.uint8).data for name in names)):
            digest.update(part)
            file.write(part)
        return digest.hexdigest()

    specs = {name: spec_of(array) for name, array in arrays.items()}
    return FileSpec(write_file(path, write), len(start) + at, specs)


def verify_file(path: Path, spec: FileSpec) -> None:
    """Compare a file's size, and only then its content, with what it must be.

    Raises:
        FtflError: it is missing, no plain file, or differs.
    """

    def digest_of() -> str:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size != spec.bytes:
                raise FtflError(f"{path} is damaged: it has {size} bytes, not {spec.bytes}.")
            return hashlib.file_digest(file, "sha256").hexdigest()

    try:
        digest = retrying(digest_of)
    except OSError as error:
        raise FtflError(f"cannot read {path}: {why(error)}.") from error
    if digest != spec.sha256:
        raise FtflError(f"{path} is damaged: its content does not match its SHA-256.")


def load_arrays(path: Path, spec: FileSpec) -> dict[str, np.ndarray]:
    """The arrays of a verified file, whose own header must agree with ``spec`` first.

    Raises:
        FtflError: names, dtypes or shapes differ, or it is not a safetensors file.
    """
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
    except (OSError, SafetensorError, ValueError) as error:
        raise FtflError(f"{path} is damaged: it is not a safetensors file.") from error
    except MemoryError as error:
        raise FtflError(f"{path} does not fit into memory: it has {spec.bytes} bytes.") from error
