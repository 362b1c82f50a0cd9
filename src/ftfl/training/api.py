"""The Python API: train in this process, and hold a run in the hand."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ftfl import presets
from ftfl.config import Config, from_dict
from ftfl.envs.make import make_task
from ftfl.store.metrics_file import read_metrics, series
from ftfl.store.rundir import RunDir, task_folder
from ftfl.training import evaluate as evaluation
from ftfl.training import fork as forking
from ftfl.training import resume as resuming
from ftfl.training import workers
from ftfl.training.evaluate import Policy
from ftfl.training.policy import load_policy


@dataclass(frozen=True)
class Run:
    """A run on disk: its configuration, metrics and trained policy."""

    path: Path

    @cached_property
    def config(self) -> Config:
        """The configuration it was trained with."""
        return from_dict(RunDir.open(self.path).config())

    @cached_property
    def metrics(self) -> list[dict[str, Any]]:
        """Every record of ``metrics.jsonl``, in order (names: ``ftfl list metrics``)."""
        return read_metrics(RunDir.open(self.path).metrics_path)

    @cached_property
    def policy(self) -> Policy:
        """The newest checkpoint's deterministic policy: ``policy(obs) → action`` in [−1, 1]."""
        return load_policy(self.path).act

    def series(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Environment steps and values of one metric, e.g. ``eval/return_mean_reward``."""
        return series(self.metrics, name)


def train(
    task: str | Callable[[], Any],
    algo: str = "ftfl",
    *,
    profile: str = "laptop",
    seed: int = 0,
    steps: int = 100_000,
    out: str | Path | None = None,
    changes: Mapping[str, Any] | None = None,
    progress: bool = True,
) -> Run:
    """Train one seed in this process and return the run.

    Flags that must be set before JAX starts (threads, device) are left as they are here; several
    seeds run faster as ``ftfl train … --seeds 0 1`` (one process each).

    Args:
        task: ``dmc/…``, ``gym/…``, ``package.module:make_env``, or a function that makes a
            Gymnasium environment (it must be importable by its name, or defined in ``__main__``).
        algo: a preset (``ftfl list algos``).
        profile: amount of compute: ``paper``, ``laptop`` or ``probe``.
        seed: of everything: environment, networks, sampling.
        steps: agent steps in all, random warm-up included.
        out: run directory; default ``runs/TASK/ALGO/seed_SEED``. Must not exist.
        changes: any configuration fields by dotted name, e.g. ``{"dynamics.target": "direct"}``.
        progress: print a line at each evaluation.

    Raises:
        FtflError: anything that was asked for wrongly, in one sentence.
    """
    name = task if isinstance(task, str) else f"{task.__module__}:{task.__qualname__}"
    config = presets.build(name, algo, profile, {"steps": steps, **(changes or {}), "seed": seed})
    if out is None:
        out = Path("runs", task_folder(name), algo, f"seed_{seed}")
    workers.check_task(config)
    (run_dir,) = workers.prepare([config], [Path(out)], ["ftfl.train"])
    workers.train_in_process(run_dir, sinks=[_Printer()] if progress else [])
    return Run(Path(out))


def resume(path: str | Path, *, steps: int | None = None, progress: bool = True) -> Run:
    """Go on with a run that was stopped, to the same bits as if it never was.

    Args:
        path: its run directory.
        steps: agent steps in all, to make it longer.
        progress: print a line at each evaluation.

    Raises:
        FtflError: no run there, another process trains it, or versions changed (`ftfl resume` can
            be told to accept that).
    """
    changes = {} if steps is None else {"steps": steps}
    plan = resuming.plan(RunDir.open(Path(path)), changes, ["ftfl.resume"])
    if not plan.finished:
        resuming.begin(plan)
        workers.train_in_process(plan.run_dir, sinks=[_Printer()] if progress else [])
    return Run(plan.run_dir.path)


def fork(
    parent: Run | str | Path,
    out: str | Path,
    *,
    algo: str | None = None,
    changes: Mapping[str, Any] | None = None,
    steps: int | None = None,
    at: int | None = None,
    progress: bool = True,
) -> Run:
    """Train a new run from another one's checkpoint, with something changed.

    What the change does not touch is carried over bit by bit; ``history.jsonl`` of the new run
    names its parent, the changes, and what started fresh.

    Args:
        parent: the run to start from.
        out: run directory of the fork. Must not exist.
        algo: take model, rollouts and screen of this preset; the agent stays.
        changes: configuration fields by dotted name, e.g. ``{"dynamics.target": "direct"}``.
        steps: agent steps in all; default the parent's.
        at: env steps of the checkpoint to start from; default the newest valid one.
        progress: print a line at each evaluation.

    Raises:
        FtflError: no such checkpoint, an impossible change, or ``out`` exists.
    """
    run_dir = RunDir.open(parent.path if isinstance(parent, Run) else Path(parent))
    config = forking.changed_config(from_dict(run_dir.config()), algo, changes or {}, steps)
    made = forking.fork(run_dir, config, Path(out), ["ftfl.fork"], at)
    workers.train_in_process(made.run_dir, sinks=[_Printer()] if progress else [])
    return Run(made.run_dir.path)


def load(path: str | Path) -> Run:
    """A run that was trained before, here or by ``ftfl train``."""
    return Run(RunDir.open(Path(path)).path)


def evaluate(
    run: Run | str | Path, episodes: int = 10, seed: int | None = None
) -> evaluation.Evaluation:
    """Play whole episodes with a run's policy; returns are in the task's own unit of reward.

    Without a ``seed`` the starts are those of the run's own evaluations, as in ``ftfl eval``.
    """
    run = run if isinstance(run, Run) else load(run)
    # In the task's own unit of reward, whatever dial the run was trained under.
    env = make_task(dataclasses.replace(run.config.task, reward_unit=1.0))
    try:
        return evaluation.evaluate(
            env, run.policy, run.config.seed if seed is None else seed, episodes
        )
    finally:
        env.close()


class _Printer:
    """A sink that prints a line at each evaluation."""

    def __call__(self, env_steps: int, values: Mapping[str, float]) -> None:
        if "eval/return_mean_reward" in values:
            mean, std = values["eval/return_mean_reward"], values["eval/return_std_reward"]
            line = f"step {env_steps}: return {mean:.1f} ± {std:.1f} (std over episodes)"
            print(line, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Nothing to release."""
