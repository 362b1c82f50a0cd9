"""Messages between a run and an environment in a process of its own: a letter and some bytes.

Arrays cross as their bytes and errors as JSON. Nothing that is received is ever executed.
"""

from __future__ import annotations

import socket
import struct
import time
from typing import Final

import numpy as np

from ftfl.types import Step

# From the run: make this environment, reset it, step it, draw it, close it.
MAKE: Final = b"m"
RESET: Final = b"r"
STEP: Final = b"s"
RENDER: Final = b"p"
CLOSE: Final = b"c"
# From the environment: it worked; a violation; a request that was refused (an FtflError).
DONE: Final = b"d"
BROKEN: Final = b"b"
REFUSED: Final = b"e"

_HEADER = struct.Struct("<cI")
_SEED = struct.Struct("<I")
_ANSWER = struct.Struct("<d??i")
_PICTURE = struct.Struct("<II")
_CHUNK = 65_536


class Channel:
    """One end of a stream socket on which requests and answers alternate."""

    def __init__(self, end: socket.socket):
        self._end = end
        self._buffer = bytearray()

    def send(self, letter: bytes, content: bytes = b"") -> None:
        """Send one message; raises OSError when nobody listens any more."""
        self._end.sendall(_HEADER.pack(letter, len(content)) + content)

    def receive(self, seconds: float | None = None) -> tuple[bytes, bytes]:
        """Wait for the next message, at most ``seconds``.

        Raises:
            TimeoutError: it did not come in time.
            EOFError: the other end is gone.
        """
        deadline = None if seconds is None else time.monotonic() + seconds
        while True:
            if len(self._buffer) >= _HEADER.size:
                letter, size = _HEADER.unpack_from(self._buffer)
                if len(self._buffer) >= _HEADER.size + size:
                    content = bytes(self._buffer[_HEADER.size : _HEADER.size + size])
                    del self._buffer[: _HEADER.size + size]
                    return letter, content
            if deadline is not None:
                # Not 0, which would mean not to wait at all.
                self._end.settimeout(max(deadline - time.monotonic(), 1e-6))
            chunk = self._end.recv(_CHUNK)
            if not chunk:
                raise EOFError("the other end is closed")
            self._buffer += chunk

    def close(self) -> None:
        """Close this end; the other one meets the end of the stream."""
        self._end.close()


def pack_seed(seed: int) -> bytes:
    """A seed below 2**32."""
    return _SEED.pack(seed)


def unpack_seed(content: bytes) -> int:
    """Invert `pack_seed`."""
    return _SEED.unpack(content)[0]


def pack_step(step: Step, warnings: np.ndarray | None) -> bytes:
    """A step and the simulator's counters (int32; None without a simulator)."""
    counters = b"" if warnings is None else np.asarray(warnings, np.int32).tobytes()
    size = -1 if warnings is None else len(counters)
    head = _ANSWER.pack(step.reward, step.terminated, step.truncated, size)
    return head + counters + step.obs.tobytes()


def unpack_step(content: bytes) -> tuple[Step, np.ndarray | None]:
    """Invert `pack_step`; the arrays are new and writable."""
    reward, terminated, truncated, size = _ANSWER.unpack_from(content)
    start = _ANSWER.size
    warnings = None
    if size >= 0:
        warnings = np.frombuffer(content[start : start + size], np.int32).copy()
        start += size
    obs = np.frombuffer(content[start:], np.float32).copy()
    return Step(obs, reward, terminated, truncated), warnings


def pack_picture(picture: np.ndarray) -> bytes:
    """A picture, uint8 of shape (H, W, 3)."""
    return _PICTURE.pack(*picture.shape[:2]) + picture.tobytes()


def unpack_picture(content: bytes) -> np.ndarray:
    """Invert `pack_picture`."""
    height, width = _PICTURE.unpack_from(content)
    return np.frombuffer(content[_PICTURE.size :], np.uint8).reshape(height, width, 3).copy()
