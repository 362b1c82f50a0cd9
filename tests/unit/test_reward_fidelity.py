"""Reward fidelity: a head corrupted by a known line and noise is recovered within its intervals."""

import dataclasses

import numpy as np
import pytest

from ftfl.forensics.audit import Answers, Truth
from ftfl.forensics.branches import Path
from ftfl.forensics.comparisons import affine, rank
from ftfl.forensics.evidence import plain
from ftfl.forensics.instruments.reward import reward_fidelity
from helpers import tiny
from known import PUSH, model_of

CONFIG = tiny("mbpo").dynamics
SHIFT, SLOPE, NOISE = 0.3, 0.4, 0.25


def true_reward(obs, action):
    return np.sin(3 * obs[:, 0]) - 0.5 * (action[:, 0] - 0.3) ** 2


def corrupted(rows, slope=SLOPE, shift=SHIFT, noise=NOISE, sign=1.0):
    """A head with a set line to the truth, about the mean of the rows it is measured on."""
    obs, action = rows
    mean = true_reward(obs, action).mean()

    def reward(o, a):
        wobble = noise * np.sqrt(2) * np.sin(1e4 * (o[:, 0] + a[:, 0]))  # std ``noise``
        return mean + shift + slope * (sign * true_reward(o, a) - mean) + wobble

    return model_of(lambda o, a: o + PUSH * a, reward, outputs=2)


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    return rng.uniform(-1, 1, (3000, 1)), rng.uniform(-1, 1, (3000, 1))


