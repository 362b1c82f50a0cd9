"""One evaluation episode as a video, drawn in a process of its own.

The parent (``ftfl eval``) may have imported MuJoCo already, which settles its OpenGL back end for
good; the child starts with MUJOCO_GL set.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import math
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ftfl.envs import rendering
from ftfl.envs.spec import Environment
from ftfl.errors import FtflError
from ftfl.store.files import why
from ftfl.training.evaluate import evaluate
from ftfl.training.launch import child_environment
from ftfl.training.policy import load_policy
from ftfl.types import Step

_MAX_FPS = 60.0
_FPS_UNKNOWN = 30.0
_REFUSED = 3  # exit status of a child that said why on its last line of stderr


@dataclass(frozen=True)
class Film:
    """What to play, and where the picture goes."""

    run_dir: str
    out: str
    step: int
    seed: int
    sampled: bool = False
    size: tuple[int, int] | None = None
    """(width, height) in pixels; None: as the environment draws."""


def require_video(out: Path) -> None:
    """Refuse a video that cannot be written, before an episode is played for it.

    Raises:
        FtflError: not an .mp4, no place to write it, or imageio is missing.
    """
    if out.suffix.lower() != ".mp4":
        raise FtflError(f"--video {out} must end in .mp4.")
    missing = [m for m in ("imageio", "imageio_ffmpeg") if importlib.util.find_spec(m) is None]
    if missing:
        raise FtflError(
            f"videos need {' and '.join(missing)}, which is not installed:"
            ' pip install "ftfl[video]".'
        )
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FtflError(f"cannot write --video {out}: {why(error)}.") from error
    if out.is_dir() or not os.access(out.parent, os.W_OK):
        raise FtflError(f"cannot write --video {out}: choose a file in a writable folder.")


def record(film: Film) -> dict[str, Any]:
    """Play and write; returns frames, frames per second, seconds of video, and the return.

    Raises:
        FtflError: no picture can be drawn here, or the file cannot be written.
    """
    backend = rendering.find()
    # Otherwise imageio forks to start FFmpeg, which can hang under JAX's threads.
    env = {**os.environ, "IMAGEIO_FFMPEG_NO_PREVENT_SIGINT": "1"}
    if backend:
        env["MUJOCO_GL"] = backend
    elif "MUJOCO_GL" not in env:
        env["MUJOCO_GL"] = "disabled"
    child = subprocess.run(
        [sys.executable, "-m", "ftfl.training.video", json.dumps(dataclasses.asdict(film))],
        env=child_environment(env), capture_output=True, text=True,
    )  # fmt: skip
    if child.returncode == 0:
        return json.loads(child.stdout.splitlines()[-1])
    said = child.stderr.strip().splitlines()
    if child.returncode != _REFUSED or not said:
        last = said[-1] if said else f"exit code {child.returncode}"
        raise FtflError(f"the process that draws the video failed: {last}.")
    if backend is None and "MUJOCO_GL" in said[-1]:
        failures = ((b or "default", rendering.failure(b)) for b in rendering.candidates())
        tried = "; ".join(f"{name}: {reason}" for name, reason in failures)
        raise FtflError(
            f"no video of {film.run_dir}: MuJoCo cannot draw here ({tried}); {rendering.ADVICE}."
        )
    raise FtflError(said[-1])


class _Filmed:
    """An environment that shows every frame-th moment to a camera."""

    def __init__(self, env: Environment, every: int, writer: Any):
        self.env, self.spec = env, env.spec
        self._every, self._writer = every, writer
        self._steps = 0
        self.frames = 0

    def reset(self, seed: int) -> np.ndarray:
        obs = self.env.reset(seed)
        self._shoot()
        return obs

    def step(self, action: np.ndarray) -> Step:
        result = self.env.step(action)
        self._steps += 1
        if self._steps % self._every == 0 or result.terminated or result.truncated:
            self._shoot()
        return result

    def render(self) -> np.ndarray:
        return self.env.render()

    def close(self) -> None:
        self.env.close()

    def restart(self) -> None:
        self.env.restart()

    def _shoot(self) -> None:
        self._writer.append_data(self.env.render())
        self.frames += 1


def frame_rate(seconds_per_step: float | None) -> tuple[float, int]:
    """Frames per second for real time, and agent steps per frame (at most 60 frames a second)."""
    if seconds_per_step is None:
        return _FPS_UNKNOWN, 1
    steps_per_second = 1.0 / seconds_per_step
    every = max(1, math.ceil(steps_per_second / _MAX_FPS - 1e-9))
    return steps_per_second / every, every


def _play(film: Film) -> dict[str, Any]:
    import imageio.v2 as imageio

    policy = load_policy(Path(film.run_dir), film.step)
    env = policy.make_env(render=True)
    out = Path(film.out)
    # A reader never sees half a video.
    temporary = out.with_name(f".tmp-{out.name}")
    fps, every = frame_rate(env.spec.seconds_per_step)
    try:
        with imageio.get_writer(
            temporary, format="FFMPEG", mode="I", fps=fps, codec="libx264", quality=8,
            macro_block_size=1, ffmpeg_params=["-vf", _fitted(film.size)],
        ) as writer:  # pyright: ignore[reportCallIssue]  # fmt: skip
            filmed = _Filmed(env, every, writer)
            act = policy.sampler(film.seed) if film.sampled else policy.act
            result = evaluate(filmed, act, film.seed, episodes=1)
        os.replace(temporary, out)
    except OSError as error:
        raise FtflError(f"cannot write --video {out}: {error}.") from error
    finally:
        temporary.unlink(missing_ok=True)
        env.close()
    return {
        "file": film.out,
        "frames": filmed.frames,
        "fps": fps,
        "seconds": filmed.frames / fps,
        "real_time": env.spec.seconds_per_step is not None,
        "return": float(result.returns[0]) / policy.config.task.reward_unit,
    }


def _fitted(size: tuple[int, int] | None) -> str:
    """FFmpeg's filter for a picture of this size: scaled, never distorted, sides even."""
    if size is None:
        return "pad=ceil(iw/2)*2:ceil(ih/2)*2"
    width, height = size
    return (
        f"scale={width}:{height}:force_original_aspect_ratio=decrease,"
        f"pad={width}:{height}:(ow-iw)/2:(oh-ih)/2"
    )


def main(argv: Sequence[str]) -> int:
    """Entry point of the child: one JSON object in, one out."""
    content = json.loads(argv[0])
    size = content["size"]
    try:
        result = _play(Film(**(content | {"size": None if size is None else tuple(size)})))
    except FtflError as error:
        print(error, file=sys.stderr)
        return _REFUSED
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
