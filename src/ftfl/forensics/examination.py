"""A run under examination: what instruments take their measurements from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import jax
import numpy as np

from ftfl.config import DynamicsConfig
from ftfl.dynamics.predict import DynamicsState
from ftfl.errors import FtflError
from ftfl.forensics.audit import Truth, ask, plan
from ftfl.forensics.forking import ForkPlan
from ftfl.forensics.learned import WorldModel
from ftfl.forensics.subject import Subject
from ftfl.types import Key

SEED = 0
"""Of whatever an instrument draws."""

Told: TypeAlias = Callable[[str, int, int], None]
"""(what, how many are done, how many there are to do); 0 of 0 where that is not known."""


def nobody(what: str, done: int, asked: int) -> None:
    """Is told nothing."""


@dataclass(frozen=True)
class Examination:
    """A run, and what the simulator said of it."""

    subject: Subject
    quick: bool
    seconds: float | None
    told: Told
    forks: ForkPlan | None = None
    """How to fork the run; None: not at all."""

    @cached_property
    def _asked(self) -> Truth | FtflError:
        try:
            return ask(
                self.subject,
                plan(self.subject, self.quick),
                self.seconds,
                lambda done, asked: self.told("states the simulator was asked about", done, asked),
            )
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
    def config(self) -> DynamicsConfig:
        """Of the dynamics model; raises FtflError where the run has none."""
        if self.subject.config.dynamics is None:
            raise FtflError("the run has no dynamics model")
        return self.subject.config.dynamics

    @property
    def model(self) -> WorldModel:
        """The dynamics model; raises FtflError where there is none yet."""
        model = self.subject.model if self.config else None
        if model is None:
            raise FtflError(f"the dynamics model is not trained yet at step {self.subject.step}")
        return model

    @property
    def state(self) -> DynamicsState:
        """The model's own state; raises as ``model``."""
        assert self.model is not None
        assert self.subject.state.dynamics is not None
        return self.subject.state.dynamics

    @property
    def unseen(self) -> tuple[np.ndarray, bool]:
        """Indices of rows that the model never trained on, or of all rows; and whether it is so."""
        unseen = self.subject.unseen
        if unseen is None or not unseen.any():
            return np.arange(len(self.subject.rewards)), False
        return np.flatnonzero(unseen), True

    @property
    def key(self) -> Key:
        """For what an instrument draws; no stream of the run."""
        return jax.random.key(SEED)
