"""Critic health: few rows, UTD 32 against UTD 1; and features made by hand."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ftfl import sac
from ftfl.config import SacConfig
from ftfl.errors import FtflError
from ftfl.forensics.instruments.health import (
    _look,
    critic_health,
    dormant_share,
    effective_rank,
)
from known_cases import agent_trained, transitions

pytestmark = pytest.mark.usefixtures("quick_compiles")
CONFIG = SacConfig(
    hidden=(64, 64),
    batch_size=64,
    actor_learning_rate=1e-3,
    critic_learning_rate=1e-3,
    temperature_learning_rate=1e-3,
)
STEPS = 100


def few_rows(seed=0):
    """States whose successors lie outside of all that was seen: the bootstrap extrapolates."""
    rng = np.random.default_rng(seed)
    obs = rng.normal(size=(STEPS, 4))
    after = 1.5 * obs + 0.3 * rng.normal(size=obs.shape)
    return transitions(
        obs, rng.uniform(-1, 1, (STEPS, 2)), rng.normal(size=STEPS).clip(-2, 2), after
    )


def health(utd):
    agent = agent_trained(few_rows(), STEPS * utd, CONFIG)
    return critic_health(agent, few_rows(), CONFIG, jax.random.key(5))


def test_a_critic_trained_to_failure_at_utd_32_is_told_from_one_at_utd_1():
    """By its values, weights and temperature. Dormancy and rank do not tell the two apart.

    Dormant units of the last hidden layer: 0 % of the failed critic's, 7 % of the sound one's (2 %
    of a fresh one's); effective rank 0.88 of a fresh critic's against 0.96 (measured on this case;
    on two other seeds 2 to 3 % against 9 to 12 %, and 0.77 and 0.90 against 0.95 and 0.94).
    """
    sound, failed = health(1), health(32)
    assert sound.findings() == []
    assert sound.q_over_bound < 0.1
    assert sound.weight_growth.max() < 2
    by_name = {f.name: f for f in failed.findings()}
    assert by_name.keys() == {"critic-beyond-bound", "critic-weights-grown", "temperature-runaway"}
    assert by_name["critic-beyond-bound"].severity == "failure"
    assert by_name["critic-weights-grown"].severity == "warning"
    assert "--sac.critic-layer-norm" in by_name["critic-beyond-bound"].advice
    assert failed.q_over_bound > 1
    assert failed.updates == 32 * STEPS
    assert failed.numbers()["q_over_bound"] == failed.q_over_bound
    assert failed.dormant.max() <= sound.dormant.max() < 0.15
    left, kept = (float(h.rank.mean() / h.rank_fresh.mean()) for h in (failed, sound))
    assert 0.7 < left < kept < 1


@pytest.mark.long
def test_a_critic_trained_on_after_its_failure_loses_rank_and_no_units():
    """At UTD 128: 0.08 of a fresh critic's rank, and not one dormant unit."""
    failed = health(128)
    assert "critic-rank-collapsed" in {f.name for f in failed.findings()}
    assert failed.rank.mean() < failed.rank_fresh.mean() / 5
    assert failed.dormant.max() < 0.15


def test_dead_units_and_lost_rank_are_found():
    """Half of the last layer's units are made to fire never, the rest alike."""
    agent = sac.init(jax.random.key(0), 4, 2, CONFIG)
    last = agent.critic.layers[1]
    weight = last.weight.at[:, :, 32:].set(0.0).at[:, :, :32].set(last.weight[:, :, :1])
    critic = eqx.tree_at(lambda c: c.layers[1].weight, agent.critic, weight)
    found = critic_health(
        dataclasses.replace(agent, critic=critic), few_rows(), CONFIG, jax.random.key(5)
    )
    np.testing.assert_allclose(found.dormant[:, 1], 0.5)
    assert found.dormant[:, 0].max() < 0.1
    np.testing.assert_array_equal(found.rank, 1)
    assert found.rank_fresh.min() > 40
    assert {f.name for f in found.findings()} == {"critic-dormant", "critic-rank-collapsed"}


@pytest.mark.parametrize("layer_norm", [False, True])
def test_features_are_those_the_critic_uses(layer_norm):
    config = dataclasses.replace(CONFIG, critic_layer_norm=layer_norm)
    agent = sac.init(jax.random.key(0), 4, 2, config)
    rows = jax.tree.map(jnp.asarray, few_rows())
    layers, q, _ = _look(agent, rows, jax.random.key(1), config)
    head = agent.critic.layers[-1]
    again = np.einsum("ebh,eh->eb", layers[-1], np.asarray(head.weight)[..., 0])
    np.testing.assert_allclose(again + np.asarray(head.bias), q, rtol=1e-4, atol=1e-5)


def test_rank_and_dormancy_by_hand():
    features = np.zeros((2, 8, 4))
    features[0, :4] = np.eye(4)
    features[1, :, 0] = 1.0
    np.testing.assert_array_equal(effective_rank(features), [4, 1])
    np.testing.assert_array_equal(dormant_share([features]), [[0.0], [0.75]])
    assert np.isnan(effective_rank(np.full((2, 8, 4), np.inf))).all()


def test_a_critic_that_is_not_finite_is_beyond_its_bound():
    agent = sac.init(jax.random.key(0), 4, 2, CONFIG)
    broken = jax.tree.map(lambda x: x * jnp.nan, agent.critic)
    found = critic_health(
        dataclasses.replace(agent, critic=broken), few_rows(), CONFIG, jax.random.key(5)
    )
    assert "critic-beyond-bound" in {f.name for f in found.findings()}


def test_a_reward_that_is_in_none_of_the_rows_still_widens_what_is_possible():
    agent = sac.init(jax.random.key(0), 4, 2, CONFIG)
    near, far = (
        critic_health(agent, few_rows(), CONFIG, jax.random.key(5), 0.5, paid)
        for paid in ((0.0, 0.0), (-50.0, 100.0))
    )
    reward, horizon = np.asarray(few_rows().reward), 1 - CONFIG.discount
    high = 0.5 * (100.0 - float(reward.max())) / horizon
    low = 0.5 * (-50.0 - float(reward.min())) / horizon
    assert far.possible[1] - near.possible[1] == pytest.approx(high, rel=1e-5)
    assert far.possible[0] - near.possible[0] == pytest.approx(low, rel=1e-5)


def test_a_critic_a_little_beyond_its_bounds_is_none_that_failed():
    """Where all rewards are −1, no value can be above 0 and a little."""
    agent = sac.init(jax.random.key(0), 4, 2, CONFIG)
    agent = eqx.tree_at(lambda a: a.log_temperature, agent, jnp.float32(-12.0))
    rows = few_rows()._replace(reward=np.full(STEPS, -1.0, np.float32))
    for offset, said in ((1.0, False), (20.0, True)):
        bias = agent.critic.layers[-1].bias + offset
        moved = eqx.tree_at(lambda a: a.critic.layers[-1].bias, agent, bias)
        found = critic_health(moved, rows, CONFIG, jax.random.key(5))
        assert found.possible[1] == pytest.approx(0, abs=0.01)
        assert found.q_over_bound == pytest.approx(
            found.q_range[1] / (-0.05 * found.possible[0]), rel=1e-3
        )
        assert ("critic-beyond-bound" in {f.name for f in found.findings()}) == said


def test_what_a_narrow_policy_pays_for_its_entropy_is_possible():
    """The lowest value rests on the state where the policy is narrowest, not on the mean one."""
    agent = sac.init(jax.random.key(0), 4, 2, CONFIG)
    found = critic_health(agent, few_rows(), CONFIG, jax.random.key(5))
    narrow = eqx.tree_at(
        lambda a: a.actor.layers[-1].bias,
        agent,
        jnp.asarray([0.0, 0.0, -100.0, -100.0]),
    )
    told = critic_health(narrow, few_rows(), CONFIG, jax.random.key(5))
    # std e^{-10}: log π of two actions near their mean is 2 (10 − ½ log 2πe) and more
    lowest = float(np.min(few_rows().reward))
    fine = (lowest - told.possible[0] * (1 - CONFIG.discount)) / told.temperature
    assert fine > 2 * (10 - 0.5 * np.log(2 * np.pi * np.e)) - 0.5
    assert told.possible[1] == pytest.approx(found.possible[1])


def test_rows_of_one_episode_are_not_independent():
    agent = sac.init(jax.random.key(0), 4, 2, CONFIG)
    rows = few_rows()
    episode = np.arange(len(rows.reward)) // (len(rows.reward) // 4)
    rows = rows._replace(obs=(rows.obs + 3 * episode[:, None]).astype(np.float32))
    alone = critic_health(agent, rows, CONFIG, jax.random.key(5))
    apart = critic_health(agent, rows, CONFIG, jax.random.key(5), episode=episode)
    assert apart.q_mean.value == pytest.approx(alone.q_mean.value)
    assert apart.q_mean.n in (4, 5)
    assert apart.q_mean.high - apart.q_mean.low > 5 * (alone.q_mean.high - alone.q_mean.low)


def test_a_large_output_layer_is_no_sign_of_failure():
    """It grows with the size of true values."""
    agent = sac.init(jax.random.key(0), 4, 2, CONFIG)
    for layer, found in ((2, False), (1, True)):
        grown = eqx.tree_at(
            lambda c, i=layer: c.layers[i].weight,
            agent.critic,
            agent.critic.layers[layer].weight * 6,
        )
        told = critic_health(
            dataclasses.replace(agent, critic=grown), few_rows(), CONFIG, jax.random.key(5)
        )
        assert ("critic-weights-grown" in {f.name for f in told.findings()}) == found


def test_too_few_rows_are_refused():
    agent = sac.init(jax.random.key(0), 4, 2, CONFIG)
    few = jax.tree.map(lambda x: x[:63], few_rows())
    with pytest.raises(FtflError, match="63 rows cannot show the rank of 64 features"):
        critic_health(agent, few, CONFIG, jax.random.key(5))


@pytest.mark.parametrize(
    ("factor", "scale", "said"),
    [(0.01, 1.0, False), (1.0, 1.0, False), (1.5, 1.0, False), (10.0, 1.0, True),
     (10.0, 100.0, False)],
)  # fmt: skip
def test_a_temperature_that_outweighs_rewards_is_told(factor, scale, said):
    """Large rewards need a larger temperature: a rise alone is no sign."""
    config = dataclasses.replace(CONFIG, initial_temperature=0.2)
    agent = sac.init(jax.random.key(0), 4, 2, config, None)
    agent = eqx.tree_at(lambda a: a.log_temperature, agent, jnp.log(0.2 * jnp.float32(factor)))
    found = critic_health(agent, few_rows(), config, jax.random.key(5), scale)
    assert found.temperature == pytest.approx(0.2 * factor)
    assert found.entropy_bonus == pytest.approx(0.2 * factor * 2 * np.log(2))
    assert found.reward_std == pytest.approx(scale * np.std(few_rows().reward), rel=1e-5)
    named = [f for f in found.findings() if f.name == "temperature-runaway"]
    assert [f.severity for f in named] == ["warning"] * said
    if said:
        assert "rose from 0.2 to 2:" in named[0].sentence


def test_weights_of_a_critic_of_large_rewards_are_an_info():
    agent = sac.init(jax.random.key(0), 4, 2, CONFIG)
    grown = eqx.tree_at(
        lambda c: c.layers[1].weight, agent.critic, agent.critic.layers[1].weight * 6
    )
    for scale, severity in ((1.0, "warning"), (100.0, "info")):
        told = critic_health(
            dataclasses.replace(agent, critic=grown), few_rows(), CONFIG, jax.random.key(5), scale
        )
        (finding,) = [f for f in told.findings() if f.name == "critic-weights-grown"]
        assert finding.severity == severity
        assert ("--sac.reward-scale" in finding.advice) == (severity == "info")
