"""Rollout error: zero for an exact model, and what was put in for others."""

import dataclasses

import numpy as np
import pytest

from ftfl.errors import FtflError
from ftfl.forensics.account import cut
from ftfl.forensics.instruments.rollout import rollout_error
from known import PUSH, Regulator, model_of, regulator_model

NAMES = ("x",)


@pytest.fixture(scope="module")
def data():
    """Branches of 6 steps, and stored rows around them."""
    rng = np.random.default_rng(0)
    regulator, noise = Regulator(), rng.normal(size=(80, 7, 1))
    starts = rng.uniform(-1, 1, 80)
    paths = [regulator.play(x, n, 6) for x, n in zip(starts, noise, strict=True)]
    obs = np.concatenate([p.obs[:-1] for p in paths])
    next_obs = np.concatenate([p.obs[1:] for p in paths])
    return paths, np.arange(80) // 4, obs, next_obs, NAMES


def test_an_exact_model_has_no_error_and_full_skill(data):
    found = rollout_error(regulator_model(), *data)
    assert found.error_in_std.shape == (5, 1)
    np.testing.assert_allclose(found.error_in_std, 0, atol=1e-6)
    np.testing.assert_allclose(found.skill, 1, atol=1e-9)
    assert all(e.value == pytest.approx(1) for e in found.median_skill)
    assert (sum(found.nonfinite), sum(found.absurd), sum(found.rows)) == (0, 0, 80 * 3 * 5)
    assert found.wrong_end.value == 0
    assert found.findings() == []


def test_a_model_that_says_nothing_moves_has_no_skill(data):
    still = model_of(lambda o, a: o, lambda o, a: o[:, 0])
    found = rollout_error(still, *data)
    np.testing.assert_allclose(found.skill, 0, atol=1e-6)
    change = (data[3] - data[2]).std()
    start = np.array([p.obs[1] - p.obs[0] for p in data[0]])
    np.testing.assert_allclose(found.error_in_change[0], np.sqrt((start**2).mean()) / change)


def test_noise_grows_with_the_steps_and_is_told_from_the_mean(data):
    every = [rollout_error(regulator_model(spread=0.2), *data, seed=seed) for seed in range(8)]
    squared = np.mean([(f.error_in_std[:, 0] * data[3].std()) ** 2 for f in every], axis=0)
    np.testing.assert_allclose(squared, 0.2**2 * np.arange(1, 6), rtol=0.1)
    found = every[0]
    assert found.median_skill_of_mean.value == pytest.approx(1)
    assert found.median_skill[0].value < 0
    (finding,) = [f for f in found.findings() if f.name == "worse-than-persistence"]
    assert finding.severity == "warning"
    assert "the noise it adds is the harm" in finding.sentence


def test_states_outside_the_data_absurd_and_not_finite_are_counted(data):
    away = model_of(lambda o, a: o + PUSH * a + 0.6, lambda o, a: o[:, 0])
    found = rollout_error(away, *data)
    assert found.outside[-1].value == 1
    assert found.outside_really[-1].value == 0
    assert {"imagined-states-outside-data"} <= {f.name for f in found.findings()}
    exploding = rollout_error(model_of(lambda o, a: 50 + o, lambda o, a: o[:, 0]), *data)
    assert exploding.absurd == exploding.rows
    (finding,) = [f for f in exploding.findings() if f.name == "absurd-states"]
    assert finding.severity == "failure"
    broken = model_of(lambda o, a: np.where(o > 0, np.nan, o), lambda o, a: o[:, 0])
    found = rollout_error(broken, *data)
    dead = sum(p.obs[0, 0] > 0 for p in data[0])
    assert sum(found.nonfinite) == dead * 3  # three elites, and their branches end there
    assert "absurd-states" in {f.name for f in found.findings()}
    with pytest.raises(FtflError, match=r"none of the model's 240 predictions is finite"):
        rollout_error(model_of(lambda o, a: o * np.nan, lambda o, a: o[:, 0]), *data)


