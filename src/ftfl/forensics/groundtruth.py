"""What the simulator would have done: real states of a run, visited again exactly.

Every episode of a run was reset by a seed derived from (run seed, episode number), and all its
actions are in the replay. So an episode is played again and, at chosen rows, branched off: a full
copy of the simulator and of everything around it is taken (`envs.snapshots`), and where that is not
exact, the way from the reset is walked again. Training is never touched.

Every state proves itself before it is used: the simulator is led astray, taken back, and given the
stored action; observation, reward and end must be the stored ones bit for bit. States that fail are
left out and counted.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, TypeAlias, TypeVar

import numpy as np

from ftfl.envs.guard import EnvFault
from ftfl.envs.make import make_task
from ftfl.envs.snapshots import Snapshot
from ftfl.envs.spec import Environment
from ftfl.errors import FtflError
from ftfl.forensics.branches import Moment
from ftfl.forensics.episodes import Episode
from ftfl.forensics.subject import Subject

MINIMUM_STATES = 20
"""Fewer usable states give no verdict: a share of 20 has a 95 % interval of ± 0.22 at best."""
_ASTRAY = 3  # steps that lead away from a state before it is checked
_DOMAIN = 1

T = TypeVar("T")
Method: TypeAlias = Literal["copies of the simulator", "replays from the reset"]


@dataclass(frozen=True)
class Visit(Generic[T]):
    """What was found at the states that proved themselves."""

    results: tuple[T, ...]
    rows: np.ndarray
    """Row of the replay of each result, (n,)."""
    dropped: dict[str, int]
    """Rows that could not be used, by reason."""
    method: Method
    notes: tuple[str, ...]

    def require(self, least: int = MINIMUM_STATES) -> None:
        """Raise FtflError where too few states are left for a verdict."""
        if len(self.results) >= least:
            return
        asked = len(self.results) + sum(self.dropped.values())
        reasons = "; ".join(f"{count} {reason}" for reason, count in self.dropped.items())
        raise FtflError(
            f"only {len(self.results)} of {asked} real states could be restored exactly, and a"
            f" verdict needs {least}: {reasons or 'the run has no more whole episodes'}."
        )


def choose_rows(subject: Subject, states: int, episodes: int, seed: int = 0) -> np.ndarray:
    """Rows to visit, spread evenly over whole episodes that are themselves spread over the run.

    Episodes are picked by rows, long ones more often, so that the states stand for the replay that
    synthetic rollouts start from; states of few episodes are cheap, as one walk visits them all.
    """
    whole = [i for i, e in enumerate(subject.episodes) if e.whole]
    rows = np.flatnonzero(np.isin(subject.episode, whole))
    if len(rows) == 0:
        return rows
    picked = subject.episode[rows[_spread(len(rows), episodes, seed)]]
    rows = np.flatnonzero(np.isin(subject.episode, picked))
    return rows[_spread(len(rows), states, seed + 1)]


def visit(
    subject: Subject,
    rows: Sequence[int] | np.ndarray,
    work: Callable[[Moment], T],
    seconds: float | None = None,
    told: Callable[[int, int], None] = lambda done, asked: None,
) -> Visit[T]:
    """Bring back each row's state and do ``work`` there.

    Args:
        subject: the run.
        rows: rows of ``subject.rows`` whose episodes are whole.
        work: plays branches from the state it is given, and returns what it found.
        seconds: no state is begun after so long (counted as dropped), once ``MINIMUM_STATES`` are
            done.
        told: is called with rows done and rows asked for.

    Raises:
        FtflError: the environment may not be replayed.
    """
    spec = subject.spec
    if subject.absent is not None:
        raise FtflError(f"the environment cannot be made here: {subject.absent}")
    if not spec.replayable:
        raise FtflError(
            f"{spec.task} is not declared replayable, so no simulator can say what would have"
            " happened: if the same seed and actions give the same bits, and stored actions may be"
            " played again, set replayable = True on it."
        )
    walk = _Walk(subject, seconds, told, len(rows))
    with contextlib.closing(make_task(subject.config.task)) as env:
        # In random order: what is left when time runs out must stand for the whole run.
        indices = np.unique(subject.episode[np.asarray(rows, int)])
        for index in np.random.default_rng(_DOMAIN).permutation(indices).tolist():
            mine = [int(r) for r in rows if subject.episode[r] == index]
            walk.through(env, subject.episodes[index], mine, work)
    order = np.argsort(walk.rows, kind="stable")
    return Visit(
        tuple(walk.results[i] for i in order), np.array(walk.rows, int)[order],
        dict(walk.dropped), walk.method, tuple(walk.notes),
    )  # fmt: skip


class _NotExact(Exception):
    """A copy of the simulator turned out not to hold everything."""


class _Walk(Generic[T]):
    """Goes through episodes, and keeps what was found and what was not."""

    def __init__(
        self,
        subject: Subject,
        seconds: float | None,
        told: Callable[[int, int], None],
        asked: int,
    ):
        self.subject, self.told, self.asked = subject, told, asked
        self.deadline = None if seconds is None else time.monotonic() + seconds
        self.results: list[T] = []
        self.rows: list[int] = []
        self.dropped: Counter[str] = Counter()
        self.method: Method = "copies of the simulator"
        self.notes: list[str] = []

    def through(
        self, env: Environment, episode: Episode, rows: list[int], work: Callable[[Moment], T]
    ) -> None:
        """Visit rows of one episode."""
        found = len(self.results)
        try:
            self._through(env, episode, sorted(rows), work)
        except _NotExact:
            del self.results[found:], self.rows[found:]
            self.method = "replays from the reset"
            self.notes.append(
                "copies of the environment did not hold all of its state, so branches were"
                " replayed from the reset of their episode"
            )
            self._through(env, episode, sorted(rows), work)

    def _through(
        self, env: Environment, episode: Episode, rows: list[int], work: Callable[[Moment], T]
    ) -> None:
        seed = self._seed_of(env, episode)
        if seed is None:
            return self._drop("whose episode began differently from every reset of this run", rows)
        wanted = set(rows)
        for row in range(episode.start, rows[-1] + 1):
            repeated = True
            if row in wanted:
                if self._late():
                    return self._drop("left out for want of time", [r for r in rows if r >= row])
                repeated = self._at(env, episode, seed, row, work)
            if not (repeated and self._step_matches(env, row)):
                copied = self.method == "copies of the simulator"
                if copied and self._walk_matches(env, episode, seed, row):
                    raise _NotExact
                why = "where the simulator did not repeat the run (other versions, other hardware)"
                return self._drop(why, [r for r in rows if r >= row])
        return None

    def _at(
        self,
        env: Environment,
        episode: Episode,
        seed: int,
        row: int,
        work: Callable[[Moment], T],
    ) -> bool:
        """Prove the state of ``row``, work there, and leave the environment in it."""
        rows, unit = self.subject.rows, self.subject.unit
        if self.method == "copies of the simulator":
            restore = Snapshot(env).restore
        else:
            prefix = rows.action[episode.start : row]

            def restore() -> None:
                env.reset(seed)
                for action in prefix:
                    env.step(np.asarray(action))

        moment = Moment(row, np.asarray(rows.obs[row]), unit, env, restore)
        generator = np.random.default_rng((row, _DOMAIN))
        try:
            moment.play(lambda t, o: generator.uniform(-1, 1, env.spec.act_dim), _ASTRAY)
            restore()
            if not self._step_matches(env, row):
                return False
            result = work(moment)
            restore()
        except EnvFault:  # of a walk that is known to be possible
            return False
        self.results.append(result)
        self.rows.append(row)
        self._tell()
        return True

    def _seed_of(self, env: Environment, episode: Episode) -> int | None:
        first = np.asarray(self.subject.rows.obs[episode.start])
        for seed in episode.seeds:
            with contextlib.suppress(EnvFault):
                if _same(env.reset(seed), first):
                    return seed
        return None

    def _walk_matches(self, env: Environment, episode: Episode, seed: int, row: int) -> bool:
        """Whether the record can be repeated up to ``row`` at all, without any copy."""
        with contextlib.suppress(EnvFault):
            env.reset(seed)
            return all(self._step_matches(env, r) for r in range(episode.start, row + 1))
        return False

    def _step_matches(self, env: Environment, row: int) -> bool:
        """Take the stored action; whether it leads to what is stored."""
        stored = self.subject.rows
        try:
            step = env.step(np.asarray(stored.action[row]))
        except EnvFault:
            return False
        return (
            _same(step.obs, np.asarray(stored.next_obs[row]))
            and _same(np.float32(step.reward), np.asarray(stored.reward[row]))
            and step.terminated == bool(stored.terminated[row])
        )

    def _late(self) -> bool:
        late = self.deadline is not None and time.monotonic() > self.deadline
        return late and len(self.results) >= MINIMUM_STATES

    def _drop(self, reason: str, rows: Sequence[int]) -> None:
        self.dropped[reason] += len(rows)
        self._tell()

    def _tell(self) -> None:
        self.told(len(self.rows) + sum(self.dropped.values()), self.asked)


def _same(a: np.ndarray | np.generic, b: np.ndarray) -> bool:
    return a.shape == b.shape and a.tobytes() == b.tobytes()


def _spread(total: int, count: int, seed: int) -> np.ndarray:
    """``count`` different indices below ``total``, one drawn from each of equal stretches."""
    if count >= total:
        return np.arange(total)
    edges = np.linspace(0, total, count + 1).astype(int)
    return np.random.default_rng((seed, _DOMAIN)).integers(edges[:-1], edges[1:])
