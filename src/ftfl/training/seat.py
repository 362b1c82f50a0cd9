"""What a run asks of the device, and who answers.

The loop says what one seed does on the host, as a generator of requests; it does not know who
answers them. Alone, a request is answered at once (``Alone``); seeds that are trained together have
theirs answered in one go (``ftfl.training.group``).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator
from typing import Any, Literal, NamedTuple, Protocol, TypeVar

import numpy as np

from ftfl.training.learn import Learner
from ftfl.training.state import RunState

Name = Literal["explore", "act", "mode", "observe", "fit", "learn", "reset_agent"]
STATELESS: tuple[Name, ...] = ("explore", "act", "mode")
"""What leaves the state as it is; the others are given it to consume and return the next one."""
T = TypeVar("T")


class Request(NamedTuple):
    """A function of ``Learner`` to be called on the run's state."""

    name: Name
    argument: Any = None
    """An observation (O,), a transition, or nothing."""


Work = Generator[Request, Any, T]
"""Asks, is sent each answer (actions, metrics or nothing), and ends with a T."""


class Seat(Protocol):
    """Where the device state of one run sits, and who computes on it."""

    learner: Learner

    @property
    def state(self) -> RunState:
        """All of it; may be a copy."""
        ...

    @state.setter
    def state(self, state: RunState) -> None: ...

    def look(self, part: Callable[[RunState], T]) -> T:
        """A small part of the state, to be read on the host."""
        ...

    def answer(self, request: Request) -> Any:
        """Call what was asked for, for this run only: an action, or metrics, or nothing."""
        ...


class Alone:
    """The seat of a run that has a process to itself."""

    def __init__(self, learner: Learner, state: RunState):
        self.learner, self.state = learner, state

    def look(self, part: Callable[[RunState], T]) -> T:
        """A part of the state as it is."""
        return part(self.state)

    def answer(self, request: Request) -> Any:
        """Call what was asked for: an action, or metrics, or nothing."""
        self.state, answer = call(self.learner, self.state, request)
        return answer


def call(learner: Learner, state: RunState, request: Request) -> tuple[RunState, Any]:
    """The state after a request, and the answer: an action, or metrics, or nothing."""
    name, argument = request
    match name:
        case "explore":
            return state, learner.explore(state)
        case "act":
            return state, learner.act(state, argument)
        case "mode":
            return state, learner.mode(state.agent.actor, argument)
        case "observe":
            return learner.observe(state, argument), None
        case "fit":
            return learner.fit(state)
        case "learn":
            return learner.learn(state)
        case "reset_agent":
            return learner.reset_agent(state), None


def asking(name: Name, work: Generator[Any, Any, T]) -> Work[T]:
    """Work that yields arguments of one function only, and is sent arrays."""
    try:
        argument = next(work)
        while True:
            argument = work.send(np.asarray((yield Request(name, argument))))
    except StopIteration as end:
        return end.value


def do(work: Work[T], answer: Callable[[Request], Any]) -> T:
    """Do the work, each request being answered at once."""
    with contextlib.closing(work):
        try:
            request = next(work)
            while True:
                request = work.send(answer(request))
        except StopIteration as end:
            return end.value
