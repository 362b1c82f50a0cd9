"""Shares over training, on linear data with set scales."""

import numpy as np
import pytest

from ftfl.errors import FtflError
from ftfl.forensics.instruments.share_history import share_history
from known_cases import linear, model

pytestmark = pytest.mark.usefixtures("quick_compiles")


def test_a_rewards_share_is_followed_from_the_start_through_training():
    """A channel forty times the reward owns loss and signal at first; unit scale shares alike."""
    rows = linear(600, (40.0, 1.0), 1.0, noise=0.1)
    raw, unit = (
        share_history(rows, model(preset, learning_rate=3e-3), 200)
        for preset in ("mbpo", "mbpo-unit")
    )
    assert list(raw.shares) == [0, 10, 100, 200]
    # T1: 1 of 40² + 1 + 1, and what the untrained network itself puts out
    assert raw.shares[0].loss.value == pytest.approx(1 / (40**2 + 2), rel=0.5)
    assert raw.shares[0].signal_gradient.value < 0.1
    for found in unit.shares.values():
        assert 0.1 < found.loss.value < 0.7
    assert raw.numbers()["after"]["0"]["loss"] == raw.shares[0].loss
    assert raw.findings() == []


def test_the_end_is_the_same_as_a_training_of_so_many_updates():
    rows, config = linear(300, (1.0, 1.0), 1.0, noise=0.1), model("mbpo-unit")
    long, short = (share_history(rows, config, n) for n in (100, 10))
    np.testing.assert_array_equal(long.shares[10].loss.value, short.shares[10].loss.value)
    assert list(short.shares) == [0, 10]


def test_a_reward_of_its_own_network_and_too_few_rows_are_refused():
    rows = linear(300, (1.0,), 1.0)
    with pytest.raises(FtflError, match="reward_model=separate"):
        share_history(rows, model(reward_model="separate"), 10)
    with pytest.raises(FtflError, match="9 rows, but shares over training need at least 10"):
        share_history(linear(9, (1.0,), 1.0), model(), 10)
