"""One checkpoint of a run, opened for examination: nothing in the run directory is changed."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import jax.numpy as jnp
import numpy as np

from ftfl.config import Config, from_dict
from ftfl.envs.make import make_task
from ftfl.envs.spec import EnvSpec
from ftfl.errors import FtflError
from ftfl.forensics.bare import bare_spec
from ftfl.forensics.episodes import Episode, find_episodes
from ftfl.forensics.learned import Agent, WorldModel, make_agent, make_world_model
from ftfl.forensics.penalties import make_penalty
from ftfl.forensics.rows import in_order
from ftfl.replay import Split
from ftfl.rollouts.generate import kept_rows
from ftfl.store.checkpoint import Checkpoint, latest_valid, list_checkpoints, load_checkpoint
from ftfl.store.listing import step_of
from ftfl.store.rundir import RunDir
from ftfl.training import saving
from ftfl.training.progress import Progress
from ftfl.training.state import RunState
from ftfl.types import Transition

_TRIES = 3


@dataclass(frozen=True)
class Subject:
    """A run at one checkpoint: its configuration, state and data."""

    path: Path
    config: Config
    spec: EnvSpec
    step: int
    """Environment steps after which the checkpoint was written."""
    damage: tuple[str, ...]
    """What is wrong with newer checkpoints, which were passed over."""
    state: RunState
    progress: Progress
    rows: Transition
    """Real transitions still kept, in order of collection (NumPy); rewards in the unit that was
    paid, that is times ``unit``."""
    history: tuple[dict[str, Any], ...]
    """What was done to the run (``history.jsonl``)."""
    absent: str | None = None
    """Why the environment could not be made, so that ``spec`` is only what the checkpoint shows."""

    @classmethod
    def load(cls, run_dir: Path, step: int | None = None) -> Subject:
        """Open the newest valid checkpoint, or the one at ``step``; the run may be training.

        Raises:
            FtflError: no run there, no (valid) checkpoint, no such step, or no real rows yet.
        """
        run = RunDir.open(Path(run_dir))
        config = from_dict(run.config())
        checkpoint, damage = _checkpoint(run, step)
        spec, absent = _spec(config, checkpoint)
        state, progress = saving.load(checkpoint, config, spec)
        rows = in_order(state.real)
        if len(rows.reward) == 0:
            if damage:
                raise FtflError(
                    f"{damage[0]}; the newest valid checkpoint of {run.path} is of step"
                    f" {checkpoint.step} and has no real transitions yet."
                )
            steps = map(step_of, list_checkpoints(run.checkpoints_path))
            later = [x for x in steps if x > checkpoint.step]
            do = f"choose a later one ({', '.join(map(str, later))})" if later else None
            raise FtflError(
                f"{run.path} has no real transitions at step {checkpoint.step} yet:"
                f" {do or 'wait for its next checkpoint'}."
            )
        history = tuple(run.read_history())
        step = checkpoint.step
        return cls(run.path, config, spec, step, damage, state, progress, rows, history, absent)

    @property
    def label(self) -> str:
        """What tables call the run."""
        return RunDir(self.path).label(self.config.algo)

    @property
    def unit(self) -> float:
        """A stored reward divided by this is in the task's own unit."""
        return self.config.task.reward_unit

    @cached_property
    def rewards(self) -> np.ndarray:
        """Rewards of ``rows`` in the task's own unit, float64 (N,)."""
        return np.asarray(self.rows.reward, np.float64) / self.unit

    @cached_property
    def agent(self) -> Agent:
        """Policy and critics."""
        return make_agent(self.state.agent, self.config)

    @cached_property
    def model(self) -> WorldModel | None:
        """The dynamics model; None: the run has none, or has not trained it yet."""
        state = self.state.dynamics
        if state is None or int(state.refits) == 0:
            return None
        penalty = make_penalty(self.state, self.config, self.spec.obs_dim)
        return make_world_model(state, self.config, self.spec, penalty)

    @cached_property
    def synthetic(self) -> Transition | None:
        """Synthetic transitions that updates draw from now, oldest first (NumPy)."""
        if self.state.synthetic is None:
            return None
        rows = in_order(self.state.synthetic)
        kept = int(kept_rows(self.state.env_steps, self.config))
        return Transition(*cast(Any, (np.asarray(x)[-kept:] for x in rows)))

    @cached_property
    def episodes(self) -> list[Episode]:
        """The episodes of ``rows``, oldest first; logged rows are in none."""
        progress, kept = self.progress, len(self.rows.reward)
        first = progress.rows - kept
        forks = [e.get("changes", {}) for e in self.history if e.get("event") == "forked"]
        seeds = [self.config.seed, *(c["seed"][0] for c in reversed(forks) if "seed" in c)]
        return find_episodes(
            self.rows,
            logged=max(0, progress.rows - progress.env_steps - first),
            limit=self.spec.max_episode_steps,
            newest=progress.episode - (not progress.actions),
            dropped=first > 0,
            run_seeds=seeds,
        )

    @cached_property
    def episode(self) -> np.ndarray:
        """Index into ``episodes`` of every row, −1 for logged rows; (N,)."""
        index = np.full(len(self.rows.reward), -1)
        for i, episode in enumerate(self.episodes):
            index[episode.start : episode.stop] = i
        return index

    @cached_property
    def moment(self) -> np.ndarray:
        """Steps since the episode's first kept row, for every row; logged rows: their index."""
        starts = np.array([0, *(e.start for e in self.episodes)])
        return np.arange(len(self.rows.reward)) - starts[self.episode + 1]

    @cached_property
    def unseen(self) -> np.ndarray | None:
        """Rows (N,) the model never trained on; None where no row is sure to be one."""
        dynamics = self.config.dynamics
        if dynamics is None or dynamics.holdout != "persistent":
            return None
        split = Split(dynamics.holdout_every, self.state.holdout)
        real, kept = self.state.real, len(self.rows.reward)
        slot = (self.progress.rows - kept + np.arange(kept)) % real.capacity
        block = slot // split.every
        held = np.asarray(split.holdout_slot(jnp.asarray(block, jnp.int32)))
        return (slot == held) | (block >= int(split.blocks(real)))


