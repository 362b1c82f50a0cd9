"""Seeds of one configuration trained in lockstep: one state with a leading seed axis.

Each seed's loop runs as it does alone, up to its next request to the device. Requests of all seeds
that agree are answered by one vmapped call, sharded over the devices that divide the seeds. A seed
that is behind (an episode repeated, a roll-back) goes first, by itself, with what a single run
would compute, until it has caught up: no seed ever waits for, or learns from, another's fault.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ftfl.config import Config
from ftfl.envs.spec import EnvSpec
from ftfl.errors import FtflError
from ftfl.training.learn import Learner, compiled, functions
from ftfl.training.loop import Loop
from ftfl.training.seat import STATELESS, Name, Request, call
from ftfl.training.state import RunState

_SEEDS = "seeds"
_ORDER: tuple[Name, ...] = (
    "mode", "reset_agent", "fit", "learn", "explore", "act", "observe"
)  # fmt: skip
"""Within one environment step, what is asked first. Acting waits for all: a seed whose step was
void acts again before the others' transitions are stored, and has then missed nothing."""
T = TypeVar("T")


def make_group_learner(config: Config, spec: EnvSpec, mesh: Mesh | None = None) -> Learner:
    """``make_learner`` over a leading seed axis; with ``mesh`` each device has its own seeds.

    Between devices nothing is exchanged.
    """

    def over_seeds(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        batched = jax.vmap(function, axis_name=_SEEDS)
        if mesh is not None:
            own = PartitionSpec(_SEEDS)
            batched = jax.shard_map(
                batched, mesh=mesh, in_specs=own, out_specs=own, check_vma=False
            )
        return compiled(batched, name)

    written = functions(config, spec, axis=_SEEDS)
    return Learner(**{name: over_seeds(name, function) for name, function in written.items()})


def mesh_for(seeds: int, devices: Sequence[Any] | None = None) -> Mesh | None:
    """As many devices as divide the seeds evenly; None: one does it all."""
    known = jax.local_devices() if devices is None else devices
    count = max(n for n in range(1, len(known) + 1) if seeds % n == 0)
    return Mesh(np.array(known[:count]), (_SEEDS,)) if count > 1 else None


@dataclass(frozen=True)
class Entry:
    """One seed's value of a batched metric; nobody waits for it before it is read."""

    values: jax.Array
    """Of all seeds, (S,)."""
    lane: int

    def __float__(self) -> float:
        return float(np.asarray(self.values)[self.lane])

    def block_until_ready(self) -> Entry:
        """Wait for the device."""
        self.values.block_until_ready()
        return self


class Lane:
    """The seat of one seed in a group."""

    def __init__(self, group: Group, number: int):
        self.group, self.number = group, number
        self.learner = group.single

    @property
    def state(self) -> RunState:
        """A copy of this seed's part."""
        return self.group.take(self.group.batch, self.number)

    @state.setter
    def state(self, state: RunState) -> None:
        self.group.batch = self.group.put(self.group.batch, self.number, state)

    def look(self, part: Callable[[RunState], T]) -> T:
        """A small part of the state, on the host; of all seeds it is fetched once."""
        return jax.tree.map(lambda x: np.asarray(x)[self.number], part(self.group.batch))

    def answer(self, request: Request) -> Any:
        """What a single run would compute; the state goes back to its place."""
        self.state, answer = call(self.learner, self.state, request)
        return answer


class Group:
    """Loops that train in lockstep, each with its run directory and its end."""

    def __init__(self, loops: Sequence[Loop], devices: Sequence[Any] | None = None):
        """Stack the states of loops that have not run yet.

        Raises:
            FtflError: they are not seeds of one configuration, or their states differ in shape.
        """
        first = loops[0]
        if len({dataclasses.replace(loop.config, seed=0) for loop in loops}) > 1:
            raise FtflError("only seeds of one configuration can be trained together.")
        states = [loop.state for loop in loops]
        if len({str(jax.tree.map(jnp.shape, state)) for state in states}) > 1:
            raise FtflError(
                "these runs hold different numbers of logged rows, and only states of one shape can"
                " be trained together: train them with --apart."
            )
        mesh = mesh_for(len(loops), devices)
        self.single = first.learner
        self.learner = make_group_learner(first.config, first.env.spec, mesh)
        own = None if mesh is None else NamedSharding(mesh, PartitionSpec(_SEEDS))
        self.batch: RunState = jax.jit(
            lambda *parts: jax.tree.map(lambda *x: jnp.stack(x), *parts), out_shardings=own
        )(*states)
        self.take = jax.jit(lambda batch, lane: jax.tree.map(lambda x: x[lane], batch))
        self.put = jax.jit(
            lambda batch, lane, one: jax.tree.map(lambda x, y: x.at[lane].set(y), batch, one),
            donate_argnums=0, out_shardings=own,
        )  # fmt: skip
        self.members = [_Member(self, number, loop) for number, loop in enumerate(loops)]

    def run(self, ended: Callable[[int, Exception | None], None]) -> None:
        """Train each seed to its end; ``ended`` hears of each, and of what ended it early."""
        living = self.members
        for member in living:
            member.go_on(None)
        while living := self._still(living, ended):
            front = min(member.place for member in living)
            self._answer([m for m in living if m.place == front], len(living))

    @staticmethod
    def _still(
        members: list[_Member], ended: Callable[[int, Exception | None], None]
    ) -> list[_Member]:
        for member in members:
            if member.request is None:
                ended(member.number, member.error)
        return [member for member in members if member.request is not None]

    def _answer(self, asking: list[_Member], living: int) -> None:
        name = asking[0].asked.name
        if name not in STATELESS and len(asking) < living:
            for member in asking:
                member.go_on(member.loop.seat.answer(member.asked))
            return
        # Seeds that have ended, or do not ask, compute what nobody looks at.
        arguments = [asking[0].asked.argument] * len(self.members)
        for member in asking:
            arguments[member.number] = member.asked.argument
        stacked = jax.tree.map(lambda *x: np.stack(x), *arguments)
        self.batch, answer = call(self.learner, self.batch, Request(name, stacked))
        if name in STATELESS:
            answer = np.asarray(answer)
        for member in asking:
            member.go_on(_of(member.number, answer))


def _of(lane: int, answer: Any) -> Any:
    """One seed's part of what was answered: an action, metrics or nothing."""
    if isinstance(answer, dict):
        return {name: Entry(values, lane) for name, values in answer.items()}
    return None if answer is None else answer[lane]


class _Member:
    """One loop's work, and what it asks for now."""

    def __init__(self, group: Group, number: int, loop: Loop):
        self.number, self.loop = number, loop
        loop.seat = Lane(group, number)
        self._work = loop.work()
        self.request: Request | None = None
        self.error: Exception | None = None

    @property
    def asked(self) -> Request:
        """The request of a member that has not ended."""
        assert self.request is not None
        return self.request

    @property
    def place(self) -> tuple[int, int]:
        """How far it is: environment steps, and where within one."""
        return self.loop.progress.env_steps, _ORDER.index(self.asked.name)

    def go_on(self, answer: Any) -> None:
        """Up to the next request, or the end."""
        try:
            self.request = self._work.send(answer)
        except StopIteration:
            self.request = None
        except Exception as error:  # noqa: BLE001 - whatever ends one seed ends no other
            self.request, self.error = None, error
