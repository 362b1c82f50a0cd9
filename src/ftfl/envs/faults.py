"""What can go wrong between us and an environment, in one sentence each."""

from __future__ import annotations

import reprlib
import traceback
from typing import Literal

import numpy as np

from ftfl.errors import FtflError, in_a_line

Cause = Literal[
    "action", "observation", "reward", "contract", "simulator", "exception", "hang", "died"
]
"""What broke: the *action* given to the environment is unusable; its *observation* or *reward* is
not finite; it does not keep its *contract* (shapes, types, number of returned values); the
*simulator* reached a state that means nothing; its code raised an *exception*; it *hangs*, that is,
took longer than allowed; or its process *died*."""

NEEDS_RESTART: frozenset[Cause] = frozenset(("exception", "hang", "died"))
"""After these nobody knows what is left of the environment: it must be made anew."""

_DETAILS = 10_000


class Violation(FtflError):
    """What an adapter noticed; the guard turns it into an `EnvFault` that says when and how."""

    def __init__(self, cause: Cause, what: str, details: str = ""):
        self.cause: Cause = cause
        self.details = details
        super().__init__(what)


class EnvFault(FtflError):
    """The environment (or the action sent to it) broke its contract; the transition is void.

    ``seed`` is that of the episode's reset, ``step`` the number of actions sent in it (0: in
    reset), ``action`` the last one in [-1, 1] (None in reset) and ``details`` a traceback, where
    there is one.
    """

    def __init__(
        self,
        task: str,
        cause: Cause,
        what: str,
        seed: int,
        step: int,
        action: np.ndarray | None,
        details: str = "",
    ):
        self.cause: Cause = cause
        self.task, self.seed, self.step = task, seed, step
        self.action, self.details = action, details
        where, history = "reset", f"reset(seed={seed})"
        if action is not None:
            where = f"step {step} of the episode"
            history += f" and the same {step} actions, the last {np.asarray(action).tolist()}"
        super().__init__(f"{task}: {what} (at {where}; to reproduce: {history}).")

    @property
    def needs_restart(self) -> bool:
        """Whether ``restart`` must come before the next ``reset``."""
        return self.cause in NEEDS_RESTART


def shown(value: object) -> str:
    """A value someone else made, on one short line, whatever its ``__repr__`` does."""
    try:
        text = reprlib.repr(value)
    except Exception as error:  # noqa: BLE001 - the user's code, and only a label
        text = f"a {type(value).__name__} whose repr raises {type(error).__name__}"
    return " ".join(text.split())


def full_story(error: BaseException) -> str:
    """The traceback as text, its end if it is very long."""
    return "".join(traceback.format_exception(error))[-_DETAILS:]


def as_violation(error: Exception, where: str) -> Violation:
    """What an environment raised in ``where`` ("reset" or "step"), as a violation."""
    if isinstance(error, Violation):
        return error
    if isinstance(error, FtflError):  # ours, and a sentence already
        return Violation("exception", str(error).rstrip("."), full_story(error))
    return Violation("exception", f"{where} raised {in_a_line(error)}", full_story(error))
