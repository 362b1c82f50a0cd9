"""Units, cells and seeds: what may differ between two runs, and what must not by a single bit."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from driving import drive
from ftfl import config as cfg
from ftfl import presets
from ftfl.envs.make import make_env
from ftfl.errors import FtflError
from ftfl.training import sentinels
from ftfl.training import state as run_state
from helpers import compilations, equal_bits, tiny

MODELS = [name for name, p in presets.PRESETS.items() if p.changes.get("dynamics", "") is not None]
LEARN_STEPS = 60


@pytest.fixture(scope="module")
def runs():
    """Each run once, for all tests of this module."""
    made = {}

    def run(algo, unit=1.0):
        if (algo, unit) not in made:
            config = tiny(algo, task__reward_unit=unit, rollouts__length=(45, 80, 1, 3))
            made[algo, unit] = drive(config, config.warmup_steps + LEARN_STEPS)
        return made[algo, unit]

    return run


@pytest.mark.parametrize(
    "algo", ["sac", pytest.param("mbpo-innovation", marks=pytest.mark.long), "ftfl"]
)
def test_another_unit_of_reward_changes_no_bit(runs, algo):
    """2⁻¹⁰ of the reward is the same MDP: the agent turns it back, unit targets never see it."""
    (_, one), (_, other) = runs(algo), runs(algo, 2.0**-10)
    assert int(one.agent.updates) == 2 * (LEARN_STEPS + 1)
    assert equal_bits(one.agent, other.agent)
    np.testing.assert_array_equal(one.real.rows.reward * 2.0**-10, other.real.rows.reward)
    assert np.abs(one.real.rows.reward).max() > 0
    if algo != "sac":
        assert int(one.dynamics.refits) >= 3
        assert equal_bits(one.dynamics.ensemble, other.dynamics.ensemble)
        assert equal_bits(one.dynamics.optimiser, other.dynamics.optimiser)
        np.testing.assert_array_equal(
            one.synthetic.rows.reward * 2.0**-10, other.synthetic.rows.reward
        )


def test_with_raw_targets_the_unit_matters(runs):
    """Or the tests above would pass for a dial that turns nothing."""
    (_, one), (_, other) = runs("mbpo"), runs("mbpo", 2.0**-10)
    np.testing.assert_array_equal(one.real.rows.obs[:40], other.real.rows.obs[:40])  # warm-up
    assert not equal_bits(one.dynamics.ensemble, other.dynamics.ensemble)
    assert not equal_bits(one.agent.actor, other.agent.actor)


@pytest.mark.parametrize("algo", ["sac", "mbpo", "mbpo-innovation", "ftfl"])
def test_nothing_compiles_twice(runs, algo):
    """Through refits, a growing replay, and a schedule that lengthens the branches."""
    learner, state = runs(algo)
    assert int(state.learn_steps) == LEARN_STEPS + 1
    counts = {
        name: compilations(getattr(learner, name))
        for name in ("explore", "act", "observe", "learn", "fit")
    }
    wanted = dict.fromkeys(counts, 1) | ({"fit": 0} if algo == "sac" else {})
    assert counts == wanted


def test_algorithms_share_warm_up_data_and_first_agent(runs):
    states = {algo: runs(algo)[1] for algo in ("sac", "mbpo", "ftfl")}
    for algo in ("mbpo", "ftfl"):
        for mine, other in zip(states["sac"].real.rows, states[algo].real.rows, strict=True):
            np.testing.assert_array_equal(mine[:40], other[:40])
        assert not equal_bits(states[algo].agent.actor, states["sac"].agent.actor)
    env = make_env("gym/Pendulum-v1")
    first = {a: run_state.init(tiny(a), env.spec).agent for a in ("sac", "mbpo", "ftfl")}
    assert equal_bits(first["sac"], first["mbpo"])
    assert equal_bits(first["sac"], first["ftfl"])
    other = run_state.init(tiny("sac", seed=1), env.spec).agent
    assert not equal_bits(first["sac"].actor, other.actor)
    mbpo, ftfl = (run_state.init(tiny(a), env.spec).dynamics for a in ("mbpo", "ftfl"))
    assert equal_bits(mbpo, ftfl)  # the cells start from the same networks, too


def test_the_same_run_twice_is_the_same_bits(runs):
    config = tiny("ftfl", rollouts__length=(45, 80, 1, 3))
    learner, first = runs("ftfl")
    _, again = drive(config, config.warmup_steps + LEARN_STEPS, learner)
    assert equal_bits(first, again)


@pytest.mark.parametrize("algo", ["sac", "ftfl"])
def test_sentinels_change_no_bit_of_what_is_learned(runs, algo, monkeypatch):
    _, watched = runs(algo)
    monkeypatch.setattr(sentinels, "is_bad", lambda batch: jnp.zeros(2, bool))
    for name in ("see_rewards", "check_refit", "check_rollouts"):
        monkeypatch.setattr(sentinels, name, lambda alarms, *_: alarms)
    monkeypatch.setattr(sentinels, "check_updates", lambda alarms, *_: (alarms, {}))
    config = tiny(algo, rollouts__length=(45, 80, 1, 3))
    _, blind = drive(config, config.warmup_steps + LEARN_STEPS)
    assert float(blind.alarms.largest_reward) == 0.0 < float(watched.alarms.largest_reward)
    assert equal_bits(dataclasses.replace(blind, alarms=watched.alarms), watched)


def test_evaluating_changes_nothing_of_the_run(runs):
    learner, state = runs("ftfl")
    before = jax.tree.map(lambda x: x.copy(), state)
    a, b = (np.asarray(learner.mode(state.agent.actor, np.ones(3, np.float32))) for _ in range(2))
    np.testing.assert_array_equal(a, b)
    assert equal_bits(before, state)


CELLS = {
    "mbpo": ("residual", "raw"), "mbpo-unit": ("residual", "unit"),
    "mbpo-direct": ("direct", "raw"), "ftfl": ("direct", "unit"),
}  # fmt: skip


@pytest.mark.parametrize("profile", sorted(presets.PROFILES))
def test_cells_differ_in_target_and_scale_only(profile):
    built = {algo: presets.build("dmc/hopper-stand", algo, profile) for algo in CELLS}
    for algo, (target, scale) in CELLS.items():
        found = cfg.difference(built["mbpo"], built[algo])
        wanted = {"dynamics.target": target, "dynamics.scale": scale, "algo": algo}
        changed = {k: v for k, v in wanted.items() if cfg.flatten(built["mbpo"])[k] != v}
        assert {name: pair[1] for name, pair in found.items()} == changed


@pytest.mark.parametrize("algo", MODELS)
@pytest.mark.parametrize(("target", "scale"), CELLS.values())
def test_target_and_scale_apply_to_every_preset(algo, target, scale):
    plain = presets.build("gym/Hopper-v5", algo)
    cell = {"dynamics.target": target, "dynamics.scale": scale}
    changed = presets.build("gym/Hopper-v5", algo, changes=cell)
    flat = cfg.flatten(plain)
    assert {name: pair[1] for name, pair in cfg.difference(plain, changed).items()} == {
        k: v for k, v in cell.items() if flat[k] != v
    }


def test_a_model_free_preset_has_no_cell():
    with pytest.raises(FtflError, match="no dynamics"):
        presets.build("gym/Hopper-v5", "sac", changes={"dynamics.scale": "unit"})
