"""Attribution: which single change gives back what a model lost, on one replay.

All four target cells and each door alone are trained on the same rows for the same number of
updates, and measured on rows none of them trained on. It says what the *model* gains on these
rows; whether the agent gains is for a paired `ftfl fork` to say.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ftfl.config import DynamicsConfig
from ftfl.dynamics.predict import DynamicsState
from ftfl.errors import unknown
from ftfl.forensics.doors import AS_IS, CELLS, GIVEN, TO_CELLS, Changes, doors, flags
from ftfl.forensics.evidence import Estimate, Finding, Numbers, mean_estimate
from ftfl.forensics.refits import elect, predictions, scores, train, trains_alike
from ftfl.forensics.rows import held_apart, ring_of, thinned
from ftfl.types import RewardFn, Transition

_TEST_ROWS = 5_000
LOST = 0.05
"""A gain below this is not called one: refits of one model differ by about as much between seeds
on the unit dial (benchmarks/unit_dial/results/doors.csv: 0.57 to 0.68 at 2⁻¹⁰)."""
SEEN = 0.01
"""Held-out rewards with a smaller share of all rewards' variance judge nothing: R² is counted
against that variance, and what the model expects of rare rewards is then error without end."""
AS_GOOD = 0.9
"""A door with this share of the best door's gain is named beside it."""
RULE = (
    "the largest gain in what draws from the model are worth (below 0 counts as 0), over paired"
    f" seeds, of those whose 95 % interval (not widened for having picked the best of all doors)"
    f" excludes 0 and that are at least {LOST}; it is a failure where more"
    " than half of what is there after the change was lost before"
)


@dataclass(frozen=True)
class Arm:
    """One refit, changed in one thing; arrays have one row a seed."""

    name: str
    changes: Changes
    reward: np.ndarray
    """(S,): R² of drawn rewards; NaN where held-out rewards hardly vary (``SEEN``)."""
    reward_member: np.ndarray  # of a member's mean
    skill: np.ndarray
    """(S, O): of drawn channels over persistence; NaN: never moves; −∞: the refit diverged."""
    skill_member: np.ndarray
    reward_line: np.ndarray
    """(S, 3): ρ, b and noise of drawn rewards, r̂ = r̄ + b + ρ (r − r̄) + noise; NaN as ``reward``."""

    @property
    def reward_use(self) -> np.ndarray:
        """(S,): R² of drawn rewards, where less than nothing counts as nothing."""
        return np.clip(self.reward, 0.0, 1.0)

    @property
    def state_use(self) -> np.ndarray:
        """(S,): the same for skill, averaged over channels that move."""
        moving = ~np.isnan(self.skill).any(axis=0)
        if not moving.any():
            return np.full(self.skill.shape[0], np.nan)
        return np.clip(self.skill[:, moving], 0.0, 1.0).mean(axis=1)

    def numbers(self) -> Numbers:
        """Everything, by name."""
        finite = bool(np.isfinite(self.reward).all())
        return {
            "changes": dict(self.changes),
            "reward_r2_drawn": mean_estimate(self.reward) if finite else None,
            "reward_r2_member": mean_estimate(self.reward_member) if finite else None,
            "reward_use": mean_estimate(self.reward_use) if finite else None,
            **{
                f"reward_{name}": mean_estimate(self.reward_line[:, i]) if finite else None
                for i, name in enumerate(("slope", "shift", "noise"))
            },
            "state_use": mean_estimate(np.nan_to_num(self.state_use)),
            "skill_drawn": self.skill.mean(axis=0).tolist(),
            "skill_member": self.skill_member.mean(axis=0).tolist(),
        }