def test_steps_beyond_the_runs_own_branches_are_an_info(data):
    """A run of one-step branches never learns from a fifth step."""
    away = model_of(lambda o, a: o + PUSH * a + 0.6, lambda o, a: o[:, 0])
    found = rollout_error(away, *data)
    sound = dataclasses.replace(found, outside=[found.outside_really[0], *found.outside[1:]])
    for used, severity in ((1, "info"), (5, "warning")):
        told = {f.name: f for f in dataclasses.replace(sound, used=used).findings()}
        outside = told["imagined-states-outside-data"]
        assert outside.severity == severity
        assert ("this run's own branches have 1 step" in outside.sentence) == (used == 1)
    late = model_of(lambda o, a: 5 * o + PUSH * a, lambda o, a: o[:, 0])
    one, five = (rollout_error(late, *data, used=used) for used in (1, 5))
    assert one.absurd == five.absurd
    assert one.absurd[0] == 0 < one.absurd[-1]
    assert [f.severity for f in one.findings() if f.name == "absurd-states"] == ["info"]
    assert [f.severity for f in five.findings() if f.name == "absurd-states"] == ["failure"]


def test_branches_count_as_long_as_they_last_and_their_ends_are_checked(data):
    paths, clusters, *rest = data
    short = [cut(p, 1)._replace(end="terminated") if i % 2 else p for i, p in enumerate(paths)]
    found = rollout_error(regulator_model(), short, clusters, *rest)
    assert sum(found.rows) == 3 * (80 + 4 * 40)
    assert found.wrong_end.value == pytest.approx(0.5)
    with pytest.raises(FtflError, match="no branch"):
        rollout_error(regulator_model(), [cut(p, 0) for p in paths], clusters, *rest)


def test_a_channel_that_never_moves_has_no_number_and_spoils_none(data):
    paths, clusters, obs, next_obs, _ = data
    wide = [p._replace(obs=np.concatenate([p.obs, np.ones_like(p.obs)], axis=1)) for p in paths]

    def both(x):
        return np.concatenate([x, np.ones_like(x)], axis=1)

    model = model_of(
        lambda o, a: both(o[:, :1] + PUSH * a), lambda o, a: o[:, 0], spread=1e-3, outputs=3
    )
    found = rollout_error(model, wide, clusters, both(obs), both(next_obs), ("x", "one"))
    assert np.isnan(found.skill[:, 1]).all()
    assert found.median_skill[0].value > 0.99
    assert sum(found.absurd) == 0
    assert found.outside[0].value < 0.5


def two_channels(data, sure):
    """The regulator's x, and a channel of the same changes of which the model knows nothing.

    Its predictions err by as much as persistence does, on average (``sure``: by twice as much).
    """
    paths, clusters, obs, next_obs, _ = data
    rng = np.random.default_rng(4)
    wide = [p._replace(obs=np.hstack([p.obs, rng.normal(size=p.obs.shape)])) for p in paths]
    rows = [np.hstack([x, rng.normal(size=x.shape)]) for x in (obs, next_obs)]
    model = model_of(
        lambda o, a: np.stack(
            [o[:, 0] + PUSH * a[:, 0], (2.0 if sure else 1.0) * rng.normal(size=len(o))], axis=1
        ),
        lambda o, a: o[:, 0],
        outputs=3,
    )
    return rollout_error(model, wide, clusters, *rows, ("x", "noise"))


def test_every_channel_has_its_interval_and_only_clear_ones_are_named(data):
    chance = two_channels(data, sure=False)
    low, high = chance.skill_interval[:, 0]
    assert low[1] < 0 < high[1]  # as good as standing still, within chance
    assert low[0] == high[0] == pytest.approx(1)
    assert chance.skill_interval.shape == (2, *chance.skill.shape)
    between = chance.error_in_std_interval
    assert np.all(between[0] <= chance.error_in_std)
    assert np.all(chance.error_in_std <= between[1])
    # √2 stds for a draw against an independent draw, whose rows are 80 in 20 clusters
    assert between[0, 0, 1] < np.sqrt(2) < between[1, 0, 1]
    clear = two_channels(data, sure=True)
    assert clear.skill_interval[1, 0, 1] < 0
    (finding,) = [f for f in clear.findings() if f.name == "channels-without-skill"]
    assert finding.sentence.endswith("do not move: noise.")
    assert "channels-without-skill" not in {f.name for f in chance.findings()}


def test_an_observation_that_never_changes_is_refused(data):
    paths, clusters, obs, _, names = data
    stuck = [p._replace(obs=np.ones_like(p.obs)) for p in paths]
    with pytest.raises(FtflError, match="no observation entry ever changes"):
        rollout_error(
            regulator_model(), stuck, clusters, np.ones_like(obs), np.ones_like(obs), names
        )
