"""Ring buffers of transitions as pytrees, and which of their rows are held out.

A ring knows only where the next row goes and how many rows it holds, so that inserting any
number of rows at any position, with some of them masked out, is one scatter, and "the newest n
rows" is arithmetic. Cost never depends on capacity.
"""

from __future__ import annotations

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Shaped, UInt

from ftfl.types import Key, Transition


class Replay(eqx.Module):
    """``capacity`` slots, filled in order and then overwritten from the oldest on."""

    rows: Transition
    cursor: Int[Array, ""]
    """Slot of the next row."""
    size: Int[Array, ""]
    """Filled slots."""

    @property
    def capacity(self) -> int:
        """Slots in all."""
        return self.rows.reward.shape[0]


def empty(capacity: int, obs_dim: int, act_dim: int) -> Replay:
    """A ring of zeros."""
    rows = Transition(
        obs=jnp.zeros((capacity, obs_dim)),
        action=jnp.zeros((capacity, act_dim)),
        reward=jnp.zeros(capacity),
        next_obs=jnp.zeros((capacity, obs_dim)),
        terminated=jnp.zeros(capacity, bool),
    )
    return Replay(rows, jnp.int32(0), jnp.int32(0))


def insert(replay: Replay, batch: Transition, mask: Bool[Array, "B"] | None = None) -> Replay:
    """Append the rows of ``batch`` that ``mask`` keeps, in their order.

    ``batch`` must not have more rows than the ring has slots.
    """
    if mask is None:
        mask = jnp.ones(batch.reward.shape[0], bool)
    kept = mask.astype(jnp.int32)
    place = replay.cursor + jnp.cumsum(kept) - 1
    # Rows that are not kept are sent past the end, where a scatter drops them.
    slot = jnp.where(mask, place % replay.capacity, replay.capacity)
    count = jnp.sum(kept)
    rows = jax.tree.map(lambda old, new: old.at[slot].set(new, mode="drop"), replay.rows, batch)
    return Replay(
        rows,
        (replay.cursor + count) % replay.capacity,
        jnp.minimum(replay.size + count, replay.capacity),
    )


def newest(replay: Replay, age: Int[Array, "*B"]) -> Int[Array, "*B"]:
    """Slot of the row that is ``age`` rows old; 0 is the newest."""
    return (replay.cursor - 1 - age) % replay.capacity


def take(replay: Replay, slot: Int[Array, "*B"]) -> Transition:
    """The rows in these slots."""
    return jax.tree.map(lambda x: x[slot], replay.rows)


def sample_slots(
    replay: Replay, key: Key, count: int, among: Int[Array, ""] | None = None
) -> Int[Array, "count"]:
    """Slots drawn uniformly with replacement from the newest ``among`` rows (default: all)."""
    valid = replay.size if among is None else jnp.minimum(among, replay.size)
    age = jax.random.randint(key, (count,), 0, jnp.maximum(valid, 1))
    return newest(replay, age)


class Split(NamedTuple):
    """Which slots are held out: one per block of ``every`` neighbouring slots.

    The place within each block is a hash of the block's number, so membership needs no memory,
    outlives overwriting (a held-out slot stays held out), and is invertible: the u-th training
    row is found by arithmetic. Rows of an unfinished last block wait until it is full.
    """

    every: int
    seed: UInt[Array, ""]

    def blocks(self, replay: Replay) -> Int[Array, ""]:
        """Full blocks, which is also the number of held-out rows."""
        return replay.size // self.every

    def train_count(self, replay: Replay) -> Int[Array, ""]:
        """Rows to train on."""
        return self.blocks(replay) * (self.every - 1)

    def _held_out(self, block: Int[Array, "*B"]) -> Int[Array, "*B"]:
        mixed = mix(block.astype(jnp.uint32) ^ self.seed)
        return (mixed % jnp.uint32(self.every)).astype(jnp.int32)

    def train_slot(self, u: Int[Array, "*B"]) -> Int[Array, "*B"]:
        """Slot of the u-th training row."""
        block, within = u // (self.every - 1), u % (self.every - 1)
        return block * self.every + within + (within >= self._held_out(block)).astype(jnp.int32)

    def holdout_slot(self, block: Int[Array, "*B"]) -> Int[Array, "*B"]:
        """Slot of a block's held-out row."""
        return block * self.every + self._held_out(block)


def mix(x: Shaped[Array, "*B"]) -> UInt[Array, "*B"]:
    """A bijective hash of 32-bit integers (the finaliser of MurmurHash3, public domain)."""
    x = x.astype(jnp.uint32)
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    return x ^ (x >> 16)
