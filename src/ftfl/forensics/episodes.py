"""Which rows of the replay belong to which episode, and which seed started it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ftfl.training.evaluate import episode_seed
from ftfl.types import Transition

_MOST_GUESSES = 50


class Episode(NamedTuple):
    """Neighbouring rows of the replay that follow from one reset."""

    start: int
    stop: int
    """Rows [start, stop) of the replay in order of collection."""
    whole: bool
    """The first of them is the episode's first: it can be replayed from its reset."""
    seeds: tuple[int, ...]
    """Reset seeds it may have had, the likeliest first. Several where an episode left no rows or
    the run is a fork with another seed; the first observation tells."""


def find_episodes(
    rows: Transition,
    logged: int,
    limit: int | None,
    newest: int,
    dropped: bool,
    run_seeds: Sequence[int],
) -> list[Episode]:
    """Cut the rows where one does not begin, bit for bit, with the observation the last ended in.

    Args:
        rows: real transitions in order of collection (NumPy).
        logged: how many of the first rows came from a file and belong to no episode.
        limit: time limit in steps, which ends an episode even if the next begins where it ended.
        newest: number of the episode that the last row belongs to.
        dropped: older rows have been overwritten, so that the first may be inside an episode.
        run_seeds: seeds of the run, the own one first, then those of the runs it was forked from.
    """
    starts = _starts(rows, logged, limit)
    stops = [*starts[1:], len(rows.reward)]
    episodes = []
    for index, (start, stop) in enumerate(zip(starts, stops, strict=True)):
        # Counted from the newest: a fault can leave a number without rows, never the reverse.
        highest = newest - (len(starts) - 1 - index)
        lowest = max(index if not dropped else 0, highest - _MOST_GUESSES)
        seeds = tuple(
            episode_seed(run_seed, number)
            for run_seed in run_seeds
            for number in range(highest, lowest - 1, -1)
        )
        episodes.append(Episode(start, stop, not (dropped and index == 0), seeds))
    return episodes


def _starts(rows: Transition, logged: int, limit: int | None) -> list[int]:
    obs, next_obs = np.asarray(rows.obs), np.asarray(rows.next_obs)
    if len(obs) <= logged:
        return []
    cut = (obs[1:].view(np.uint32) != next_obs[:-1].view(np.uint32)).any(axis=1)
    cut |= np.asarray(rows.terminated)[:-1]
    bounds = [logged, *(np.flatnonzero(cut[logged:]) + logged + 1).tolist(), len(obs)]
    return [
        start
        for first, last in itertools.pairwise(bounds)
        for start in range(first, last, limit or last - first)
    ]
