"""Replay, Split and bootstrap: the ring against a deque, held-out rows, resamples, batches."""

from collections import deque

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ftfl import replay as rings
from ftfl.config import DynamicsConfig
from ftfl.dynamics.fit import bootstrap_rows, minibatch_rows
from ftfl.replay import Split
from ftfl.rollouts.generate import kept_rows, mixed_batch
from ftfl.rollouts.memory import remember
from ftfl.types import Transition
from helpers import tiny

pytestmark = pytest.mark.usefixtures("quick_compiles")
few = settings(max_examples=25, deadline=None)
insert = jax.jit(rings.insert)


def numbered(numbers):
    """Rows that carry their own number in every field."""
    n = jnp.asarray(np.asarray(numbers, np.float32))
    return Transition(n[:, None], n[:, None], n, n[:, None] + 0.5, n % 2 == 0)


@few
@given(
    capacity=st.sampled_from([3, 7, 8]),
    batches=st.lists(st.lists(st.booleans(), min_size=3, max_size=3), max_size=9),
)
def test_ring_is_a_deque(capacity, batches):
    ring, model, number = rings.empty(capacity, 1, 1), deque(maxlen=capacity), 1
    for mask in batches:
        rows = range(number, number + 3)
        number += 3
        ring = insert(ring, numbered(rows), jnp.asarray(mask))
        model.extend(r for r, keep in zip(rows, mask, strict=True) if keep)
        assert int(ring.size) == len(model)
        ages = jnp.arange(len(model), dtype=jnp.int32)
        got = rings.take(ring, rings.newest(ring, ages))
        np.testing.assert_array_equal(got.reward, list(reversed(model)))
        # All fields of a row stay together.
        np.testing.assert_array_equal(got.next_obs[:, 0], got.reward + 0.5)
        np.testing.assert_array_equal(got.terminated, got.reward % 2 == 0)
    # Slots that were never filled stay untouched.
    assert not ring.rows.reward[int(ring.size) :].any()


@few
@given(size=st.integers(1, 12), among=st.integers(1, 15), seed=st.integers(0, 99))
def test_samples_come_from_the_newest(size, among, seed):
    ring = insert(rings.empty(8, 1, 1), numbered(range(1, 4)))
    for start in range(4, 4 + size, 3):
        ring = insert(ring, numbered(range(start, start + 3)))
    newest = float(ring.rows.reward[rings.newest(ring, jnp.int32(0))])
    slots = rings.sample_slots(ring, jax.random.key(seed), 64, jnp.int32(among))
    drawn = np.asarray(rings.take(ring, slots).reward)
    reach = min(among, int(ring.size))
    assert drawn.max() <= newest
    assert drawn.min() >= newest - reach + 1
    if reach <= 4:
        assert len(np.unique(drawn)) == reach


splits = {"every": st.integers(2, 9), "seed": st.integers(0, 2**32 - 1)}


def parts(split, ring):
    # One shape for all sizes, so that nothing is compiled twice.
    every_row = jnp.arange(200, dtype=jnp.int32)
    train = np.asarray(split.train_slot(every_row))[: int(split.train_count(ring))]
    return train, np.asarray(split.holdout_slot(every_row))[: int(split.blocks(ring))]


def ring_of_size(size, capacity=200):
    return rings.Replay(rings.empty(capacity, 1, 1).rows, jnp.int32(0), jnp.int32(size))


