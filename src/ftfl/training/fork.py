"""A new run from another one's checkpoint, with something changed: the paired experiment.

What a change does not touch is carried over bit by bit, so that two forks of one checkpoint differ
by the change alone. What it touches starts fresh, and the record says which is which.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from ftfl import presets
from ftfl.config import Config, content_hash, difference, from_dict, replace, to_dict
from ftfl.envs.make import make_task
from ftfl.errors import FtflError
from ftfl.store.checkpoint import (
    Checkpoint,
    CheckpointStore,
    latest_valid,
    list_checkpoints,
    load_checkpoint,
)
from ftfl.store.listing import step_of
from ftfl.store.provenance import collect, compare
from ftfl.store.rundir import RunDir
from ftfl.training import saving, sentinels
from ftfl.training import state as run_state
from ftfl.training.learn import require_compatible

_LABELS = {"algo", "profile"}
_TRAINING_ONLY = {
    "learning_rate", "batch_size", "train_every", "max_updates", "early_stopping", "patience",
    "min_improvement", "check_every", "best_weights", "reward_draw", "holdout_rows",
}  # fmt: skip
"""Fields of the model that say how to train or draw from it; its weights stay meaningful."""
_DRAW_ONLY = {"real_ratio", "real_draw", "updates", "value_steps"}
"""Fields of the rollouts that leave stored synthetic rows as good as they were."""
_AGENT_SHAPE = {"hidden", "critic_layer_norm", "log_std_map", "log_std_min", "log_std_max"}


@dataclass(frozen=True)
class Fork:
    """A run that begins where another one was."""

    run_dir: RunDir
    config: Config
    env_steps: int
    changes: dict[str, tuple[Any, Any]]
    fresh: tuple[str, ...]
    """Components that the changes made start anew: of agent, dynamics, synthetic, episode."""
    notes: tuple[str, ...]
    """Damaged checkpoints passed over, and versions that have changed since the parent's."""


def changed_config(
    parent: Config, algo: str | None, changes: Mapping[str, Any], steps: int | None
) -> Config:
    """The parent's configuration with another algorithm, fields, or end.

    With ``algo`` the parent's own task, seed, steps and agent stay, and model, rollouts and screen
    become those of the preset (under the parent's profile).

    Raises:
        FtflError: an unknown name or impossible value, or a change of what stored transitions mean.
    """
    for name in sorted(_LABELS & changes.keys()):
        raise FtflError(f"{name} is a label that changes nothing by itself: use --algo.")
    config = parent
    if algo is not None:
        preset = presets.build(parent.task.name, algo, parent.profile)
        config = dataclasses.replace(
            parent, algo=algo, dynamics=preset.dynamics, rollouts=preset.rollouts
        )
    if steps is not None:
        config = dataclasses.replace(config, steps=steps)
    config = replace(config, changes)
    touched = difference(parent, config)
    for name in touched:
        if name.startswith("task.") and name != "task.step_limit_seconds":
            old, new = touched[name]
            raise FtflError(
                f"{name} cannot change in a fork ({old} → {new}): the stored transitions would mean"
                " something else; train a new run instead."
            )
    return config


def fork(
    parent: RunDir,
    config: Config,
    out: Path,
    argv: Sequence[str],
    step: int | None = None,
    start_fresh: Collection[str] = (),
) -> Fork:
    """Make the run directory ``out``, whose first checkpoint is the parent's with ``config``.

    ``start_fresh`` names components that start fresh whatever the changes are (see ``Fork.fresh``).

    Raises:
        FtflError: no such checkpoint, nothing left to train, or ``out`` exists already.
    """
    checkpoint, damage = _checkpoint(parent, step)
    before = from_dict(parent.config())
    changes = difference(before, config)
    with contextlib.closing(make_task(config.task)) as env:
        spec = env.spec
    require_compatible(config, spec)
    state, progress = saving.load(checkpoint, before, spec)
    if config.steps <= progress.env_steps:
        raise FtflError(
            f"steps is {config.steps}, but the checkpoint is at step {progress.env_steps}: give"
            " more steps in all to train on from there."
        )
    logged = progress.rows - progress.env_steps
    new = run_state.init(config, spec, logged)
    changed = _fresh(before, config)
    fresh = (*changed, *(name for name in start_fresh if name not in changed))
    kept: dict[str, Any] = {
        name: getattr(new if name in fresh else state, name)
        for name in ("agent", "dynamics", "synthetic", "screen")
    }
    real = run_state.ring(new.real, saving.stored_rows(checkpoint, progress.rows))
    # What went wrong before says nothing of fresh networks.
    anew = sentinels.see_rewards(new.alarms, real.rows.reward)
    alarms = anew if {"agent", "dynamics"} & set(fresh) else state.alarms
    key = state.key if config.seed == before.seed else jax.random.key(config.seed)
    state = dataclasses.replace(state, **kept, key=key, real=real, alarms=alarms)
    every, updates = config.sac.reset_every_updates, int(state.agent.updates)
    if every:
        # Resets count from here on: none is owed for updates made before.
        state = dataclasses.replace(state, resets=jnp.int32(updates // every))
    progress.updates, progress.agent_resets = updates, int(state.resets)
    progress.faults = []  # of the parent, whose file names them
    if "dynamics" in fresh:
        progress.fitted = False
    progress.metrics = {
        k: v for k, v in progress.metrics.items()
        if not (k.startswith(("model/", "rollout/")) and "dynamics" in fresh)
    }  # fmt: skip
    if "episode" in fresh:
        progress.actions, progress.obs, progress.episode_return = [], None, 0.0
    provenance = collect(argv)
    verdict = compare(parent.provenance(), provenance)
    notes = (*damage, *verdict.refused, *verdict.notes)
    run_dir = RunDir.create(out, to_dict(config), provenance)
    record = {
        "event": "forked",
        "parent": str(parent.path),
        "parent_config": content_hash(before),
        "env_steps": progress.env_steps,
        "changes": {name: list(pair) for name, pair in changes.items()},
        "fresh": list(fresh),
        "notes": list(notes),
    }
    run_dir.append_history(record)
    try:
        saving.save(CheckpointStore(run_dir.checkpoints_path), state, progress)
    except FtflError:
        shutil.rmtree(run_dir.path)
        raise
    return Fork(run_dir, config, progress.env_steps, changes, fresh, notes)


def _fresh(before: Config, after: Config) -> tuple[str, ...]:
    changed = {name for name in difference(before, after) if name not in _LABELS}

    def within(group: str) -> set[str]:
        names = {n for n in changed if n == group or n.startswith(f"{group}.")}
        return {n.partition(".")[2] for n in names}

    agent = bool(within("sac") & _AGENT_SHAPE)
    model = bool(within("dynamics") - _TRAINING_ONLY)
    synthetic = model or bool(within("rollouts") - _DRAW_ONLY)
    parts = {
        "agent": agent, "dynamics": model, "synthetic": synthetic, "screen": synthetic,
        "episode": "seed" in changed,
    }  # fmt: skip
    return tuple(name for name, anew in parts.items() if anew)


def _checkpoint(parent: RunDir, step: int | None) -> tuple[Checkpoint, list[str]]:
    root = parent.checkpoints_path
    if step is None:
        return latest_valid(root)
    paths = {step_of(path): path for path in list_checkpoints(root)}
    if step not in paths:
        have = ", ".join(map(str, paths)) or "none"
        raise FtflError(f"{parent.path} has no checkpoint at step {step}; it has: {have}.")
    return load_checkpoint(paths[step]), []
