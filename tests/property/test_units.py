"""Scaler, log-variance bounds: there and back again."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ftfl.config import DynamicsConfig
from ftfl.dynamics.ensemble import bound, bounded_std, unbound
from ftfl.dynamics.targets import Scaler, measure, model_target
from ftfl.replay import Split
from helpers import filled, transitions

pytestmark = pytest.mark.usefixtures("quick_compiles")
few = settings(max_examples=60, deadline=None)


def floats(low, high):
    return st.floats(low, high, width=32, allow_subnormal=False)  # XLA flushes them to zero


def vectors(low, high):
    return hnp.arrays(np.float32, 4, elements=floats(low, high))


@few
@given(
    mean=vectors(-1000, 1000),
    std=vectors(np.float32(1e-3), 1000),
    live=st.lists(st.booleans(), min_size=4, max_size=4),
    z=hnp.arrays(np.float32, (5, 4), elements=floats(-5, 5)),
)
def test_scaler_round_trip(mean, std, live, z):
    std = np.where(live, std, 0).astype(np.float32)
    scaler = Scaler(jnp.asarray(mean), jnp.asarray(std))
    x = scaler.from_unit(jnp.asarray(z))
    back = np.asarray(scaler.to_unit(x))
    # The way there rounds x to float32, which costs |mean| / std digits of z.
    digits = 3e-7 * (np.abs(mean) + 5 * std) / np.where(live, std, 1)
    assert (np.abs(back - z)[:, live] <= digits[live] + 1e-5).all()
    dead = ~np.array(live)
    np.testing.assert_array_equal(scaler.constant, dead)
    # A constant: z is zero whatever comes, the way back is the constant itself, without spread.
    assert not back[:, dead].any()
    np.testing.assert_array_equal(np.asarray(x)[:, dead], np.broadcast_to(mean, z.shape)[:, dead])
    spread = np.asarray(scaler.spread_from_unit(jnp.exp(jnp.asarray(z))))
    assert not spread[:, dead].any()
    assert (spread[:, live] > 0).all()


@few
@given(mean=vectors(-9, 9), std=vectors(np.float32(0.1), 9), power=st.integers(-20, 20),
       z=hnp.arrays(np.float32, (3, 4), elements=floats(-5, 5)))  # fmt: skip
def test_a_power_of_two_changes_no_bit_of_z(mean, std, power, z):
    # A z so small that its products leave float32's range is rounded to zero in either unit.
    z = np.where(np.abs(z) < 1e-20, np.float32(0), z)
    factor = np.float32(2.0**power)
    x = mean + std * z
    plain = Scaler(jnp.asarray(mean), jnp.asarray(std))
    other = Scaler(jnp.asarray(mean * factor), jnp.asarray(std * factor))
    np.testing.assert_array_equal(
        plain.to_unit(jnp.asarray(x)), other.to_unit(jnp.asarray(x * factor))
    )
    np.testing.assert_array_equal(
        np.asarray(plain.from_unit(jnp.asarray(z))) * factor, other.from_unit(jnp.asarray(z))
    )


@pytest.mark.parametrize("target", ["residual", "direct", "innovation"])
@pytest.mark.parametrize("power", [-30, 30])
def test_targets_in_network_units_know_no_physical_unit(target, power):
    """No threshold and no ε is absolute: nanometres are learned as well as gigametres."""
    config = DynamicsConfig(target=target, scale="unit")
    rows = transitions(100)
    rows.next_obs[:, 2] = rows.obs[:, 2] = 0.7  # constant in any unit

    def network_targets(unit):
        scaled = rows._replace(**{k: getattr(rows, k) * np.float32(unit)
                                  for k in ("obs", "reward", "next_obs")})  # fmt: skip
        statistics = measure(filled(scaled), Split(5, jnp.uint32(1)), config)
        z = statistics.target.to_unit(
            jnp.asarray(model_target(target, True, scaled, statistics.reversion))
        )
        return statistics, z

    (plain, z), (other, other_z) = network_targets(1.0), network_targets(2.0**power)
    np.testing.assert_array_equal(plain.target.constant, [False, False, True, False])
    np.testing.assert_array_equal(other.target.constant, plain.target.constant)
    np.testing.assert_array_equal(other.target.std, plain.target.std * np.float32(2.0**power))
    np.testing.assert_array_equal(other_z, z)
    assert np.asarray(z).std(axis=0)[[0, 1, 3]].min() > 0.5


@few
@given(low=floats(-20, -2), width=floats(1, 12), share=floats(np.float32(0.05), np.float32(0.95)))
def test_unbound_is_the_inverse_of_bound(low, width, share):
    low = np.float32(low)
    high = np.float32(low + width)
    logvar = np.float32(low + share * width)
    raw = unbound(jnp.float32(logvar), float(low), float(high))
    np.testing.assert_allclose(bound(raw, jnp.float32(low), jnp.float32(high)), logvar, atol=2e-4)


@few
@given(raw=vectors(-1e4, 1e4), low=floats(-20, -2), width=floats(1, 12))
def test_bound_holds_everywhere(raw, low, width):
    high = np.float32(low + width)
    got = np.asarray(bound(jnp.asarray(raw), jnp.full(4, low), jnp.full(4, high)))
    assert np.isfinite(got).all()
    assert (got >= np.float32(low)).all()
    # The lower softplus lifts the cap by softplus(width) − width.
    assert (got <= high + np.log1p(np.exp(-float(width))) + 1e-4).all()


@few
@given(raw=vectors(-1e4, 1e4), low=floats(-60, 0), width=floats(1, 80))
def test_a_bounded_std_is_the_root_of_the_bounded_variance(raw, low, width):
    low, high = np.float64(low), np.float64(low) + width
    wide = raw.astype(np.float64)
    below = high - np.logaddexp(0.0, high - wide)
    expected = np.exp(0.5 * (low + np.logaddexp(0.0, below - low)))
    got = bounded_std(
        jnp.asarray(raw), jnp.full(4, low, jnp.float32), jnp.full(4, high, jnp.float32)
    )
    np.testing.assert_allclose(got, expected, rtol=1e-4)
