"""Unit invariance: unit scale gives the same bits in every unit, raw scale does not."""

import dataclasses

import numpy as np
import pytest

from ftfl.errors import FtflError
from ftfl.forensics.instruments.units import unit_invariance
from known_cases import linear, model

pytestmark = pytest.mark.usefixtures("quick_compiles")
ROWS = linear(600, (1, 5, 0.2), 1.0, noise=0.1)


@pytest.mark.parametrize("algo", ["mbpo-unit", "ftfl"])
def test_with_unit_scale_no_bit_differs(algo):
    found = unit_invariance(ROWS, model(algo), updates=20, seeds=(0, 1))
    assert found.exact
    assert [c.distance.value for c in found.changes] == [0.0] * 4
    assert found.findings() == []


def test_an_epsilon_on_the_std_breaks_it_without_harm():
    config = model("mbpo-unit", scale_epsilon=1e-6)
    found = unit_invariance(ROWS, config, updates=20, seeds=(0,), powers=(-10,))
    assert not found.exact
    assert {f.severity for f in found.findings()} == {"info"}
    assert 0 < max(c.distance.value for c in found.changes) < 1
    assert all(c.distance.low == -np.inf for c in found.changes)  # one seed has no interval


def test_with_raw_targets_a_tiny_reward_is_lost():
    config = dataclasses.replace(model(), learning_rate=3e-3)
    found = unit_invariance(ROWS, config, updates=300, powers=(-10,))
    reward, channels = found.changes
    assert (reward.what, channels.what) == ("reward", "channels")
    assert reward.differing_values_share > 0.5
    assert reward.reward_loss.above(0.5)
    assert abs(reward.state_loss.value) < 0.2
    assert channels.state_loss.above(0.1)
    by_name = {f.name: f.severity for f in found.findings()}
    assert by_name == {"unit-of-reward-matters": "warning", "unit-of-channels-matters": "warning"}
    assert found.numbers()["changes"][0]["power_of_two"] == -10


def test_a_given_reward_is_refused():
    with pytest.raises(FtflError, match="reward_model=given fixes the unit"):
        unit_invariance(ROWS, model(reward_model="given"), updates=1)
