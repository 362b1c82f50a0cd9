"""Train the forks that `instruments.forks` compares: one run, one checkpoint, one change each.

Forks are ordinary runs in a folder of their own; finished ones are taken as they are and others
gone on with, so that an autopsy that was stopped can be given again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ftfl.config import Config, from_dict
from ftfl.errors import FtflError
from ftfl.forensics.doors import AS_IS, flags
from ftfl.forensics.foresight_fit import PRESETS
from ftfl.forensics.instruments.forks import REAL_ALONE, ForkArm, PairedForks
from ftfl.forensics.subject import Subject
from ftfl.store.metrics_file import read_metrics, series
from ftfl.store.rundir import RunDir
from ftfl.training import fork as forking
from ftfl.training import grouping, resume, workers
from ftfl.training.cores import available

_RETURN = "eval/return_mean_reward"
_LOOKS = {"model/reward_r2": "reward_r2", "model/skill_over_persistence": "skill",
          "agent/q_mean_scaled": "q_mean_scaled"}  # fmt: skip
_ANEW = ("dynamics", "synthetic", "screen")
_POLL_SECONDS = 0.5


@dataclass(frozen=True)
class ForkPlan:
    """How far, how often and where a run is forked."""

    folder: Path
    steps: int = 1_000
    """Environment steps of each fork."""
    seeds: int = 3


@dataclass(frozen=True)
class Change:
    """What one arm changes."""

    algo: str | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)

    @property
    def advice(self) -> str:
        """As options of ``ftfl train``."""
        parts = [f"--algo {self.algo}"] if self.algo else []
        short = {k.removeprefix("dynamics."): v for k, v in self.fields.items()}
        known = {k: v for k, v in short.items() if not k.startswith("rollouts.")}
        parts += [flags(known)] if known else []
        parts += [f"--{k.replace('_', '-')} {v:g}" for k, v in short.items() if k not in known]
        return " ".join(parts)


def changes(config: Config) -> dict[str, Change]:
    """The arms, the run as it is first.

    With a model: no model, each repair of the target alone and both, and half of every batch real.
    Without one: the four cells of MBPO in its place.
    """
    model, rollouts = config.dynamics, config.rollouts
    if model is None or rollouts is None:
        return {AS_IS: Change(), **{name: Change(name) for name in PRESETS.values()}}
    scale = {"dynamics.scale": "raw" if model.scale == "unit" else "unit"}
    target = {"dynamics.target": "residual" if model.target == "direct" else "direct"}
    arms = {
        AS_IS: Change(),
        REAL_ALONE: Change("sac"),
        "scale": Change(fields=scale),
        "target": Change(fields=target),
        "scale and target": Change(fields={**scale, **target}),
    }
    if rollouts.real_ratio < 0.5:
        arms["half real"] = Change(fields={"rollouts.real_ratio": 0.5})
    return arms


def train_forks(
    subject: Subject, plan: ForkPlan, told: Callable[[str, int, int], None]
) -> PairedForks:
    """Fork the run in every arm and seed, train the forks, and read what became of the agent.

    Args:
        subject: the run, at the checkpoint that is forked.
        plan: where forks go, how long and how many they are.
        told: called with what is done, how much of it is, and how much there is to do.

    Raises:
        FtflError: the environment may not be stepped without being asked, a fork ended early, or
            a folder cannot be written.
    """
    if subject.absent is not None:
        raise FtflError(f"the environment cannot be made here: {subject.absent}")
    if not subject.spec.replayable:
        raise FtflError(
            "forks would act in this environment, which is not declared replayable: give `ftfl"
            " fork` yourself, where that is safe"
        )
    arms = changes(subject.config)
    seeds = tuple(subject.config.seed + i for i in range(plan.seeds))
    folder = plan.folder / f"{subject.label}-seed_{subject.config.seed}@{subject.step}+{plan.steps}"
    places = {
        (name, seed): folder / name.replace(" ", "-") / f"seed_{seed}"
        for seed in seeds
        for name in arms
    }
    wanted = {at: _wanted(subject, arms[at[0]], at[1], plan.steps) for at in places}
    todo = [_ready(subject, wanted[at], path) for at, path in places.items()]
    _train([run for run in todo if run is not None], plan.steps, told)
    found = (
        _arm(name, change, [places[name, seed] for seed in seeds]) for name, change in arms.items()
    )
    return PairedForks(tuple(found), seeds, plan.steps, _before(subject), str(folder))


def _wanted(subject: Subject, change: Change, seed: int, steps: int) -> Config:
    settings = {"eval_every": max(1, steps // 2), "checkpoint_every": steps, "seed": seed}
    end = subject.step + steps
    return forking.changed_config(subject.config, change.algo, {**change.fields, **settings}, end)


def _ready(subject: Subject, config: Config, path: Path) -> tuple[RunDir, Config] | None:
    """A fork that is still to be trained, made or gone on with; None: it is finished."""
    if not (path / "config.json").is_file():
        parent = RunDir.open(subject.path)
        made = forking.fork(parent, config, path, ["ftfl", "autopsy"], subject.step, _ANEW)
        return made.run_dir, config
    run_dir = RunDir.open(path)
    parents = [e.get("parent") for e in run_dir.read_history() if e.get("event") == "forked"]
    if from_dict(run_dir.config()) != config or parents[:1] != [str(subject.path)]:
        raise FtflError(
            f"{path} holds another fork than the one asked for: name another folder with --forks"
        )
    plan = resume.plan(run_dir, {}, ["ftfl", "autopsy"])
    if plan.finished:
        return None
    resume.begin(plan)
    return run_dir, plan.config


def _train(
    runs: list[tuple[RunDir, Config]], steps: int, told: Callable[[str, int, int], None]
) -> None:
    if not runs:
        return
    run_dirs, configs = [run[0] for run in runs], [run[1] for run in runs]
    groups, accelerator = grouping.arrange(run_dirs, configs, None, len(available()))
    pool = workers.Pool(accelerator=accelerator)
    for group in groups:
        pool.submit(*(runs[i] for i in group))
    try:
        while pool.poll():
            left = sum(_left(run, config, steps) for run, config in runs)
            told("steps of paired forks", len(runs) * steps - left, len(runs) * steps)
            time.sleep(_POLL_SECONDS)
    finally:
        pool.stop()  # nothing runs any more, unless this was interrupted
    for run in run_dirs:
        status = workers.known_status(run)
        if status.get("state") != "done":
            raise FtflError(f"the fork {run.path} ended early: {status.get('message', '')}")


def _left(run: RunDir, config: Config, steps: int) -> int:
    done = int(workers.known_status(run).get("env_steps") or 0)
    return min(steps, max(0, config.steps - done))


def _arm(name: str, change: Change, paths: list[Path]) -> ForkArm:
    records = [read_metrics(RunDir.open(path).metrics_path) for path in paths]
    returns = np.array([np.mean(series(r, _RETURN)[1]) for r in records])
    last = {short: [series(r, metric)[1][-1:] for r in records] for metric, short in _LOOKS.items()}
    looks = {k: np.concatenate(v) for k, v in last.items() if all(len(x) for x in v)}
    return ForkArm(name, change.advice, returns, looks)


def _before(subject: Subject) -> float | None:
    steps, values = series(read_metrics(RunDir.open(subject.path).metrics_path), _RETURN)
    known = np.asarray(values)[np.asarray(steps) <= subject.step]
    return float(known[-1]) if len(known) else None
