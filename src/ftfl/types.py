"""Data that flows between rooms: transitions, batches and the shapes they have.

Shape letters used in annotations everywhere: ``B`` batch rows, ``O`` observation dimensions,
``A`` action dimensions, ``E`` ensemble members, ``D`` model output dimensions (O + 1 with a
learned reward), ``N`` stored rows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray

Key: TypeAlias = PRNGKeyArray
Metrics: TypeAlias = dict[str, Array]
"""Scalars by registered metric name (see ``ftfl.store.metrics``)."""

TerminationFn: TypeAlias = Callable[
    [Float[Array, "*B O"], Float[Array, "*B A"], Float[Array, "*B O"]], Bool[Array, "*B"]
]
"""``(obs, action, next_obs) -> terminated``; pure, traceable by JAX, any leading batch axes."""

RewardFn: TypeAlias = Callable[
    [Float[Array, "*B O"], Float[Array, "*B A"], Float[Array, "*B O"]], Float[Array, "*B"]
]
"""``(obs, action, next_obs) -> reward`` in the unit the environment pays; same rules."""


@runtime_checkable  # tests check annotations at run time
class View(Protocol):
    """What an agent sees of an observation: one pure function of it.

    Replay, model and rollouts hold the whole observation; actor and critics look at it through
    this. Applies to NumPy arrays and to JAX's, with any leading axes. Hashable, and equal by value:
    it is part of a network's structure.
    """

    @property
    def dim(self) -> int:
        """Number of entries the agent sees."""
        ...

    def __call__(self, obs: Any) -> Any:
        """Map (..., O) to (..., dim)."""
        ...


class Transition(NamedTuple):
    """One step, or a batch of steps along leading axes.

    ``terminated`` stops bootstrapping; a time limit (``truncated``) never does, which is why a
    transition does not carry it.
    """

    obs: Float[Array, "*B O"]
    action: Float[Array, "*B A"]
    reward: Float[Array, "*B"]
    next_obs: Float[Array, "*B O"]
    terminated: Bool[Array, "*B"]


class Step(NamedTuple):
    """What an environment answers to one action (host side, NumPy)."""

    obs: np.ndarray
    """float32, shape (O,)."""
    reward: float
    terminated: bool
    """The MDP ended: the value of ``obs`` is zero."""
    truncated: bool
    """The clock ran out: the value of ``obs`` still counts."""
