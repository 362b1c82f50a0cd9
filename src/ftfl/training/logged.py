"""Logged transitions from a file, for ``--init-replay``."""

from __future__ import annotations

import dataclasses
import zipfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from ftfl import replay
from ftfl.envs.spec import EnvSpec
from ftfl.errors import FtflError
from ftfl.store.files import why
from ftfl.training import sentinels
from ftfl.training.progress import Progress
from ftfl.training.state import RunState
from ftfl.types import Transition

_CHUNK_ROWS = 1_000

FIELDS = {"obs": "(N, O)", "action": "(N, A)", "reward": "(N,)", "next_obs": "(N, O)",
          "terminated": "(N,)"}  # fmt: skip


def load_logged(path: Path, spec: EnvSpec, option: str = "--init-replay") -> Transition:
    """Read an ``.npz`` of arrays named as in ``FIELDS``; actions scaled to [−1, 1].

    Args:
        path: of the file.
        spec: of the task that was logged.
        option: what the user gave the file to, for messages.

    Raises:
        FtflError: missing file or array, wrong shape, non-finite value, or action out of bounds.
    """
    shapes = ", ".join(f"{k} {v}" for k, v in FIELDS.items())
    try:
        # Opened here, because NumPy forgets to close a damaged archive.
        with open(path, "rb") as file:
            archive = np.load(file, allow_pickle=False)
            if isinstance(archive, np.ndarray):
                raise ValueError("it holds one array without a name")
            arrays = {name: archive[name] for name in FIELDS if name in archive.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        reason = why(error) if isinstance(error, OSError) else error
        raise FtflError(
            f"cannot read {option} {path}: {reason}; give an .npz file with {shapes}."
        ) from error
    missing = [name for name in FIELDS if name not in arrays]
    if missing:
        raise FtflError(f"{option} {path} lacks {', '.join(missing)}: it needs {shapes}.")
    count = arrays["obs"].shape[0] if arrays["obs"].ndim else 0
    if count < 1:
        raise FtflError(f"{option} {path} holds no transitions: it needs {shapes}.")
    expected = {
        "obs": (count, spec.obs_dim), "action": (count, spec.act_dim), "reward": (count,),
        "next_obs": (count, spec.obs_dim), "terminated": (count,),
    }  # fmt: skip
    for name, shape in expected.items():
        if arrays[name].dtype.kind not in "fiub":
            raise FtflError(f"{option} {path}: {name} holds {arrays[name].dtype}, no numbers.")
        if arrays[name].shape != shape:
            raise FtflError(
                f"{option} {path}: {name} has shape {arrays[name].shape}, but {spec.task}"
                f" needs {shape}."
            )
    rows = {
        name: arrays[name].astype(bool if name == "terminated" else np.float32) for name in FIELDS
    }
    for name, value in rows.items():
        bad = np.flatnonzero(~np.isfinite(value.reshape(count, -1)).all(axis=1))
        if bad.size:
            raise FtflError(f"{option} {path}: {name} is not finite in row {bad[0]}.")
    beyond = np.flatnonzero(np.abs(rows["action"]).max(axis=1) > 1)
    if beyond.size:
        raise FtflError(
            f"{option} {path}: action row {beyond[0]} leaves [-1, 1]; scale actions to that"
            " range first."
        )
    return Transition(**rows)


def insert_logged(state: RunState, progress: Progress, logged: Transition) -> RunState:
    """Put logged transitions first into the real replay, and count their rewards."""
    insert = jax.jit(replay.insert)
    ring = state.real
    count, chunk = len(logged.reward), min(_CHUNK_ROWS, ring.capacity)
    for start in range(0, count, chunk):
        kept = min(chunk, count - start)
        # Filled up to the chunk's shape by repetition; the mask keeps what is real.
        index = start + np.arange(chunk) % kept
        rows = jax.tree.map(lambda x, i=index: x[i], logged)
        ring = insert(ring, rows, jnp.arange(chunk) < kept)
    for reward in logged.reward:
        progress.rewards.add(float(reward))
    alarms = sentinels.see_rewards(state.alarms, jnp.asarray(logged.reward))
    return dataclasses.replace(state, real=ring, alarms=alarms)