def _spec(config: Config, checkpoint: Checkpoint) -> tuple[EnvSpec, str | None]:
    """The environment's own, or what is left of it without one, and why."""
    try:
        with contextlib.closing(make_task(config.task)) as env:
            return env.spec, None
    except FtflError as error:
        absent = str(error)
    try:
        return bare_spec(config, checkpoint), absent
    except FtflError as error:
        raise FtflError(f"{absent} {error}") from error


def _checkpoint(run: RunDir, step: int | None) -> tuple[Checkpoint, tuple[str, ...]]:
    """A run that trains may prune a checkpoint while it is read: then there is a newer one."""
    for left in reversed(range(_TRIES)):
        before = list_checkpoints(run.checkpoints_path)
        try:
            return _load(run, step, before)
        except FtflError as error:
            if left == 0 or list_checkpoints(run.checkpoints_path) == before:
                if not (before and step is None and run.metrics_path.exists()):
                    raise
                raise FtflError(
                    f"{error} What training logged is there: `ftfl report {run.path}` shows it."
                ) from error
    raise AssertionError("unreachable")


def _load(run: RunDir, step: int | None, paths: list[Path]) -> tuple[Checkpoint, tuple[str, ...]]:
    if step is None:
        checkpoint, damage = latest_valid(run.checkpoints_path)
        return checkpoint, tuple(damage)
    steps = {step_of(path): path for path in paths}
    if step not in steps:
        have = ", ".join(map(str, steps)) or "none"
        raise FtflError(f"{run.path} has no checkpoint at step {step}; it has: {have}.")
    return load_checkpoint(steps[step]), ()