@few
@given(size=st.integers(0, 200), **splits)
def test_split_partitions_all_full_blocks(size, every, seed):
    split = Split(every, jnp.uint32(seed))
    train, held = parts(split, ring_of_size(size))
    together = np.sort(np.concatenate([train, held]))
    np.testing.assert_array_equal(together, np.arange(size // every * every))
    np.testing.assert_array_equal(np.sort(held) // every, np.arange(size // every))


@few
@given(size=st.integers(9, 150), more=st.integers(0, 50), **splits)
def test_a_held_out_slot_stays_held_out(size, more, every, seed):
    """While the ring fills, and (membership reads slots only) while it is overwritten."""
    split = Split(every, jnp.uint32(seed))
    train, held = parts(split, ring_of_size(size))
    later_train, later_held = parts(split, ring_of_size(size + more))
    assert set(held) <= set(later_held)
    assert set(train) <= set(later_train)
    full = ring_of_size(200)
    moved = rings.Replay(full.rows, jnp.int32(77), full.size)  # wrapped: only the cursor differs
    for a, b in zip(parts(split, full), parts(split, moved), strict=True):
        np.testing.assert_array_equal(a, b)


@few
@given(seed=st.integers(0, 2**32 - 1))
def test_held_out_places_are_spread(seed):
    _, held = parts(Split(5, jnp.uint32(seed)), ring_of_size(200))
    assert len(np.unique(held % 5)) >= 4


@pytest.mark.parametrize("data", ["bootstrap", "shared"])
def test_no_member_ever_draws_a_held_out_row(data):
    config = DynamicsConfig(member_data=data, batch_size=500, members=7)
    ring, split = ring_of_size(103), Split(5, jnp.uint32(5))
    seeds = jax.random.bits(jax.random.key(0), (7,), jnp.uint32)
    train, held = parts(split, ring)
    for update in range(5):
        key, count = jax.random.key(update), split.train_count(ring)
        members = jnp.arange(7, dtype=jnp.int32)
        rows = minibatch_rows(key, members, seeds, count, config)
        alone = [minibatch_rows(key, m[None], seeds, count, config)[0] for m in members]
        np.testing.assert_array_equal(rows, jnp.stack(alone))  # whoever is trained beside them
        slots = np.asarray(split.train_slot(rows))
        assert slots.shape == (7, 500)
        assert not np.isin(slots, held).any()
        assert np.isin(slots, train).all()
        same = (slots == slots[0]).all()
        assert same == (data == "shared")


@few
@given(seed=st.integers(0, 2**32 - 2), count=st.sampled_from([1, 2, 60, 1_000, 4_000]))
def test_bootstrap_is_a_resample_with_replacement(seed, count):
    draws = jnp.arange(count, dtype=jnp.int32)
    rows = np.asarray(bootstrap_rows(draws, jnp.uint32(seed), jnp.int32(count)))
    assert rows.min() >= 0
    assert rows.max() < count
    again = np.asarray(bootstrap_rows(draws, jnp.uint32(seed), jnp.int32(count)))
    np.testing.assert_array_equal(rows, again)
    if count >= 1_000:
        assert abs(len(np.unique(rows)) / count - (1 - np.exp(-1))) < 0.05
        other = np.asarray(bootstrap_rows(draws, jnp.uint32(seed + 1), jnp.int32(count)))
        # Two independent resamples coincide in about one place.
        assert (rows == other).sum() < 12
        shared = np.isin(np.unique(rows), other).mean()
        assert abs(shared - (1 - np.exp(-1))) < 0.06


def test_bootstrap_draws_every_row_equally_often():
    count = 50
    seeds = jnp.arange(4_000, dtype=jnp.uint32) * jnp.uint32(2_654_435_761)
    draws = jnp.arange(count, dtype=jnp.int32)
    rows = jax.vmap(lambda s: bootstrap_rows(draws, s, jnp.int32(count)))(seeds)
    counts = np.bincount(np.asarray(rows).ravel(), minlength=count)
    np.testing.assert_allclose(counts / 4_000, 1.0, atol=0.08)


def test_mix_is_a_bijection_on_a_sample():
    x = np.arange(100_000, dtype=np.uint32)
    assert len(np.unique(np.asarray(rings.mix(jnp.asarray(x))))) == len(x)


@settings(max_examples=2, deadline=None)
@given(size=st.integers(1, 40), share=st.floats(0, 1), seed=st.integers(0, 99))
@example(256, 0.05, 0)  # 13 real, 243 synthetic (STFL)
@example(256, 12 / 256, 0)  # 12 real, 244 synthetic (MBPO 2019)
@example(10, 0.9, 1)  # 1 − 0.9 is a little below 0.1 in binary
@example(10, 0.8, 2)
@example(8, 0.0, 3)
@example(8, 1.0, 4)
def test_mixed_batch_has_exactly_the_real_share(size, share, seed):
    config = tiny("mbpo", sac__batch_size=size, rollouts__real_ratio=share)
    real = insert(rings.empty(30, 1, 1), numbered(range(1, 21)))
    unreal = insert(rings.empty(30, 1, 1), numbered(range(-20, 0)))
    nothing = rings.empty(30, 1, 1)
    step = jnp.int32(100)
    batch = mixed_batch(jax.random.key(seed), real, unreal, remember(config, 1), step, config)
    invented = int((batch.reward < 0).sum())
    assert len(batch.reward) == size
    assert int((batch.reward > 0).sum()) == size - invented
    # ⌊size (1 − share)⌋ of the decimal that was written, which binary may put just below.
    exact = size * (1 - share)
    nearest = round(exact)
    assert invented == (nearest if abs(exact - nearest) < 1e-9 else int(np.floor(exact)))
    np.testing.assert_array_equal(batch.next_obs[:, 0], batch.reward + 0.5)
    alone = mixed_batch(jax.random.key(seed), real, nothing, remember(config, 1), step, config)
    assert (alone.reward > 0).all()


@pytest.mark.parametrize("per_step", [2, 3])
def test_batches_see_the_retention_window_only(per_step):
    """Rows kept = steps × branches a step × length; older ones stay in the ring but unused."""
    config = tiny(
        "mbpo", rollouts__per_step=per_step, rollouts__retention_steps=5,
        rollouts__length=(100, 200, 1, 3), rollouts__real_ratio=0.0, sac__batch_size=400,
    )  # fmt: skip
    assert config.rollouts is not None
    ring = rings.empty(config.rollouts.capacity_rows, 1, 1)
    assert ring.capacity == 15 * per_step
    memory = remember(config, 1)
    ring = insert(ring, numbered(range(15 * per_step)))
    real = insert(rings.empty(4, 1, 1), numbered([-1, -2, -3]))
    for step, length in ((0, 1), (150, 2), (200, 3)):
        assert int(kept_rows(jnp.int32(step), config)) == 5 * per_step * length
        batch = mixed_batch(jax.random.key(step), real, ring, memory, jnp.int32(step), config)
        oldest = 15 * per_step - 5 * per_step * length
        np.testing.assert_array_equal(
            np.unique(np.asarray(batch.reward)), np.arange(oldest, 15 * per_step)
        )