def truth_at(states, actions=16):
    rng = np.random.default_rng(1)
    answers = []
    for x in rng.uniform(-1, 1, states):
        obs, action = np.array([x]), rng.uniform(-1, 1, (actions, 1))
        many = np.repeat(obs[None], actions, axis=0)
        reward = true_reward(many, action)
        path = Path(np.stack([obs, obs]), action[:1], reward[:1], "going on")
        next_obs = many + PUSH * action
        answers.append(Answers(obs, action, reward, next_obs, path, np.zeros((2, 1)), ()))
    episode = np.arange(states) // 5
    return Truth(tuple(answers), episode, actions // 2, "copies of the simulator", {}, ())


def measure(rows, model, **kwargs):
    obs, action = rows
    return reward_fidelity(
        model, obs, action, true_reward(obs, action), np.arange(len(obs)) // 100, True, CONFIG,
        **kwargs,
    )  # fmt: skip


def test_a_set_line_and_noise_are_recovered_within_their_intervals(rows):
    found = measure(rows, corrupted(rows), truth=truth_at(100))
    for line in (found.replay, found.replay_drawn):
        for estimate, value in ((line.slope, SLOPE), (line.shift, SHIFT), (line.noise, NOISE)):
            assert abs(estimate.value - value) < estimate.high - estimate.low
            assert 0 < estimate.high - estimate.low < 0.06
    variance = true_reward(*rows).var()
    expected = 1 - ((1 - SLOPE) ** 2 * variance + SHIFT**2 + NOISE**2) / variance
    assert found.replay.r2.value == pytest.approx(expected, abs=0.03)
    assert found.own is not None
    assert found.own.slope.low < SLOPE < found.own.slope.high
    assert plain(found.numbers())["replay"]["slope"]["n"] == 30


def test_the_intervals_cover_what_they_claim():
    rng = np.random.default_rng(5)
    hits, values, widths = np.zeros(4), [], []
    for seed in range(120):
        episode = np.repeat(np.arange(25), 8)
        level = rng.normal(size=25)[episode]  # rows of an episode depend on each other
        true = level + rng.normal(size=200)
        # ρ about the law's own mean, 0, not about the sample's, which would be no head's doing
        said = SHIFT + SLOPE * true + NOISE * rng.normal(size=200)
        found = affine(true, said, episode, seed)
        # R² of this law, with true variance 2
        r2 = 1 - ((1 - SLOPE) ** 2 * 2 + SHIFT**2 + NOISE**2) / 2
        pairs = [(found.r2, r2), (found.slope, SLOPE), (found.shift, SHIFT), (found.noise, NOISE)]
        hits += [estimate.low <= value <= estimate.high for estimate, value in pairs]
        values.append([estimate.value for estimate, _ in pairs])
        widths.append([estimate.high - estimate.low for estimate, _ in pairs])
    # 95 % intervals by bootstrap over 25 episodes: a little less is known and told.
    assert (hits / 120 > 0.86).all()
    # Nor wider than they need be: 3.9 standard errors, as the 120 repetitions show them.
    assert (np.median(widths, axis=0) < 1.3 * 3.92 * np.std(values, axis=0)).all()


def test_noise_that_each_draw_adds_is_told_apart_from_the_heads_own(rows):
    clean = corrupted(rows, slope=1.0, shift=0.0, noise=0.0)
    noisy = model_of(
        lambda o, a: o, lambda o, a: clean.imagine(o, a, None).reward[:, 0], reward_spread=1.0
    )
    found = measure(rows, noisy)
    assert found.replay.r2.value == pytest.approx(1)
    assert found.replay_drawn.noise.value == pytest.approx(1, abs=0.05)
    assert [f.name for f in found.findings()] == ["reward-worse-than-its-mean"]


@pytest.mark.parametrize(("times_std", "severity"), [(0.05, None), (0.5, "info"), (2.0, "warning")])
def test_a_penalty_is_told_and_warned_of_where_it_outweighs_the_reward(rows, times_std, severity):
    clean = corrupted(rows, slope=1.0, shift=0.0, noise=0.0)
    taken = times_std * true_reward(*rows).std()
    model = dataclasses.replace(clean, penalty=lambda o, a: np.full(len(o), taken))
    told = {f.name: f.severity for f in measure(rows, model).findings()}
    assert told == ({} if severity is None else {"reward-penalised": severity})


def test_what_a_screen_takes_from_rows_that_it_does_not_store_nobody_learns_from(rows):
    clean = corrupted(rows, slope=1.0, shift=0.0, noise=0.0)
    stored = rows[0][:, 0] > 0
    model = dataclasses.replace(clean, penalty=lambda o, a: np.where(o[:, 0] > 0, 1.0, 9.0))
    assert measure(rows, model, stored=stored).penalty.value == pytest.approx(1.0)
    assert 2.0 < measure(rows, model).penalty.value < 8.0
    none = measure(rows, model, stored=np.zeros(len(stored), bool))
    assert np.isnan(none.penalty.value)
    assert "reward-penalised" not in {f.name for f in none.findings()}


@pytest.mark.parametrize(
    ("terminates", "level", "severity"),
    [(True, 50.0, "info"), (False, 50.0, "failure"), (True, 0.0, "failure")],
)
def test_noise_in_a_reward_that_hardly_varies_is_no_failure_where_episodes_end(
    rows, terminates, level, severity
):
    obs, action = rows
    model = model_of(lambda o, a: o, lambda o, a: true_reward(o, a) + level, reward_spread=1.0)
    found = reward_fidelity(
        model, obs, action, true_reward(obs, action) + level, np.arange(len(obs)) // 100, True,
        CONFIG, terminates=terminates,
    )  # fmt: skip
    (finding,) = found.findings()
    assert (finding.name, finding.severity) == ("reward-worse-than-its-mean", severity)
    assert ("when an episode ends" in finding.sentence) == (severity == "info")


@pytest.mark.parametrize(
    ("sign", "correlation", "names"), [(1.0, 1.0, set()), (-1.0, -1.0, {"reward-misranked"})]
)
def test_within_a_state_the_order_of_actions_is_judged_whatever_the_line(
    rows, sign, correlation, names
):
    model = corrupted(rows, slope=0.9, shift=0.0, noise=0.0, sign=sign)
    found = measure(rows, model, truth=truth_at(40))
    assert found.ranking is not None
    assert found.ranking.correlation.value == pytest.approx(correlation)
    assert found.ranking.regret.value == pytest.approx(0.0) or sign < 0
    assert {f.name for f in found.findings()} & {"reward-misranked"} == names


def test_states_whose_actions_all_pay_the_same_rank_nothing():
    equal, apart = np.ones(4), np.arange(4.0)
    ranking = rank([equal, apart, apart], [apart, apart, apart[::-1]], np.arange(3), 0)
    assert (ranking.states, ranking.undecided) == (2, 1)
    assert ranking.correlation.value == 0
    assert ranking.regret.value == pytest.approx(1.0)  # 0 and 3 lost of 1.5


def test_a_model_without_a_favourite_is_as_good_as_chance():
    paid = np.array([9.0, 0.0, 0.0, 0.0])
    ranking = rank([paid, paid], [np.zeros(4), np.zeros(4)], np.arange(2), 0)
    assert ranking.regret.value == pytest.approx(1.0)  # the first action is no favourite
    assert ranking.correlation.value == 0


def test_a_reward_that_never_varied_is_said_and_nothing_else(rows):
    obs, action = rows
    model = model_of(lambda o, a: o, lambda o, a: o[:, 0])
    found = reward_fidelity(
        model, obs, action, np.zeros(len(obs)), np.arange(len(obs)) // 100, True, CONFIG
    )
    assert [f.name for f in found.findings()] == ["reward-constant"]
    assert plain(found.numbers())["replay"]["r2"]["value"] is None
