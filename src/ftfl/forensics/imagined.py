"""The model and the simulator side by side, from the same states with the same actions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ftfl.forensics.branches import Path
from ftfl.forensics.learned import WorldModel

ABSURD = 10.0
"""Ranges of the data by which an imagined state may leave it before it counts as absurd."""
MARGIN = 0.05
"""The same before it counts as outside: a bounded channel's edge is passed by any noise."""


class SideBySideStep(NamedTuple):
    """One step of m paths that still go on; what elites differ in is averaged over them."""

    alive: np.ndarray
    """Indices (m,) of these paths."""
    squared: np.ndarray
    """(m, O): squared error of a draw."""
    still: np.ndarray
    """(m, O): squared error of saying that nothing has moved since the start."""
    outside: np.ndarray
    """(m,): share of elites whose state lies outside the data (by ``MARGIN``) in some channel."""
    outside_really: np.ndarray
    """(m,): whether the true one does."""


class SideBySide(NamedTuple):
    """All steps, and what only the first tells."""

    moments: list[SideBySideStep]
    squared_of_mean: np.ndarray
    """(m, O): squared error of the elites' mean after the first step."""
    wrong_end: np.ndarray
    """(m,): share of elites that are wrong about the end of the episode at the first step."""
    nonfinite: list[int]
    """By step, as the next two."""
    absurd: list[int]
    rows: list[int]
    """Imagined states."""


def side_by_side(
    model: WorldModel,
    paths: Sequence[Path],
    steps: int,
    low: np.ndarray,
    high: np.ndarray,
    generator: np.random.Generator,
) -> SideBySide:
    """Let every elite go its own way along the actions of true paths, with the noise it predicts.

    Imagined ends are not obeyed: errors are told for as long as the true path lasts. A branch that
    is no longer finite ends. ``low`` and ``high`` are the data's range, (O,); channels that never
    varied have none and are not looked at.
    """
    count, elites, size = len(paths), model.elites, len(low)
    varies = high > low
    reach = (high - low)[varies].astype(np.float64)

    def beyond(states: np.ndarray) -> np.ndarray:
        """Ranges by which any channel lies outside the data; (…,)."""
        return (np.maximum(low - states, states - high)[..., varies] / reach).max(
            axis=-1, initial=0
        )

    start = np.stack([path.obs[0] for path in paths])
    at = np.repeat(start[:, None], elites, axis=1)  # (n, E, O): where each elite's branch is
    going = np.ones((count, elites), bool)
    own = (np.arange(count * elites), np.tile(np.arange(elites), count))
    moments: list[SideBySideStep] = []
    first = np.stack([path.action[0] for path in paths])
    mean = model.imagine(start, first, None).next_obs.mean(axis=1, dtype=np.float64)
    ends = np.array([path.steps == 1 and path.end == "terminated" for path in paths])
    squared_of_mean, wrong_end = np.zeros((0, size)), np.zeros(0)
    nonfinite, absurd, rows = [0] * steps, [0] * steps, [0] * steps
    for t in range(steps):
        action = np.stack([path.action[min(t, path.steps - 1)] for path in paths])
        truth = np.stack([path.obs[min(t + 1, path.steps)] for path in paths]).astype(np.float64)
        # Every elite is asked about every branch, and answers for its own.
        told = model.imagine(
            at.reshape(-1, size),
            np.repeat(action, elites, axis=0),
            model.noise(generator, count * elites),
        )
        drawn = told.next_obs[own].reshape(count, elites, size).astype(np.float64)
        going &= np.array([path.steps > t for path in paths])[:, None]
        finite = np.isfinite(drawn).all(axis=2)
        rows[t] = int(going.sum())
        nonfinite[t] = int((going & ~finite).sum())
        going &= finite
        drawn = np.where(going[..., None], drawn, 0.0)
        far = beyond(drawn)
        absurd[t] = int((going & (far > ABSURD)).sum())
        weight = going / np.maximum(going.sum(axis=1, keepdims=True), 1)
        alive = np.flatnonzero(going.any(axis=1))
        squared = (weight[..., None] * (drawn - truth[:, None]) ** 2).sum(axis=1)
        if t == 0:
            squared_of_mean = ((mean - truth) ** 2)[alive]
            wrong = told.terminated[own].reshape(count, elites) != ends[:, None]
            wrong_end = (weight * wrong).sum(axis=1)[alive]
        if len(alive) == 0:
            break
        moments.append(
            SideBySideStep(
                alive=alive,
                squared=squared[alive],
                still=((start - truth) ** 2)[alive],
                outside=np.sum(weight * (far > MARGIN), axis=1)[alive],
                outside_really=beyond(truth)[alive] > MARGIN,
            )
        )
        at = np.where(going[..., None], drawn, start[:, None]).astype(np.float32)
    return SideBySide(moments, squared_of_mean, wrong_end, nonfinite, absurd, rows)
