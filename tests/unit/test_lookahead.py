"""Multi-step value targets on a model whose answers are known."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ftfl import sac
from ftfl.dynamics import predict as dyn
from ftfl.rollouts.generate import Ends
from ftfl.rollouts.lookahead import look_ahead
from ftfl.termination import never
from ftfl.types import Transition
from helpers import tiny

pytestmark = pytest.mark.usefixtures("quick_compiles")
STEPS, GAMMA = 3, 0.9
CONFIG = tiny(
    "mbpo-h5", rollouts__value_steps=STEPS, sac__discount=GAMMA, sac__reward_scale=2.0,
    dynamics__logvar_min=-60.0,
)  # fmt: skip


def model(gain=0.5, pay=3.0):
    """Every member adds ``gain`` to entry 0, keeps entry 1 and pays ``pay``, exactly."""
    state = dyn.init(jax.random.key(0), 2, 1, CONFIG.dynamics)
    zero = jax.tree.map(jnp.zeros_like, state.ensemble.trunks)
    bias = jnp.broadcast_to(jnp.float32([gain, 0, pay, -99, -99, -99]), (3, 6))
    zero[0] = eqx.tree_at(lambda t: t.layers[-1].bias, zero[0], bias)
    return dataclasses.replace(state, ensemble=dataclasses.replace(state.ensemble, trunks=zero))


def agent(temperature=0.0):
    state = sac.init(jax.random.key(1), 2, 1, CONFIG.sac)
    # The same policy everywhere.
    state = dataclasses.replace(state, actor=jax.tree.map(jnp.zeros_like, state.actor))
    return dataclasses.replace(state, log_temperature=jnp.log(jnp.float32(temperature)))


def rows(count=4):
    start = np.arange(count, dtype=np.float32)
    obs = np.stack([start, np.full(count, 7, np.float32)], axis=1)
    return Transition(*map(jnp.asarray, (
        obs - 1, np.zeros((count, 1), np.float32), 10 + start, obs, start == count - 1,
    )))  # fmt: skip


def ahead_of(batch, dynamics=None, temperature=0.0, termination=never):
    return jax.jit(
        lambda k: look_ahead(
            k, batch, agent(temperature), dynamics or model(), Ends(termination, None), CONFIG
        )
    )(jax.random.key(5))


def test_rewards_are_summed_and_the_bootstrap_moves_on():
    batch = rows()
    ahead = ahead_of(batch)
    extra = 2.0 * 3.0 * (GAMMA + GAMMA**2 + GAMMA**3)  # in the agent's unit of reward
    np.testing.assert_allclose(ahead.batch.reward[:3], batch.reward[:3] + extra, rtol=1e-5)
    np.testing.assert_allclose(
        ahead.batch.next_obs[:3], np.add(batch.next_obs[:3], [[1.5, 0]]), rtol=1e-5
    )
    np.testing.assert_allclose(ahead.discount, GAMMA**4, rtol=1e-6)
    np.testing.assert_array_equal(ahead.batch.obs, batch.obs)
    # A row that had ended looks nowhere.
    assert (float(ahead.batch.reward[3]), bool(ahead.batch.terminated[3])) == (13.0, True)
    np.testing.assert_array_equal(ahead.batch.next_obs[3], batch.next_obs[3])
    assert not np.asarray(ahead.failed).any()


def test_a_branch_that_ends_pays_to_its_end_and_bootstraps_no_more():
    batch = rows(5)
    ahead = ahead_of(batch, termination=lambda obs, action, next_obs: next_obs[..., 0] > 2.75)
    # Row 2 stands at 2 and ends at 3 with its second step; row 3 at once; rows 0 and 1 not.
    extra = np.array([0, 0, 6 * (GAMMA + GAMMA**2), 6 * GAMMA])
    np.testing.assert_array_equal(ahead.batch.terminated, [False, False, True, True, True])
    np.testing.assert_allclose(ahead.batch.reward[2:4], batch.reward[2:4] + extra[2:], rtol=1e-5)
    # The target of an ended row is its reward alone, whatever the critic says.
    target = sac.critic_target(
        agent(0.1), ahead.batch, jax.random.key(0), CONFIG.sac, ahead.discount
    )
    np.testing.assert_allclose(target[2:], ahead.batch.reward[2:])


def test_entropy_on_the_way_is_paid_for():
    batch = jax.tree.map(lambda x: jnp.repeat(x[:1], 4_000, axis=0), rows())  # one row, many draws
    plain, soft = ahead_of(batch), ahead_of(batch, temperature=0.5)
    policy = sac.policy(agent().actor, batch.next_obs, CONFIG.sac)
    _, log_prob = policy.sample(jax.random.key(9))
    wanted = -0.5 * float(jnp.mean(log_prob)) * (GAMMA + GAMMA**2 + GAMMA**3)
    got = float(jnp.mean(soft.batch.reward - plain.batch.reward))
    assert got == pytest.approx(wanted, rel=0.05)
    assert abs(wanted) > 1


def test_a_target_without_a_look_ahead_is_sacs():
    """A model that diverged leaves every row as it was, and says so."""
    sick = model(gain=jnp.nan)
    batch = rows()
    ahead = ahead_of(batch, sick)
    np.testing.assert_array_equal(ahead.failed, [True, True, True, False])
    for new, old in zip(ahead.batch, batch, strict=True):
        np.testing.assert_array_equal(new, old)
    one = sac.critic_target(agent(0.1), batch, jax.random.key(0), CONFIG.sac)
    two = sac.critic_target(agent(0.1), ahead.batch, jax.random.key(0), CONFIG.sac, ahead.discount)
    np.testing.assert_array_equal(one, two)
