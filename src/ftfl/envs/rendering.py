"""Which OpenGL back end draws MuJoCo's pictures here.

Asked in child processes: MuJoCo reads MUJOCO_GL once, when it is imported, and a back end that the
machine lacks can abort the process.
"""

from __future__ import annotations

import os
import subprocess
import sys

PACKAGES = "libegl1 libgl1-mesa-dri"
"""Debian and Ubuntu packages that bring EGL, with drawing on the processor if need be."""
ADVICE = f"install the Debian packages {PACKAGES} (EGL) or libosmesa6 (OSMesa)"

_SECONDS = 60
_OFF = ("disable", "disabled", "off", "false", "0")
_DRAW = """
import mujoco
model = mujoco.MjModel.from_xml_string('<mujoco><worldbody><geom size="1"/></worldbody></mujoco>')
data = mujoco.MjData(model)
mujoco.mj_forward(model, data)
with mujoco.Renderer(model, 32, 32) as renderer:
    renderer.update_scene(data)
    assert renderer.render().shape == (32, 32, 3)
"""


def candidates() -> list[str]:
    """Values of MUJOCO_GL worth trying, the best first: the user's own choice is the only one."""
    given = os.environ.get("MUJOCO_GL")
    if given:
        return [given]
    return ["egl", "osmesa"] if sys.platform.startswith("linux") else [""]


def failure(backend: str) -> str:
    """Why a back end does not draw, in a few words; empty if it does. Takes about a second."""
    if backend.lower() in _OFF:
        return f"MUJOCO_GL={backend} turns pictures off"
    env = {**os.environ, "MUJOCO_GL": backend}
    try:
        child = subprocess.run(
            [sys.executable, "-c", _DRAW], env=env, capture_output=True, text=True, timeout=_SECONDS
        )
    except subprocess.TimeoutExpired:
        return f"no picture within {_SECONDS} seconds"
    if child.returncode == 0:
        return ""
    errors = [line for line in child.stderr.splitlines() if "Error: " in line]
    return errors[0].strip() if errors else f"the process ended with exit code {child.returncode}"


def find() -> str | None:
    """The first candidate that draws."""
    return next((backend for backend in candidates() if not failure(backend)), None)
