"""The critic account against closed forms: what is put in wrong must come out, and nothing else."""

import dataclasses

import numpy as np
import pytest

from ftfl.errors import FtflError
from ftfl.forensics.account import account, cut
from ftfl.forensics.audit import Nudge, Nudges
from ftfl.forensics.branches import Path
from ftfl.forensics.instruments.critic import critic_account
from ftfl.forensics.learned import Agent
from known import Regulator, model_of, regulator_model

STEPS = 60


def near(estimate, value):
    """Within four standard errors, which chance leaves once in 16,000 times."""
    return abs(estimate.value - value) < estimate.high - estimate.low


@pytest.fixture(scope="module")
def regulator():
    return Regulator()


@pytest.fixture(scope="module")
def branches(regulator):
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(300, STEPS + 1, 1))
    starts = rng.uniform(-1, 1, 300)
    paths = [regulator.play(x, n, STEPS) for x, n in zip(starts, noise, strict=True)]
    return paths, list(noise), np.arange(300)


def test_a_perfect_critic_with_a_perfect_model_has_no_error(regulator, branches):
    result = critic_account(regulator.agent(), *branches, model=regulator_model())
    bias = result.twins["smaller"]
    assert near(bias.bias, 0)
    assert bias.bias.high - bias.bias.low < 0.2 * bias.spread
    assert abs(bias.parts["reward_model"].value) < 1e-12
    assert abs(bias.parts["next_state_model"].value) < 1e-12
    assert bias.calibration.low < 1 < bias.calibration.high
    assert bias.correlation.value > 0.95
    assert result.findings() == []


def test_the_account_telescopes_to_rounding_on_every_branch(regulator, branches):
    paths, noise, _ = branches
    model = regulator_model(shift=0.3, paid=-0.7, spread=0.5, reward_spread=2.0)
    agent = regulator.agent(offset=5.0)
    for a in account(agent, model, paths, noise).values():
        parts = a.fit + a.reward + a.state
        np.testing.assert_allclose(parts, a.value - a.truth, rtol=0, atol=1e-10)
    # with twins that differ, and branches that end in every way
    uneven = Agent(
        act=agent.act,
        q=lambda o, a: agent.q(o, a) * [1.0, 1.3] + np.sin(9 * o) * [1.0, -2.0],
        q_gradient=agent.q_gradient,
        temperature=agent.temperature,
        discount=agent.discount,
        act_dim=1,
    )
    mixed = [cut(p, 3 + i % 40)._replace(end=["terminated", "truncated", "fault"][i % 3])
             for i, p in enumerate(paths)]  # fmt: skip
    for told in (model, None):
        twins = account(uneven, told, mixed, noise)
        assert not np.allclose(twins["smaller"].value, twins["mean"].value)
        for a in twins.values():
            parts = a.fit + (0 if told is None else a.reward + a.state)
            np.testing.assert_allclose(parts, a.value - a.truth, rtol=0, atol=1e-9)


def test_a_constant_in_the_reward_model_shows_as_its_discounted_sum(regulator, branches):
    result = critic_account(regulator.agent(), *branches, model=regulator_model(paid=0.5))
    parts = result.twins["smaller"].parts
    whole = 0.5 * (1 - 0.9**STEPS) / (1 - 0.9)
    assert parts["reward_model"].value == pytest.approx(whole)
    # the critic does not follow that model: it is the fit that makes up for it
    assert parts["critic_fit"].value == pytest.approx(result.twins["smaller"].bias.value - whole)


def test_a_critic_that_is_too_low_is_named_with_what_made_it_so(regulator, branches):
    # A critic that swallowed a model which underpays by 1: its fit is perfect, its value is not.
    offset = -1.0 / (1 - regulator.discount)
    agent, model = regulator.agent(offset), regulator_model(paid=-1.0)
    result = critic_account(agent, *branches, model=model)
    bias = result.twins["smaller"]
    # The end of a branch is valued by the critic itself: γᵀ of its error is not seen.
    assert near(bias.bias, offset * (1 - 0.9**STEPS))
    assert near(bias.parts["critic_fit"], 0)
    (finding,) = [f for f in result.findings() if f.name.startswith("critic-too")]
    # Off by a constant, so that the order of states is right and no preference changes.
    assert bias.correlation.value > 0.95
    assert (finding.name, finding.severity) == ("critic-too-low", "info")
    assert "most of it is the reward model" in finding.sentence


