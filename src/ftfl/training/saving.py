"""A run's way to disk and back: what a checkpoint holds, and going on from the newest valid one."""

from __future__ import annotations

from dataclasses import dataclass

import equinox as eqx
import numpy as np

from ftfl.config import Config
from ftfl.envs.spec import EnvSpec
from ftfl.errors import FtflError
from ftfl.store.checkpoint import Checkpoint, CheckpointStore, latest_valid, list_checkpoints
from ftfl.store.rundir import RunDir
from ftfl.store.segments import Stored
from ftfl.training import state as run_state
from ftfl.training.progress import Progress
from ftfl.training.state import RunState

_KEPT = 2
"""Checkpoints kept: the newest, and one to fall back to should it be damaged."""


@dataclass(frozen=True)
class Found:
    """The newest valid checkpoint, and what is wrong with each newer one."""

    checkpoint: Checkpoint
    damage: tuple[str, ...]


def find(run_dir: RunDir) -> Found | None:
    """Where a run can go on; None: it has not saved anything yet.

    Raises:
        FtflError: there are checkpoints, and none is valid: nothing is started anew over them.
    """
    if not list_checkpoints(run_dir.checkpoints_path):
        return None
    checkpoint, damage = latest_valid(run_dir.checkpoints_path)
    return Found(checkpoint, tuple(damage))


def save(store: CheckpointStore, state: RunState, progress: Progress) -> None:
    """Write a checkpoint of this moment and forget the ones before the last two.

    Raises:
        FtflError: the disk refuses; the earlier checkpoints are untouched.
    """
    components = run_state.to_components(state)
    act_dim = state.real.rows.action.shape[1]
    obs = np.zeros(0, np.float32) if progress.obs is None else progress.obs
    actions = np.asarray(progress.actions, np.float32).reshape(-1, act_dim)
    components["episode"] = {"actions": actions, "obs": obs}
    tables = {"real": run_state.real_rows(state, progress.rows)}
    store.save(progress.env_steps, components, progress.to_meta(), tables)
    store.prune(_KEPT)


def load(checkpoint: Checkpoint, config: Config, spec: EnvSpec) -> tuple[RunState, Progress]:
    """The two halves of a run, as they were.

    Raises:
        FtflError: the checkpoint does not fit the configuration or the task.
    """
    progress = Progress.from_meta(checkpoint.meta)
    real = checkpoint.tables.get("real") or _real_of_format_1(checkpoint, progress.rows)
    # Shapes are enough, and take no seconds of compiling.
    logged = progress.rows - progress.env_steps
    template = eqx.filter_eval_shape(run_state.init, config, spec, logged)
    state = run_state.from_components(template, checkpoint.components, real)
    progress.learn_steps, progress.updates = int(state.learn_steps), int(state.agent.updates)
    progress.agent_resets = int(state.resets)
    episode = checkpoint.components["episode"]
    progress.actions = list(episode["actions"])
    progress.obs = episode["obs"] if "obs" in episode else None
    return state, progress


def _real_of_format_1(checkpoint: Checkpoint, total: int) -> Stored:
    """The real replay as format 1 had it: a ring, in a component like any other."""
    ring = checkpoint.components.get("real")
    if ring is None:
        raise FtflError(f"the checkpoint at step {checkpoint.step} has no real replay.")
    kept = int(ring["size"])
    order = (int(ring["cursor"]) - kept + np.arange(kept)) % kept if total > kept else slice(None)
    rows = {k.removeprefix("rows/"): v[order] for k, v in ring.items() if k.startswith("rows/")}
    return Stored(total, rows)
