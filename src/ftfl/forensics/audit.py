"""The counterfactual audit: what the simulator answers from real states of a run.

Synthetic transitions start from real states, so the simulator can say what would have happened.
One walk through the run's episodes collects all that instruments ask of it: single steps with many
actions, long branches under the policy, and pairs of branches that differ in one action.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ftfl.forensics.branches import End, Moment, Path
from ftfl.forensics.groundtruth import Method, choose_rows, visit
from ftfl.forensics.learned import single_act
from ftfl.forensics.subject import Subject

NEGLIGIBLE = 1e-3
"""A branch is long enough once its discount γ^T is this small."""
LEAST_HORIZON, MOST_HORIZON = 500, 2_000
NUDGE = 0.05
"""Half the distance between the two actions of a difference; actions lie in [−1, 1]."""
REPLICATES = 2
_DOMAIN = 2


@dataclass(frozen=True)
class Plan:
    """How much is asked of the simulator."""

    states: int
    episodes: int
    """Episodes the states lie in, which is what intervals rest on."""
    actions: int
    """Single steps from each state: the first half with the policy's draws, the rest uniform."""
    horizon: int
    """Steps of the long branch from each state."""
    nudged_states: int
    """States at which the action is nudged in every direction."""
    nudged_steps: int
    """Steps of each nudged branch."""


class Nudge(NamedTuple):
    """Two branches that share their noise and differ in one entry of the first action."""

    plus: Path
    minus: Path


class Nudges(NamedTuple):
    """The action of one state nudged in every direction, the policy going on with one noise."""

    noise: np.ndarray
    """(steps + 1, A): what the policy drew; its first row is not used."""
    entries: tuple[Nudge, ...]
    """One for each entry of the action."""


@dataclass(frozen=True)
class Answers:
    """What the simulator said from one state."""

    obs: np.ndarray
    """(O,)"""
    action: np.ndarray
    """(M, A): the policy's draws first."""
    reward: np.ndarray
    """(M,) in the task's own unit; NaN where the simulator broke."""
    next_obs: np.ndarray
    """(M, O)"""
    path: Path
    """The policy's own branch; its first action is the first of ``action``."""
    noise: np.ndarray
    """(horizon + 1, A): what the policy drew at each step of the branch, and one more."""
    nudges: tuple[Nudges, ...]
    """Of the branch's first action, `REPLICATES` times with noises of their own: what they have in
    common is the truth, the rest is chance. Empty where no action was nudged."""


@dataclass(frozen=True)
class Truth:
    """The answers from all usable states of a run."""

    answers: tuple[Answers, ...]
    episode: np.ndarray
    """Index of the episode of each state, (n,): states of one episode depend on each other."""
    own: int
    """Of the single steps, how many are the policy's."""
    method: Method
    dropped: dict[str, int]
    notes: tuple[str, ...]


def plan(subject: Subject, quick: bool) -> Plan:
    """Enough for intervals worth reading; ``quick`` for a first look."""
    discount = subject.config.sac.discount
    needed = math.ceil(math.log(NEGLIGIBLE) / math.log(discount)) if discount > 0 else 1
    horizon = min(needed, LEAST_HORIZON if quick else MOST_HORIZON)
    if quick:
        return Plan(60, 15, 16, horizon, nudged_states=20, nudged_steps=20)
    return Plan(200, 40, 16, horizon, nudged_states=60, nudged_steps=20)


def ask(
    subject: Subject,
    plan: Plan,
    seconds: float | None = None,
    told: Callable[[int, int], None] = lambda done, asked: None,
) -> Truth:
    """Ask the simulator; equal arguments give equal answers (but for ``seconds``, see `visit`).

    Raises:
        FtflError: the environment may not be replayed, or too few states could be restored.
    """
    rows = choose_rows(subject, plan.states, plan.episodes)
    every = max(1, len(rows) // plan.nudged_states) if plan.nudged_states else len(rows) + 1
    nudged = {int(row) for row in rows[::every]}
    act = single_act(subject.state.agent, subject.config)

    def work(moment: Moment) -> Answers:
        return _ask_one(moment, act, plan, moment.row in nudged, subject)

    found = visit(subject, rows, work, seconds, told)
    found.require()
    return Truth(
        found.results,
        subject.episode[found.rows],
        plan.actions // 2,
        found.method,
        found.dropped,
        found.notes,
    )


def stored_paths(subject: Subject, count: int, steps: int) -> tuple[list[Path], np.ndarray]:
    """What was really done, as branches: all there is where no simulator can be asked.

    Returns at most ``count`` branches of at most ``steps`` neighbouring rows, spread evenly over
    the replay, and the episode of each (−1: logged rows).
    """
    rows, total = subject.rows, len(subject.rewards)
    obs, next_obs = np.asarray(rows.obs), np.asarray(rows.next_obs)
    action, terminated = np.asarray(rows.action), np.asarray(rows.terminated)
    follows = np.append((obs[1:] == next_obs[:-1]).all(axis=1) & ~terminated[:-1], False)
    follows &= subject.episode == np.append(subject.episode[1:], -2)
    starts = np.unique(np.linspace(0, total - 1, min(count, total)).astype(int))
    paths = []
    for start in starts.tolist():
        stop = start + 1
        while stop - start < steps and follows[stop - 1]:
            stop += 1
        seen = np.concatenate([obs[start:stop], next_obs[stop - 1 : stop]])
        end: End = "terminated" if terminated[stop - 1] else "going on"
        paths.append(Path(seen, action[start:stop], subject.rewards[start:stop], end))
    return paths, subject.episode[starts]


def _ask_one(
    moment: Moment,
    act: Callable[[np.ndarray, np.ndarray], np.ndarray],
    plan: Plan,
    nudged: bool,
    subject: Subject,
) -> Answers:
    size = subject.spec.act_dim
    generator = np.random.default_rng((moment.row, _DOMAIN))
    noise = generator.standard_normal((plan.horizon + 1, size)).astype(np.float32)
    path = moment.play(lambda t, obs: act(obs, noise[t]), plan.horizon)
    first = act(moment.obs, noise[0])
    own = plan.actions // 2
    draws = generator.standard_normal((own - 1, size)).astype(np.float32)
    action = np.concatenate([
        first[None],
        np.array([act(moment.obs, draw) for draw in draws]).reshape(-1, size),
        generator.uniform(-1, 1, (plan.actions - own, size)).astype(np.float32),
    ])  # fmt: skip
    reward = np.full(len(action), np.nan)
    next_obs = np.full((len(action), len(moment.obs)), np.nan, np.float32)
    for i, single in enumerate(action):
        step = moment.play(lambda t, obs, a=single: a, 1)
        if step.steps:
            reward[i], next_obs[i] = step.reward[0], step.obs[1]

    def nudged_by(entry: int, by: float, drawn: np.ndarray) -> Path:
        moved = first.copy()
        moved[entry] = np.clip(moved[entry] + by, -1, 1)
        return moment.play(lambda t, o: act(o, drawn[t]) if t else moved, plan.nudged_steps)

    def nudges() -> Nudges:
        drawn = generator.standard_normal((plan.nudged_steps + 1, size)).astype(np.float32)
        pairs = ((nudged_by(i, NUDGE, drawn), nudged_by(i, -NUDGE, drawn)) for i in range(size))
        return Nudges(drawn, tuple(Nudge(*pair) for pair in pairs))

    repeated = tuple(nudges() for _ in range(REPLICATES if nudged else 0))
    return Answers(moment.obs, action, reward, next_obs, path, noise, repeated)