@pytest.mark.parametrize(("sign", "severity"), [(1, "info"), (-1, "warning")])
def test_a_critic_that_is_too_low_is_a_warning_where_it_misorders_states(
    regulator, branches, sign, severity
):
    agent = regulator.agent()

    def q(o, a):
        right = agent.q(o, a)
        return sign * (right - right.mean()) + right.mean() - 10

    astray = Agent(act=agent.act, q=q, q_gradient=agent.q_gradient,
                   temperature=agent.temperature, discount=agent.discount, act_dim=1)  # fmt: skip
    found = critic_account(astray, *branches, model=regulator_model()).findings()
    (finding,) = [f for f in found if f.name.startswith("critic-too")]
    assert (finding.name, finding.severity) == ("critic-too-low", severity)
    assert finding.evidence["correlation"].value == pytest.approx(sign, abs=0.05)


def test_a_critic_that_is_too_high_is_a_warning(regulator, branches):
    agent = regulator.agent(1.5)
    (finding,) = [f for f in critic_account(agent, *branches, model=regulator_model()).findings()
                  if f.name.startswith("critic-too")]  # fmt: skip
    assert (finding.name, finding.severity) == ("critic-too-high", "warning")


def test_a_penalty_is_a_term_of_its_own_and_named_as_what_made_the_critic_low(regulator, branches):
    # A critic that swallowed a penalty of 1 on every reward of an otherwise perfect model.
    offset = -1.0 / (1 - regulator.discount)
    model = dataclasses.replace(regulator_model(), penalty=lambda o, a: np.ones(len(o)))
    paths, noise, _ = branches
    for a in account(regulator.agent(offset), model, paths, noise).values():
        parts = a.fit + a.reward + a.penalty + a.state
        np.testing.assert_allclose(parts, a.value - a.truth, rtol=0, atol=1e-10)
    result = critic_account(regulator.agent(offset), *branches, model=model)
    parts = result.twins["smaller"].parts
    assert parts["penalty"].value == pytest.approx(-(1 - 0.9**STEPS) / (1 - 0.9))
    assert abs(parts["reward_model"].value) < 1e-12
    assert near(parts["critic_fit"], 0)
    (finding,) = [f for f in result.findings() if f.name.startswith("critic-too")]
    assert (finding.name, finding.severity) == ("critic-too-low", "info")
    assert "most of it is the penalty that the screen takes" in finding.sentence
    assert "--rollouts.screening.std-penalty" in finding.advice
    # Values that only a penalised policy can have are possible for it.
    bare = critic_account(regulator.agent(offset), *branches, model=regulator_model())
    low, lower = bare.possible[0], result.possible[0]
    assert lower == pytest.approx(low - 1 / (1 - regulator.discount))


def linear(slope_error=0.0):
    """s′ = m s, paid s: Q(s) = s / (1 − γ m) whatever the action."""
    m, discount = 0.8, 0.9
    slope = 1 / (1 - discount * m) + slope_error
    agent = Agent(
        act=lambda o, n: (n, np.zeros(len(o))),
        q=lambda o, a: np.repeat(slope * o, 2, axis=1),
        q_gradient=lambda o, a: np.zeros_like(a),
        temperature=0.0,
        discount=discount,
        act_dim=1,
    )
    states = m ** np.arange(STEPS + 1)[None] * np.linspace(-1, 1, 25)[:, None]
    noise = np.random.default_rng(1).normal(size=(25, STEPS + 1, 1))
    paths = [
        Path(s[:, None], n[:-1], s[:-1], "going on") for s, n in zip(states, noise, strict=True)
    ]
    return m, discount, slope, agent, paths, list(noise)


def test_a_shifted_next_state_shows_as_the_value_of_the_shift():
    m, discount, slope, agent, paths, noise = linear()
    model = model_of(lambda o, a: m * o + 0.25, lambda o, a: o[:, 0], outputs=2)
    result = critic_account(agent, paths, noise, np.arange(25), model=model)
    parts = result.twins["mean"].parts
    whole = discount * slope * 0.25 * (1 - discount**STEPS) / (1 - discount)
    assert parts["next_state_model"].value == pytest.approx(whole)
    assert parts["reward_model"].value == pytest.approx(0, abs=1e-12)
    assert result.twins["mean"].bias.value == pytest.approx(0, abs=1e-12)


def test_without_a_model_the_whole_bias_is_the_critics_own():
    _, discount, slope, agent, paths, noise = linear(slope_error=1.0)
    result = critic_account(agent, paths, noise, np.arange(25))
    bias = result.twins["smaller"]
    assert set(bias.parts) == {"critic_fit"}
    assert bias.parts["critic_fit"].value == pytest.approx(bias.bias.value)
    assert bias.calibration.value == pytest.approx((slope - 1) / slope, rel=1e-3)
    assert result.left == pytest.approx(discount**STEPS)


