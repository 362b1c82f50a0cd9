"""Probes: one property turns, and the agent never sees it."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

from driving import drive
from ftfl.envs import probes
from ftfl.envs.make import list_tasks, make_env
from ftfl.errors import FtflError
from helpers import equal_bits, tiny

pytestmark = pytest.mark.usefixtures("quick_compiles")
TASKS = list_tasks()["probe"]
HIGHEST = [f"probe/{name}@{dial.levels[-1]:g}" for name, dial in probes.DIALS.items()]
QUICK = ("probe/jump@256", "probe/slow@8")
STEPS = 60


def played(task, seed=3, steps=probes.STEPS):
    """Observations (steps + 1, O) and rewards of one episode under fixed actions."""
    env = make_env(task)
    actions = np.random.default_rng(0).uniform(-1, 1, (steps, 1)).astype(np.float32)
    obs, rewards = [env.reset(seed)], []
    for action in actions:
        step = env.step(action)
        obs.append(step.obs)
        rewards.append(step.reward)
    assert step.truncated
    assert not step.terminated
    return env.spec, np.stack(obs), np.array(rewards), actions


@pytest.mark.parametrize("task", TASKS)
def test_the_agent_sees_the_same_bits_at_every_level(task):
    _, plain, wanted, _ = played("probe/rest")
    spec, obs, rewards, actions = played(task)
    assert spec.task == task
    assert obs.shape[1] == spec.obs_dim == len(spec.obs_names)
    look = spec.view or (lambda x: x)
    for seen in (look(obs), np.asarray(look(jnp.asarray(obs)))):
        assert seen.tobytes() == plain.tobytes()
    np.testing.assert_array_equal(rewards, wanted)
    told = spec.reward_fn(jnp.asarray(obs[:-1]), jnp.asarray(actions), jnp.asarray(obs[1:]))
    np.testing.assert_allclose(told, rewards, rtol=2e-6, atol=1e-9)


@pytest.mark.parametrize("name", probes.DIALS)
def test_a_dial_has_five_levels_that_all_differ_in_what_the_model_meets(name):
    levels = probes.DIALS[name].levels
    assert len(levels) >= 5
    assert sorted(levels) == list(levels)
    met = {
        b"".join(played(f"probe/{name}@{level:g}", seed)[1].tobytes() for seed in range(10))
        for level in levels
    }
    assert len(met) == len(levels)


def moments(task, steps=4_000):
    """Std of each channel, and its lag-1 autocorrelation, over many episodes."""
    rows = [played(task, seed)[1].astype(np.float64) for seed in range(steps // probes.STEPS)]
    now, then = (np.concatenate([r[part] for r in rows]) for part in (slice(-1), slice(1, None)))
    centred = [x - x.mean(axis=0) for x in (now, then)]
    kappa = (centred[0] * centred[1]).mean(axis=0) / (now.std(axis=0) * then.std(axis=0))
    return now.std(axis=0), kappa


@pytest.mark.parametrize("kappa", [-0.9, 0, 0.9])
def test_the_oscillation_has_the_autocorrelation_it_is_named_after(kappa):
    spread, found = moments(f"probe/autocorrelation@{kappa:g}")
    np.testing.assert_allclose(found[2:], kappa, atol=0.03)
    np.testing.assert_allclose(spread[2:], math.sqrt(0.5), rtol=0.05)


def test_added_channels_have_the_scale_they_are_named_after():
    spread, kappa = moments("probe/noise-scale@-3")
    np.testing.assert_allclose(spread[2:], 2.0**-3, rtol=0.06)
    np.testing.assert_allclose(kappa[2:], 0, atol=0.06)
    spread, _ = moments("probe/rare@-4")
    np.testing.assert_allclose(spread[2:] ** 2, 2.0**-4 * (1 - 2.0**-4), rtol=0.35)
    spread, _ = moments("probe/faint@-12")
    np.testing.assert_allclose(spread[2:], 2.0**-12, rtol=0.06)
    plain, turned = (moments(f"probe/{t}")[0][:2] for t in ("rest", "channel-unit@6"))
    np.testing.assert_array_equal(turned, plain * 64)


def test_what_a_model_imagines_is_looked_at_in_the_same_way():
    """A view is defined wherever a model may predict, between the branches of a jump too."""
    view = make_env("probe/jump@16").spec.view
    shown = view(np.array([[-3.0, 1.0], [16.5, 1.0], [7.0, 1.0], [9.0, 1.0]], np.float32))
    np.testing.assert_array_equal(shown[:, 0], [-3.0, 0.5, 7.0, -7.0])


@pytest.fixture(scope="module")
def at_rest():
    config = tiny("sac", "probe/rest")
    return drive(config, config.warmup_steps + STEPS)[1]


@pytest.mark.parametrize(
    "task", [t if t in QUICK else pytest.param(t, marks=pytest.mark.long) for t in HIGHEST]
)
def test_sac_learns_the_same_bits_under_every_dial(at_rest, task):
    config = tiny("sac", task)
    _, turned = drive(config, config.warmup_steps + STEPS)
    assert int(turned.agent.updates) == 2 * (STEPS + 1)
    for part in ("actor", "critic", "target_critic", "log_temperature"):
        mine, other = getattr(turned.agent, part), getattr(at_rest.agent, part)
        assert equal_bits(mine, other), part
    np.testing.assert_array_equal(turned.real.rows.reward, at_rest.real.rows.reward)
    np.testing.assert_array_equal(turned.real.rows.action, at_rest.real.rows.action)


@pytest.mark.parametrize("task", ["probe/jump@16", "probe/noise-count@8"])
def test_a_model_predicts_all_channels_and_the_agent_learns_from_its_view(task):
    config = tiny("ftfl", task)
    _, state = drive(config, config.warmup_steps + 25)
    size = make_env(task).spec.obs_dim
    assert state.synthetic.rows.obs.shape[1] == size > 1
    assert state.dynamics.statistics.target.mean.shape == (size + 1,)
    assert state.agent.actor.layers[0].weight.shape[0] == 2
    assert int(state.synthetic.size) > 0
    assert np.isfinite(np.asarray(state.agent.actor.layers[0].weight)).all()


@pytest.mark.long
def test_unit_scale_does_not_meet_another_unit_of_the_channels():
    config = tiny("ftfl", "probe/rest")
    other = tiny("ftfl", "probe/channel-unit@6")
    (_, one), (_, two) = (drive(c, c.warmup_steps + 25) for c in (config, other))
    assert equal_bits(one.dynamics.ensemble, two.dynamics.ensemble)
    for part in ("actor", "critic"):
        assert equal_bits(getattr(one.agent, part).layers, getattr(two.agent, part).layers)


@pytest.mark.parametrize(
    ("task", "says"),
    [
        ("probe/noise", r"did you mean probe/noise-|known"),
        ("probe/noise-count", r"needs a level, the number of them: probe/noise-count@LEVEL"),
        ("probe/noise-count@many", r"such as @2, @8"),
        ("probe/noise-count@2.5", r"give a whole number from 1 to 512, the number of them"),
        ("probe/autocorrelation@2", r"give a number from -1 to 1"),
        ("probe/jump@nan", r"no such level"),
        ("probe/reward-unit@-8", r"is an option and no task: --reward-unit 2\*\*LEVEL"),
    ],
)
def test_a_wrong_probe_is_refused_in_a_sentence(task, says):
    with pytest.raises(FtflError, match=says):
        make_env(task)


def test_a_dial_between_the_named_levels_is_allowed_and_named_canonically():
    assert make_env("probe/noise_count@16.0").spec.task == "probe/noise-count@16"
