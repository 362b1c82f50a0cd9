"""Stored transitions as instruments take them: in the order they happened, on the host.

Nothing here trains or steps; a replay is only read.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from ftfl import replay as rings
from ftfl.errors import FtflError
from ftfl.replay import Replay, Split
from ftfl.types import Transition


def in_order(ring: Replay) -> Transition:
    """All stored rows as NumPy arrays, oldest first."""
    size, cursor = int(ring.size), int(ring.cursor)
    slots = (cursor - size + np.arange(size)) % ring.capacity
    return jax.tree.map(lambda x: np.asarray(x)[slots], ring.rows)


def ring_of(rows: Transition) -> Replay:
    """A replay that holds exactly these rows, in their order."""
    count = rows.reward.shape[0]
    return Replay(jax.tree.map(jnp.asarray, rows), jnp.int32(0), jnp.int32(count))


def select(rows: Transition, which: np.ndarray) -> Transition:
    """The rows of a mask or of an index array."""
    return jax.tree.map(lambda x: np.asarray(x)[which], rows)


def episodes(rows: Transition) -> np.ndarray:
    """Label of each row's episode (N,): a new one begins where a row does not continue the last.

    A row continues the one before it if it starts at exactly the observation that the other
    ended in, and the other did not terminate.
    """
    obs, next_obs = np.asarray(rows.obs), np.asarray(rows.next_obs)
    continues = (obs[1:] == next_obs[:-1]).all(axis=1) & ~np.asarray(rows.terminated)[:-1]
    return np.concatenate([[0], np.cumsum(~continues)])[: obs.shape[0]]


def held_apart(rows: Transition, every: int = 5, blocks: int = 50) -> tuple[Transition, Transition]:
    """Rows to train on, and test rows, by stretches of time: one stretch in ``every`` is tested.

    A row's neighbours in time are almost the row itself, so single held-out rows would be known
    from their neighbours; of a stretch only its ends are.

    Raises:
        FtflError: fewer than two rows a stretch.
    """
    count = rows.reward.shape[0]
    if count < 2 * blocks:
        raise FtflError(
            f"{count} transitions cannot be divided into {blocks} stretches of time for training"
            f" and testing; at least {2 * blocks} are needed."
        )
    stretch = np.arange(count) * blocks // count
    test = stretch % every == every - 1
    return select(rows, ~test), select(rows, test)


def holdout(ring: Replay, split: Split) -> Transition:
    """The rows that ``split`` holds out, on the device."""
    return rings.take(ring, split.holdout_slot(jnp.arange(int(split.blocks(ring)))))


def thinned(rows: Transition, most: int) -> Transition:
    """At most so many rows, spread evenly over time; neighbours are then no longer neighbours."""
    count = rows.reward.shape[0]
    return rows if count <= most else select(rows, evenly(np.arange(count), most))


def evenly(which: np.ndarray, most: int) -> np.ndarray:
    """At most so many of these indices, spread evenly over them."""
    if len(which) <= most:
        return which
    return which[np.linspace(0, len(which) - 1, most).round().astype(np.int64)]