@dataclass(frozen=True)
class Attribution:
    """The result of `attribution`."""

    base: Arm
    cells: tuple[Arm, ...]
    doors: tuple[Arm, ...]
    names: tuple[str, ...]
    updates: int
    seeds: tuple[int, ...]
    seen: float = 1.0
    """Variance of held-out rewards over that of all; 0 for a constant reward."""

    def gains(self, what: str) -> dict[str, Estimate]:
        """By door, what it gives back of ``reward`` or ``state``, best first; over paired seeds."""
        before = _use(self.base, what)
        if not np.isfinite(before).all():
            return {}
        found = {arm.name: mean_estimate(_use(arm, what) - before) for arm in self.doors}
        return dict(sorted(found.items(), key=lambda item: -item[1].value))

    def numbers(self) -> Numbers:
        """Everything, by name."""
        return {
            "names": list(self.names),
            "updates": self.updates,
            "seeds": list(self.seeds),
            "held_out_reward_variance_share": self.seen,
            "as_it_is": self.base.numbers(),
            "cells": {arm.name: arm.numbers() for arm in self.cells},
            "doors": {arm.name: arm.numbers() for arm in self.doors},
            "reward_gain": self.gains("reward"),
            "state_gain": self.gains("state"),
        }

    def findings(self) -> list[Finding]:
        """The door that restores most, for the reward and for the state."""
        return [*self._unseen(), *(f for what in ("reward", "state") for f in self._finding(what))]

    def _unseen(self) -> list[Finding]:
        if self.seen >= SEEN:
            return []
        return [
            Finding(
                "reward-not-judged", "info",
                f"rewards of the held-out stretches of time have {self.seen:.2g} of the variance of"
                " all rewards, so no refit can be judged by the reward.",
                {"held_out_variance_share": self.seen},
                f"a share below {SEEN:g}: nothing to explain, or a few rewards in one stretch",
                "examine a later checkpoint, with rewards in more of its episodes",
            )
        ]  # fmt: skip

    def _finding(self, what: str) -> list[Finding]:
        gains = self.gains(what)
        if not gains:
            return []
        before = mean_estimate(_use(self.base, what))
        given = gains.pop(GIVEN, None)
        clear = {name: g for name, g in gains.items() if g.value >= LOST and g.above(0.0)}
        best, gain = next(iter((clear or gains).items()))
        noun = "reward's R²" if what == "reward" else "state's skill"
        changes = {arm.name: arm.changes for arm in self.doors}
        known, remedy = "", "look at data and capacity: more steps, --algo ftfl-tuned"
        if what == "reward" and given is not None:
            known = f" The task's own reward function gives {before.value + given.value:.2g}."
            remedy = flags(changes[GIVEN])
        together = self._two_changes(what, gain.value if clear else 0.0)
        if not clear:
            return together or [
                Finding(
                    f"no-door-restores-{what}",
                    "info",
                    f"no single change improves the {noun} of {before.value:.2g} clearly (best:"
                    f" {best}, {gain.value:+.2g}).{known}",
                    {"as_it_is": before, "best_gain": gain},
                    RULE,
                    f"if it is low: {remedy}",
                )
            ]
        after = before.value + gain.value
        others = {name: g for name, g in gains.items() if name != best}
        return [
            Finding(
                f"{what}-lost-by-{best}",
                "failure" if gain.value > 0.5 * max(after, 1e-9) else "warning",
                f"changing {best} alone lifts the {noun} from {before.value:.2g} to {after:.2g}"
                f"{_rest(others, clear, AS_GOOD * gain.value)}.{known}",
                {"as_it_is": before, "gain": gain}
                | {f"gain_{name}": g for name, g in list(others.items())[:3]},
                RULE,
                flags(changes[best]),
            ),
            *together,
        ]

    def _two_changes(self, what: str, best_gain: float) -> list[Finding]:
        """A cell that is clearly better than any single door."""
        before = _use(self.base, what)
        gains = {cell.name: mean_estimate(_use(cell, what) - before) for cell in self.cells}
        name, gain = max(gains.items(), key=lambda item: item[1].value)
        if not gain.above(best_gain + LOST):
            return []
        return [
            Finding(
                f"{what}-needs-both-repairs",
                "warning",
                f"the cell ({name}) gains {gain.value:.2g}, the best clear single change"
                f" {best_gain:.2g}.",
                {"gain": gain, "best_single_gain": best_gain},
                f"the whole 95 % interval lies {LOST} above the best single change",
                flags(CELLS[name]),
            )
        ]


