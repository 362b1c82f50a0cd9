"""What sentinels remember of a run, on the device, and how it is told to users.

``ftfl.training.sentinels`` decides what is bad; thresholds and their reasons are in
docs/sentinels.md.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from enum import IntEnum
from typing import Literal

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int


class Quantity(IntEnum):
    """What is watched, in the order of computation; checkpoints hold them by place."""

    # a refit
    MODEL_LOSS = 0
    MODEL_PARAMETERS = 1
    MODEL_HOLDOUT = 2
    DEAD_MEMBER = 3
    # a batch of branches
    NONFINITE_ROWS = 4
    ABSURD_ROWS = 5
    # an agent update
    REPLAY_ROWS = 6
    REWARDS = 7
    CRITIC_TARGET = 8
    CRITIC_LOSS = 9
    CRITIC_PARAMETERS = 10
    ACTOR_LOSS = 11
    ACTOR_PARAMETERS = 12
    TEMPERATURE = 13
    # many agent updates
    Q_VALUES = 14
    ENTROPY = 15


LASTING = (Quantity.Q_VALUES, Quantity.ENTROPY)
_FATAL = np.zeros(len(Quantity), bool)
_FATAL[Quantity.MODEL_LOSS : Quantity.DEAD_MEMBER] = True
_FATAL[Quantity.REPLAY_ROWS : Quantity.Q_VALUES] = True


class Alarms(eqx.Module):
    """When each quantity first went bad, and what its bounds are made of."""

    record: Int[Array, "Q 3"]
    """Per Quantity: agent update (of the model's quantities: refit) and env step at which it first
    went bad, −1: never; then the count of bad updates or refits, of members or synthetic rows."""
    since: Int[Array, "2 2"]
    """Of what is bad only if it lasts, in the order of LASTING: updates done and env step when it
    began; −1: it is not so now."""
    largest_reward: Float[Array, ""]
    """Largest absolute reward of real transitions, as the environment paid it."""
    entropy_value: Float[Array, ""]
    """Value that entropy and fresh networks account for, in the agent's unit of reward; −1: the
    next update measures it."""


def init() -> Alarms:
    """Nothing has happened yet."""
    return Alarms(
        record=jnp.tile(jnp.array([-1, -1, 0], jnp.int32), (len(Quantity), 1)),
        since=jnp.full((len(LASTING), 2), -1, jnp.int32),
        largest_reward=jnp.float32(0),
        entropy_value=jnp.float32(-1),
    )


def note(
    alarms: Alarms,
    first: Quantity,
    count: Int[Array, "n"],
    number: Int[Array, "n"],
    env_step: Int[Array, "n"],
) -> Alarms:
    """Count what went bad among the ``n`` quantities from ``first`` on; what is new is dated."""
    place = slice(first, first + count.shape[0])
    old = alarms.record[place]
    new = (count > 0) & (old[:, 0] < 0)
    rows = [
        jnp.where(new, number, old[:, 0]), jnp.where(new, env_step, old[:, 1]), old[:, 2] + count
    ]  # fmt: skip
    record = alarms.record.at[place].set(jnp.stack(rows, axis=1))
    return dataclasses.replace(alarms, record=record)


def note_first(
    alarms: Alarms,
    first: Quantity,
    bad: Bool[Array, "n M"],
    number: Int[Array, ""],
    env_step: Int[Array, ""],
) -> Alarms:
    """Of a group, raise only what went bad at the earliest moment, then earliest in its order.

    What follows from it is no news, so that a group is raised once. Moment m is ``number + m``.
    """
    size = bad.shape[0]
    known = alarms.record[first : first + size, 0] >= 0
    winner = jnp.argmax(bad.T.reshape(-1)).astype(jnp.int32)
    told = jnp.where(jnp.any(known), known, jnp.arange(size, dtype=jnp.int32) == winner % size)
    count = jnp.where(told, jnp.sum(bad, axis=1, dtype=jnp.int32), 0)
    when = jnp.broadcast_to(number + winner // size, (size,))
    return note(alarms, first, count, when, jnp.broadcast_to(env_step, (size,)))


def raised(alarms: Alarms) -> tuple[Int[Array, ""], Int[Array, ""]]:
    """How many fatal quantities and how many warnings have been raised so far."""
    up = alarms.record[:, 0] >= 0
    return jnp.sum(up & _FATAL, dtype=jnp.int32), jnp.sum(up & ~_FATAL, dtype=jnp.int32)


# --- the host's side ------------------------------------------------------------------------------

_AGENT_SLOWER = "lower sac.critic_learning_rate, sac.actor_learning_rate or sac.updates_per_step"
_MODEL_SLOWER = "lower dynamics.learning_rate or look for absurd values in the observations"
_SENTENCES: dict[Quantity, tuple[str, str]] = {
    Quantity.MODEL_LOSS: (
        "the model's training loss was not finite and no member survived",
        _MODEL_SLOWER,
    ),
    Quantity.MODEL_PARAMETERS: (
        "the model's parameters or Adam moments were not finite",
        _MODEL_SLOWER,
    ),
    Quantity.MODEL_HOLDOUT: (
        "no ensemble member had a finite error on held-out rows",
        "look for absurd values in the observations and rewards",
    ),
    Quantity.DEAD_MEMBER: (
        "an ensemble member was not finite and is no elite until it has been trained anew",
        f"if it happens again and again, {_MODEL_SLOWER}",
    ),
    Quantity.NONFINITE_ROWS: (
        "the model predicted values that were not finite, in rows that were dropped",
        f"shorten rollouts.length, or {_MODEL_SLOWER}",
    ),
    Quantity.ABSURD_ROWS: (
        "the model predicted states farther out than any replay can hold, in rows that were kept",
        "shorten rollouts.length, and read model/skill_over_persistence",
    ),
    Quantity.REPLAY_ROWS: (
        "a sampled transition was not finite",
        "check the environment, and the logged transitions if there are any",
    ),
    Quantity.REWARDS: (
        "a sampled reward was not finite in the agent's unit",
        "check the environment's rewards and sac.reward_scale",
    ),
    Quantity.CRITIC_TARGET: (
        "the critic target (reward and the target critic's next value) was not finite",
        _AGENT_SLOWER,
    ),
    Quantity.CRITIC_LOSS: (
        "the critic loss was not finite",
        f"lower sac.reward_scale, or {_AGENT_SLOWER}",
    ),
    Quantity.CRITIC_PARAMETERS: (
        "the critic's parameters or Adam moments were not finite",
        _AGENT_SLOWER,
    ),
    Quantity.ACTOR_LOSS: ("the actor loss was not finite", _AGENT_SLOWER),
    Quantity.ACTOR_PARAMETERS: (
        "the actor's parameters or Adam moments were not finite",
        _AGENT_SLOWER,
    ),
    Quantity.TEMPERATURE: ("the temperature was not finite", "lower sac.temperature_learning_rate"),
    Quantity.Q_VALUES: (
        "Q stayed far above what rewards and entropy allow",
        "compare rollout/synthetic_reward_mean_reward with the real one, try"
        " sac.critic_layer_norm or lower sac.updates_per_step",
    ),
    Quantity.ENTROPY: (
        "policy entropy stayed far below its target, so that exploration has ended",
        "lower sac.reward_scale or raise sac.temperature_learning_rate",
    ),
}


@dataclass(frozen=True)
class Finding:
    """One quantity that went bad."""

    name: str
    """The quantity, in lower case."""
    severity: Literal["fatal", "warning"]
    first_update: int
    """Agent update, or of the model's quantities refit, at which it first went bad."""
    first_env_step: int
    count: int
    """Bad updates or refits since; of members and synthetic rows how many of them."""
    sentence: str
    """What happened, when, and what to try."""


def fatal(alarms: Alarms) -> bool:
    """Whether a loss or parameter was not finite: one small transfer, once the device is done."""
    return bool((np.asarray(alarms.record)[_FATAL, 0] >= 0).any())


def report(alarms: Alarms) -> list[Finding]:
    """All that went bad, in the order in which it did, so that causes come before consequences."""
    update, step, count = np.asarray(alarms.record).T.tolist()

    def when(quantity: Quantity) -> tuple[int, bool, int, int]:
        # At one step the model is refitted before the agent learns, and each counts by itself.
        of_agent = quantity >= Quantity.NONFINITE_ROWS
        return step[quantity], of_agent, update[quantity], quantity

    return [
        Finding(
            name=quantity.name.lower(),
            severity="fatal" if _FATAL[quantity] else "warning",
            first_update=update[quantity],
            first_env_step=step[quantity],
            count=count[quantity],
            sentence=_sentence(quantity, update[quantity], step[quantity]),
        )
        for quantity in sorted((q for q in Quantity if update[q] >= 0), key=when)
    ]


def _sentence(quantity: Quantity, update: int, step: int) -> str:
    what, advice = _SENTENCES[quantity]
    number = "refit" if quantity < Quantity.NONFINITE_ROWS else "agent update"
    return f"{what} at {number} {update:,} (env step {step:,}): {advice}."