def test_a_terminated_branch_is_not_valued_beyond_its_end():
    _, _, slope, agent, paths, noise = linear()
    ended = [cut(path, 1)._replace(end="terminated") for path in paths]
    told = account(agent, None, ended, noise)["smaller"]
    starts = np.array([path.obs[0, 0] for path in paths])
    np.testing.assert_allclose(told.truth, starts)
    np.testing.assert_allclose(told.value, slope * starts)
    assert not told.left.any()


def nudged(regulator, count=30, steps=20, chance=0.0):
    """Nudged branches; with ``chance`` the truth is that much noise."""
    rng = np.random.default_rng(3)
    paths, nudges = [], []
    for x in rng.uniform(-1, 1, count):
        path = regulator.play(x, rng.normal(size=(steps + 1, 1)), steps)
        first = path.action[0]
        repeated = []
        for noise in rng.normal(size=(2, steps + 1, 1)):
            pair = [regulator.play(x, noise, steps, first + by) for by in (0.05, -0.05)]
            pair[0].reward[0] += chance * rng.normal()
            repeated.append(Nudges(noise, (Nudge(*pair),)))
        paths.append(path)
        nudges.append(repeated)
    noise = list(rng.normal(size=(count, steps + 1, 1)))
    return paths, noise, np.arange(count), nudges


def test_the_true_slope_has_cosine_one_and_the_opposite_minus_one(regulator):
    paths, noise, clusters, nudges = nudged(regulator)
    for slope, cosine in ((1.0, 1.0), (-1.0, -1.0)):
        agent = regulator.agent(slope=slope)
        result = critic_account(agent, paths, noise, clusters, nudges=nudges, nudged_steps=(1, 20))
        assert sorted(result.slopes) == [1, 20]
        for told in result.slopes.values():
            assert told.cosine.value == pytest.approx(cosine, abs=0.02)
            assert told.reliability.value > 0.95
        names = {finding.name for finding in result.findings()}
        assert ("gradient-astray" in names) == (slope < 0)


def test_a_true_slope_that_is_chance_accuses_nobody(regulator):
    paths, noise, clusters, nudges = nudged(regulator, chance=3.0)
    result = critic_account(
        regulator.agent(slope=-1.0), paths, noise, clusters, nudges=nudges, nudged_steps=(20,)
    )
    assert result.slopes[20].reliability.low < 0.25
    assert "gradient-astray" not in {finding.name for finding in result.findings()}


def test_chance_in_the_true_slope_does_not_lower_the_cosine(regulator):
    paths, noise, clusters, nudges = nudged(regulator, count=400, chance=0.03)
    result = critic_account(
        regulator.agent(), paths, noise, clusters, nudges=nudges, nudged_steps=(20,)
    )
    told = result.slopes[20]
    assert told.reliability.value < 0.8
    assert told.cosine.low < 1 < told.cosine.high
    assert told.cosine.low > 0.8


@pytest.mark.parametrize(("offset", "impossible"), [(-1e4, True), (1.0, False), (8.0, True)])
def test_a_critic_beyond_every_return_is_a_failure(regulator, branches, offset, impossible):
    # Rewards are never above 0, so that only entropy makes a value positive: α log 2 ÷ (1 − γ).
    result = critic_account(regulator.agent(offset=offset), *branches)
    assert result.possible[1] == pytest.approx(0.1 * np.log(2) / 0.1)
    severe = [f.severity for f in result.findings() if f.name == "critic-impossible"]
    assert severe == ["failure"] * impossible


def test_states_from_which_nothing_finite_is_imagined_are_left_out_and_counted(regulator, branches):
    paths, noise, clusters = branches
    fast = max(abs(path.obs[0, 0]) for path in paths) - 0.05
    model = model_of(
        lambda o, a: np.where(np.abs(o) > fast, np.nan, o + 0.3 * a), lambda o, a: o[:, 0] * 0
    )
    result = critic_account(regulator.agent(), paths, noise, clusters, model=model)
    assert result.left_out == sum(np.abs(p.obs[:-1]).max() > fast for p in paths) > 0
    broken = model_of(lambda o, a: o * np.nan, lambda o, a: o[:, 0])
    with pytest.raises(FtflError, match="not finite"):
        critic_account(regulator.agent(), paths, noise, clusters, model=broken)