def attribution(
    rows: Transition,
    config: DynamicsConfig,
    updates: int,
    seeds: Sequence[int] = (0, 1, 2),
    names: tuple[str, ...] = (),
    reward_fn: RewardFn | None = None,
    only: Sequence[str] | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> Attribution:
    """Refit the model as it is, all cells, and each door alone.

    Args:
        rows: transitions in the order they happened, at least 100; a fifth of them, in stretches of
            time, is tested on and never trained on.
        config: the model whose losses are to be attributed.
        updates: of every refit.
        seeds: of weights and minibatches; the same for every arm.
        names: of observation channels; default ``obs[i]``.
        reward_fn: the task's known reward, which adds the door ``given-reward``.
        only: names of doors, instead of all; those that lead from cell to cell come for nothing
            and are always there.
        progress: called with (arm, refits done, refits in all) before every refit.

    Raises:
        FtflError: too few rows, or a door that is not there.
    """
    known, test = held_apart(rows)
    test = thinned(test, _TEST_ROWS)
    ring = ring_of(known)
    variance = float(np.var(np.asarray(rows.reward, np.float64)))
    seen = float(np.var(np.asarray(test.reward, np.float64))) / variance if variance > 0 else 0.0
    there = doors(config, variance, reward_fn is not None)
    for name in only or ():
        if name not in there:
            raise unknown("door", name, there)
    wanted = [name for name in there if only is None or name in only or name in TO_CELLS]
    arms: dict[str, Changes] = {AS_IS: {}, **CELLS, **{name: there[name] for name in wanted}}
    configs = {name: dataclasses.replace(config, **changes) for name, changes in arms.items()}
    base: dict[int, DynamicsState] = {}
    total, done = sum(_trains(c, config) for c in set(configs.values())) * len(seeds), 0
    found: dict[DynamicsConfig, tuple[np.ndarray, ...]] = {}
    for name, changed in configs.items():
        if changed in found:  # the cell it is in, and doors that lead from one cell to another
            continue
        told = []
        for seed in seeds:
            if _trains(changed, config):
                if progress is not None:
                    progress(name, done, total)
                done += 1
                state = train(ring, changed, seed, updates)
                if changed == config:
                    base[seed] = state
            else:
                state = base[seed]
            state = elect(state, ring, changed, seed)
            predicted = predictions(state, test, changed, reward_fn)
            told.append(scores(predicted, np.asarray(test.obs)))
        drawn, member, line = (np.array(x) for x in zip(*told, strict=True))
        if seen < SEEN:
            drawn[:, -1] = member[:, -1] = line[:] = np.nan
        found[changed] = (drawn[:, -1], member[:, -1], drawn[:, :-1], member[:, :-1], line)

    def arm(name: str) -> Arm:
        return Arm(name, arms[name], *found[configs[name]])

    size = test.obs.shape[1]
    return Attribution(
        arm(AS_IS),
        tuple(map(arm, CELLS)),
        tuple(map(arm, wanted)),
        names or tuple(f"obs[{i}]" for i in range(size)),
        updates,
        tuple(seeds),
        seen,
    )


def _trains(changed: DynamicsConfig, base: DynamicsConfig) -> bool:
    """Whether this arm needs members of its own; the base comes first and lends its own."""
    return changed == base or not trains_alike(changed, base)


def _use(arm: Arm, what: str) -> np.ndarray:
    return arm.reward_use if what == "reward" else arm.state_use


def _rest(others: Mapping[str, Estimate], clear: Collection[str], good: float) -> str:
    """What the best door's sentence says of all others, which come best first."""
    alike = [name for name, gain in others.items() if name in clear and gain.value >= good]
    if alike:
        return f"; as good: {', '.join(alike)}"
    name, gain = next(iter(others.items()), ("", None))
    if gain is None or gain.value < LOST:
        return f"; any other door gains less than {LOST:g}"
    return f"; next: {name}, {gain.value:+.2g}" + ("" if name in clear else " (not clearly)")
