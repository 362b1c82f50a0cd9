"""Intervals cover what they claim, know what rows depend on each other, and become strict JSON."""

import json
import math

import numpy as np
import pytest

from ftfl.errors import FtflError
from ftfl.forensics.evidence import (
    Estimate,
    Finding,
    bootstrap_estimate,
    bootstrap_means,
    by_severity,
    mean_estimate,
    plain,
)

EPISODES = np.repeat(np.arange(20), 10)


def dependent(seed):
    """200 rows of mean 0 in 20 episodes, each with a level of its own."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=20)[EPISODES] + 0.3 * rng.normal(size=200)


def coverage(estimate):
    return np.mean([e.low <= 0 <= e.high for e in map(estimate, range(200))])


def test_a_mean_of_independent_rows_has_students_interval():
    found = mean_estimate([1.0, 2.0, 3.0])
    half = 4.302652729911275 / math.sqrt(3)  # t(0.975, 2) s/√n with s = 1
    assert (found.value, found.n) == (2.0, 3)
    assert found.low == pytest.approx(2 - half)
    assert found.high == pytest.approx(2 + half)


def test_intervals_over_episodes_cover_where_intervals_over_rows_do_not():
    assert coverage(lambda s: mean_estimate(dependent(s), EPISODES)) > 0.9
    assert coverage(lambda s: mean_estimate(dependent(s))) < 0.7
    assert coverage(lambda s: bootstrap_estimate(dependent(s), np.mean, 0, EPISODES, 200)) > 0.87


def test_statistics_of_means_have_the_intervals_of_the_plain_bootstrap():
    rng = np.random.default_rng(0)
    x = rng.normal(size=200) + 3

    def spread(means):
        return np.stack([np.sqrt(means[:, 1] - means[:, 0] ** 2), means[:, 0]], axis=1)

    std, mean = bootstrap_means(np.stack([x, x**2], axis=1), spread, 1, EPISODES, 4000)
    slow = bootstrap_estimate(x, np.std, 2, EPISODES, 4000)
    assert std.value == pytest.approx(slow.value)
    assert (std.low, std.high) == pytest.approx((slow.low, slow.high), rel=0.01)
    assert (mean.value, mean.n, mean.method) == (pytest.approx(x.mean()), 20, slow.method)


def test_several_arrays_are_resampled_together_and_equal_seeds_agree():
    x = np.random.default_rng(0).normal(size=50)

    def correlation(a, b):
        return float(np.corrcoef(a, b)[0, 1])

    found = bootstrap_estimate((x, 2 * x), correlation, 3)
    assert found.low == pytest.approx(1)
    assert bootstrap_estimate(x, np.median, 3) == bootstrap_estimate(x, np.median, 3)
    assert bootstrap_estimate(x, np.median, 3) != bootstrap_estimate(x, np.median, 4)


@pytest.mark.parametrize("clusters", [None, [7]])
def test_one_piece_says_nothing_of_its_own_spread(clusters):
    for found in (
        mean_estimate([2.0], clusters),
        bootstrap_estimate(np.array([2.0]), np.mean, 0, clusters),
        bootstrap_means(np.array([[2.0]]), lambda m: m, 0, clusters)[0],
    ):
        assert (found.value, found.low, found.high, found.n) == (2.0, -math.inf, math.inf, 1)
        assert str(found) == "2 (no interval, n = 1)"
        assert not found.above(-1e9)
        assert not found.below(1e9)


@pytest.mark.parametrize(
    ("samples", "said"),
    [([], "nothing was measured"), ([1.0, math.nan], "1 of 2 measured values are not finite")],
)
def test_what_cannot_be_estimated_is_refused(samples, said):
    samples = np.array(samples)
    for estimate in (
        lambda: mean_estimate(samples),
        lambda: bootstrap_estimate(samples, np.mean, 0),
        lambda: bootstrap_means(samples[:, None], lambda m: m, 0),
    ):
        with pytest.raises(FtflError, match=said):
            estimate()


def test_numbers_become_strict_json():
    estimate = Estimate(0.5, -math.inf, math.inf, 1, "none")
    numbers = {"a": estimate, "b": [np.float32(1.5), math.nan], "c": np.arange(2), 3: (True, None)}
    assert json.loads(json.dumps(plain(numbers), allow_nan=False)) == {
        "a": {"value": 0.5, "low": None, "high": None, "n": 1, "method": "none"},
        "b": [1.5, None],
        "c": [0, 1],
        "3": [True, None],
    }


def test_the_worst_findings_come_first_in_the_order_they_were_made():
    made = [Finding(n, s, "", {}, "", "") for n, s in
            (("a", "info"), ("b", "failure"), ("c", "warning"), ("d", "failure"))]  # fmt: skip
    assert [finding.name for finding in by_severity(made)] == ["b", "d", "c", "a"]
