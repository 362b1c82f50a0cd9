"""The few things asked of MuJoCo itself, whichever suite runs it."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

from ftfl.errors import FtflError

LOAD_ERRORS = (ImportError, AttributeError, OSError, RuntimeError)


def cannot_load(package: str, error: Exception) -> FtflError:
    """Explain a simulator that does not import; most often MUJOCO_GL names what is not there."""
    if isinstance(error, ModuleNotFoundError) and error.name == package:
        # Plain pip leaves dm-control out on Python 3.13, where its labmaze cannot be installed.
        return FtflError(
            f"{package} is not installed: `pip install --no-deps 'dm-control>=1.0.50,<1.1'` adds"
            " it."
        )
    backend = os.environ.get("MUJOCO_GL")
    advice = (
        f"MUJOCO_GL={backend} may name a backend this machine lacks: unset it to train without "
        "pictures, or use egl"
        if backend
        else "reinstall ftfl in a fresh environment"
    )
    return FtflError(f"{package} cannot be loaded ({type(error).__name__}: {error}); {advice}.")


try:
    import mujoco
except LOAD_ERRORS as error:
    raise cannot_load("mujoco", error) from error

_mujoco: Any = mujoco  # its names come from compiled modules, which type checkers cannot read
_log = logging.getLogger(__name__)

RENDER_ERRORS: tuple[type[Exception], ...] = (*LOAD_ERRORS, _mujoco.FatalError)


def listen_to_mujoco() -> None:
    """Send MuJoCo's warnings to the debug log; the guard reads its counters.

    Without a listener MuJoCo appends to a file in the current directory.
    """
    _mujoco.set_mju_user_warning(_log.debug)


def simulator_data(env: Any) -> Any | None:
    """Return the ``MjData`` of a Gymnasium-like environment, or None for another simulator."""
    data = getattr(getattr(env, "unwrapped", env), "data", None)
    return data if isinstance(data, _mujoco.MjData) else None


def warning_names(counts: np.ndarray) -> str:
    """Name the warnings with a count above zero; ``counts`` has one entry per ``mjtWarning``."""
    return ", ".join(_mujoco.mjtWarning(i).name for i in np.flatnonzero(counts))


def require_picture_backend(task: str) -> None:
    """Refuse pictures that cannot be drawn: trying twice without a display aborts the process."""
    backend = os.environ.get("MUJOCO_GL", "")
    needs_display = sys.platform.startswith("linux") and backend.lower() in ("", "glfw")
    has_display = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    off = backend.lower() in ("disable", "disabled", "off", "false", "0")
    if off or (needs_display and not has_display):
        given = f"MUJOCO_GL={backend}" if backend else "MUJOCO_GL unset and no display"
        raise FtflError(
            f"no pictures of {task} with {given}: start the process with MUJOCO_GL=egl (graphics "
            "card) or MUJOCO_GL=osmesa (processor)."
        )


@contextlib.contextmanager
def without_display_warnings() -> Iterator[None]:
    """Silence GLFW, which is tried when MUJOCO_GL is unset and warns where there is no display."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="glfw")
        yield
