"""Model variance on a heteroscedastic linear system, and against predictions made by hand."""

import numpy as np
import pytest

from ftfl.errors import FtflError
from ftfl.forensics.evidence import Estimate
from ftfl.forensics.instruments.targets import TargetComparison, residual_or_direct
from ftfl.forensics.instruments.variance import calibration, model_variance
from ftfl.forensics.refits import Predicted, fidelity, predictions
from known_cases import autoregressive, fitted, heteroscedastic, model, transitions, untrained

pytestmark = pytest.mark.usefixtures("quick_compiles")


@pytest.fixture(scope="module")
def trained(quick_compiles):
    config = model("mbpo-unit", max_updates=1_500, learning_rate=3e-3)
    return fitted(heteroscedastic(3_000), config)[0], config


def test_noise_that_depends_on_the_state_is_learned_and_covered(trained):
    """The truth: std 0.1 or 0.5 by the sign of channel 0, so 90 % intervals cover 90 %."""
    state, config = trained
    rows = heteroscedastic(1_000, seed=1)
    found = model_variance(state, rows, config)
    for level, tolerance in ((0.5, 0.08), (0.9, 0.05), (0.95, 0.04)):
        for estimate in found.coverage[level]:
            assert estimate.value == pytest.approx(level, abs=tolerance)
    for z in found.z_rms:
        assert z.value == pytest.approx(1, abs=0.15)
        assert z.low < z.value < z.high
    np.testing.assert_allclose(found.predicted_std, np.sqrt((0.1**2 + 0.5**2) / 2), rtol=0.15)
    std = predictions(state, rows, config).std
    quiet = rows.obs[:, 0] < -0.3
    loud = rows.obs[:, 0] > 0.3
    assert std[:, quiet].mean() == pytest.approx(0.1, rel=0.3)
    assert std[:, loud].mean() == pytest.approx(0.5, rel=0.2)
    # A draw's squared error is twice the noise; persistence errs by the whole change.
    noise, change = 0.13, 0.25 + 1 / 3 + 0.13
    assert found.fidelity.drawn[0].value == pytest.approx(1 - 2 * noise / change, abs=0.06)
    assert found.fidelity.member[0].value == pytest.approx(1 - noise / change, abs=0.04)
    assert found.fidelity.averaged[0].value >= found.fidelity.member[0].value
    assert found.findings() == []
    together = model_variance(state, rows, config, clusters=np.arange(1_000) // 500)
    assert (found.z_rms[0].n, together.z_rms[0].n) == (1_000, 2)
    assert found.numbers()["names"] == ["obs[0]", "obs[1]", "obs[2]", "reward"]


def test_an_untrained_model_is_worse_than_nothing():
    """Its std of 0.79 swamps a change of 0.1 and a reward of 0.1."""
    rows = autoregressive(episodes=10, steps=50, kappas=[0.99, 0.99], reward_scale=0.1)
    config = model()
    result = model_variance(untrained(rows, config)[0], rows, config)
    found = {f.name: f for f in result.findings()}
    assert found["worse-than-persistence"].severity == "failure"
    assert result.fidelity.drawn[-1].below(0.0), "told by reward fidelity"
    assert "overconfident" not in found


def by_hand(mean, std, truth):
    return Predicted(*(np.asarray(x, np.float64) for x in (mean, std, truth)))


def test_calibration_counts_what_falls_inside():
    truth = np.zeros((4, 2))
    mean = np.stack([[[0.5, 0.0], [1.0, 0.0], [1.8, 0.0], [3.0, 0.0]]])
    std = np.broadcast_to([1.0, 0.0], mean.shape)
    coverage, z = calibration(by_hand(mean, std, truth))
    assert [coverage[level][0].value for level in (0.5, 0.9, 0.95)] == [0.25, 0.5, 0.75]
    assert z[0].value == pytest.approx(np.sqrt(np.mean([0.25, 1, 3.24, 9])))
    assert np.isnan(coverage[0.9][1].value)
    assert np.isnan(z[1].value)


def test_fidelity_separates_bias_noise_and_averaging():
    """Two members err by ±1: each alone is as bad as persistence, their average is exact."""
    obs = np.zeros((4, 1))
    truth = np.array([[1.0, 1.0], [-1.0, -1.0], [1.0, 1.0], [-1.0, -1.0]])
    error = np.array([1.0, -1.0])[:, None, None]
    found = by_hand(truth + error * [1.0, 0.5], np.broadcast_to([0.0, 0.5], (2, 4, 2)), truth)
    score = fidelity(found, obs)
    assert [e.value for e in score.member] == pytest.approx([0.0, 0.75])
    assert [e.value for e in score.drawn] == pytest.approx([0.0, 0.5])
    assert [e.value for e in score.averaged] == pytest.approx([1.0, 1.0])
    still = by_hand(np.zeros((2, 4, 2)), np.zeros((2, 4, 2)), np.zeros((4, 2)))
    assert all(np.isnan(e.value) for e in fidelity(still, obs).member)


def test_the_better_target_is_found_by_paired_refits():
    """A slow channel's next value is nearly the old one: easy as a residual, lost as a value."""
    rows = autoregressive(episodes=20, steps=50, kappas=[0.999, 0.0])
    found = residual_or_direct(rows, model("mbpo-unit", learning_rate=1e-3), updates=400)
    slow, fast = found.difference
    assert slow.below(-0.5)
    assert fast.value > 0
    assert [round(k.value) for k in found.autocorrelation] == [1, 0]
    assert [f.name for f in found.findings()] == ["residual-predicts-better"]
    assert found.numbers()["names"] == ["obs[0]", "obs[1]"]


def test_clear_channels_are_counted_by_what_kappa_says_of_them():
    """Slow and better as a residual; fast and better as a residual; fast and open."""
    residual = np.array([[0.9, 0.8, 0.5], [0.9, 0.8, 0.4], [0.91, 0.81, 0.6]])
    direct = np.array([[0.1, 0.2, 0.5], [0.1, 0.2, 0.6], [0.12, 0.2, 0.4]])
    kappa = tuple(Estimate(k, k, k, 9, "by hand") for k in (0.9, 0.1, 0.1))
    found = TargetComparison(
        ("a", "b", "c"), {"residual": residual, "direct": direct}, {}, kappa, 1
    )
    assert found.kappa_agrees == (1, 2)
    assert [round(d.value, 2) for d in found.difference] == [-0.8, -0.6, 0.0]


def test_nothing_that_moves_is_refused():
    still = np.zeros((200, 1))
    with pytest.raises(FtflError, match="no observation channel ever changes"):
        residual_or_direct(transitions(still, still, np.zeros(200), still), model(), updates=1)
    rows, config = heteroscedastic(50), model(reward_model="given")
    state, _ = untrained(rows, config)
    with pytest.raises(FtflError, match="needs the task's reward function"):
        predictions(state, rows, config)
