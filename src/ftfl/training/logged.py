"""Logged transitions from a file, for ``--init-replay``."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ftfl.envs.spec import EnvSpec
from ftfl.errors import FtflError
from ftfl.types import Transition

FIELDS = {"obs": "(N, O)", "action": "(N, A)", "reward": "(N,)", "next_obs": "(N, O)",
          "terminated": "(N,)"}  # fmt: skip


def load_logged(path: Path, spec: EnvSpec) -> Transition:
    """Read an ``.npz`` of arrays named as in ``FIELDS``; actions scaled to [−1, 1].

    Raises:
        FtflError: missing file or array, wrong shape, non-finite value, or action out of bounds.
    """
    shapes = ", ".join(f"{k} {v}" for k, v in FIELDS.items())
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in FIELDS if name in file.files}
    except (OSError, ValueError) as error:
        raise FtflError(
            f"cannot read --init-replay {path}: {error}; give an .npz file with {shapes}."
        ) from error
    missing = [name for name in FIELDS if name not in arrays]
    if missing:
        raise FtflError(f"--init-replay {path} lacks {', '.join(missing)}: it needs {shapes}.")
    count = arrays["reward"].shape[0] if arrays["reward"].ndim == 1 else -1
    expected = {
        "obs": (count, spec.obs_dim), "action": (count, spec.act_dim), "reward": (count,),
        "next_obs": (count, spec.obs_dim), "terminated": (count,),
    }  # fmt: skip
    for name, shape in expected.items():
        if arrays[name].shape != shape or count < 1:
            raise FtflError(
                f"--init-replay {path}: {name} has shape {arrays[name].shape}, but {spec.task}"
                f" needs {shape}."
            )
    rows = {
        name: arrays[name].astype(bool if name == "terminated" else np.float32)
        for name in FIELDS
    }
    for name, value in rows.items():
        bad = np.flatnonzero(~np.isfinite(value.reshape(count, -1)).all(axis=1))
        if bad.size:
            raise FtflError(f"--init-replay {path}: {name} is not finite in row {bad[0]}.")
    beyond = np.flatnonzero(np.abs(rows["action"]).max(axis=1) > 1)
    if beyond.size:
        raise FtflError(
            f"--init-replay {path}: action row {beyond[0]} leaves [-1, 1]; scale actions to that"
            " range first."
        )
    return Transition(**rows)
