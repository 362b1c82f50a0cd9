"""All instruments on one run: what could be measured, what follows, and what could not be."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ftfl.errors import FtflError
from ftfl.forensics.audit import Truth, ask, plan, stored_paths
from ftfl.forensics.evidence import Finding, Numbers, Result, by_severity, plain
from ftfl.forensics.instruments.critic import critic_account
from ftfl.forensics.instruments.reward import reward_fidelity
from ftfl.forensics.instruments.rollout import STEPS, Source, rollout_error
from ftfl.forensics.learned import WorldModel
from ftfl.forensics.subject import Subject

_STORED_PATHS = 500


@dataclass(frozen=True)
class Examination:
    """A run, and what the simulator said of it."""

    subject: Subject
    quick: bool
    seconds: float | None
    told: Callable[[int, int], None]

    @cached_property
    def _asked(self) -> Truth | FtflError:
        try:
            return ask(self.subject, plan(self.subject, self.quick), self.seconds, self.told)
        except FtflError as error:
            return error

    @property
    def truth(self) -> Truth:
        """The simulator's answers; raises FtflError where there are none."""
        if isinstance(self._asked, FtflError):
            raise FtflError(str(self._asked))
        return self._asked

    @property
    def has_truth(self) -> bool:
        """Whether the simulator could be asked."""
        return not isinstance(self._asked, FtflError)

    @property
    def model(self) -> WorldModel:
        """The dynamics model; raises FtflError where there is none."""
        if self.subject.model is None:
            raise NoModel(
                "the run has no dynamics model"
                if self.subject.config.dynamics is None
                else f"the dynamics model has not been trained yet at step {self.subject.step}"
            )
        return self.subject.model


class NoModel(FtflError):
    """Not a fault: there is nothing to measure."""


@dataclass(frozen=True)
class Instrument:
    """One measurement, and how it is taken from a run."""

    name: str
    title: str
    measure: Callable[[Examination], Result]


def _reward(x: Examination) -> Result:
    subject, model = x.subject, x.model
    assert subject.config.dynamics is not None
    unseen = subject.unseen
    which = np.arange(len(subject.rewards)) if unseen is None else np.flatnonzero(unseen)
    return reward_fidelity(
        model,
        np.asarray(subject.rows.obs)[which],
        np.asarray(subject.rows.action)[which],
        subject.rewards[which],
        subject.episode[which],
        unseen is not None,
        subject.config.dynamics,
        x.truth if x.has_truth else None,
        terminates=bool(np.asarray(subject.rows.terminated).any()),
    )


def _rollout(x: Examination) -> Result:
    subject, model = x.subject, x.model
    assert subject.config.rollouts is not None
    steps = max(STEPS, subject.config.rollouts.max_length)
    source: Source = "own actions"
    if x.has_truth:
        paths, clusters = [a.path for a in x.truth.answers], x.truth.episode
    else:
        source = "stored actions"
        paths, clusters = stored_paths(subject, _STORED_PATHS, steps)
    return rollout_error(
        model,
        paths,
        clusters,
        np.asarray(subject.rows.obs),
        np.asarray(subject.rows.next_obs),
        subject.spec.obs_names,
        source,
        steps,
    )


def _critic(x: Examination) -> Result:
    subject, truth = x.subject, x.truth
    return critic_account(
        subject.agent,
        [a.path for a in truth.answers],
        [a.noise for a in truth.answers],
        truth.episode,
        subject.model,
        [a.nudges for a in truth.answers],
        largest_reward=float(np.abs(subject.rewards).max()),
    )


INSTRUMENTS: list[Instrument] = [
    Instrument("reward_fidelity", "Reward fidelity", _reward),
    Instrument("rollout_error", "Rollout error", _rollout),
    Instrument("critic_account", "Critic account", _critic),
]


@dataclass(frozen=True)
class Autopsy:
    """What was found in one run."""

    subject: Subject
    results: dict[str, Result]
    """By instrument."""
    unmeasured: dict[str, str]
    """Why an instrument says nothing, by instrument."""
    notes: tuple[str, ...]
    truth: Truth | None

    @cached_property
    def findings(self) -> list[Finding]:
        """Of all instruments, the worst first."""
        return by_severity([f for result in self.results.values() for f in result.findings()])

    def numbers(self) -> dict[str, Numbers]:
        """By instrument."""
        return {name: result.numbers() for name, result in self.results.items()}

    def to_json(self) -> dict[str, Any]:
        """Everything as plain JSON values."""
        subject, config = self.subject, self.subject.config
        return {
            "run": str(subject.path),
            "label": subject.label,
            "task": config.task.name,
            "algo": config.algo,
            "seed": config.seed,
            "step": subject.step,
            "real_rows": len(subject.rewards),
            "damaged_checkpoints": list(subject.damage),
            "states": None if self.truth is None else len(self.truth.answers),
            "states_dropped": None if self.truth is None else self.truth.dropped,
            "states_by": None if self.truth is None else self.truth.method,
            "findings": [finding.to_json() for finding in self.findings],
            "numbers": plain(self.numbers()),
            "not_measured": self.unmeasured,
            "notes": list(self.notes),
        }


def examine(
    subject: Subject,
    quick: bool = False,
    seconds: float | None = None,
    told: Callable[[int, int], None] = lambda done, asked: None,
    instruments: Sequence[Instrument] = tuple(INSTRUMENTS),
) -> Autopsy:
    """Take all measurements that can be taken.

    Args:
        subject: the run.
        quick: fewer states and shorter branches.
        seconds: the simulator is asked no longer than that (if enough states are done).
        told: is called with states done and states asked for.
        instruments: which measurements.
    """
    x = Examination(subject, quick, seconds, told)
    results: dict[str, Result] = {}
    unmeasured: dict[str, str] = {}
    for instrument in instruments:
        try:
            results[instrument.name] = instrument.measure(x)
        except FtflError as error:
            unmeasured[instrument.name] = str(error)
    truth = x.truth if x.has_truth else None
    notes = list(subject.damage) if truth is None else [*subject.damage, *truth.notes]
    if not x.has_truth and "rollout_error" in results:
        notes.append("rollout error was measured on stored actions, for no simulator can be asked")
    return Autopsy(subject, results, unmeasured, tuple(notes), truth)
