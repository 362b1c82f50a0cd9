"""Every equation of docs/theory.md against its measurement, and what the page says of each."""

import importlib.util
import re
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from ftfl.config import DynamicsConfig
from ftfl.dynamics.ensemble import Gaussian, nll

pytestmark = pytest.mark.usefixtures("quick_compiles")
ROOT = Path(__file__).resolve().parents[2]
TOLERANCE = {
    "loss-share": 1e-4, "gradient-share": 1e-3, "adam-step": 1e-3, "adam-drift": 0.05,
    "bounded-std": 5e-3, "pull-of-the-likelihood": 0.01, "pull-of-half": 0.01,
    "affine-critic": 1e-9, "terminating-critic": 1e-9, "account": 1e-9,
    "exploited-noise": 0.03, "change-variance": 0.05, "decay-direct": 5e-3, "decay-residual": 5e-3,
    "innovation-variance": 0.05, "decay-innovation": 0.01,
}  # fmt: skip


def load():
    path = ROOT / "benchmarks" / "theory" / "equations.py"
    spec = importlib.util.spec_from_file_location("theory_equations", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


EQUATIONS = load()


@pytest.fixture(scope="module")
def compared():
    """Each equation once, for all tests of this module."""
    made = {}

    def get(name):
        if name not in made:
            made[name] = EQUATIONS.EQUATIONS[name]()
        return made[name]

    return get


@pytest.mark.parametrize("name", EQUATIONS.EQUATIONS)
def test_the_formula_gives_what_is_measured(compared, name):
    found = compared(name)
    assert found.predicted.shape == found.measured.shape
    # Means over draws have an error of their own where the truth is 0.
    atol = 0.05 if name in ("change-variance", "innovation-variance", "exploited-noise") else 1e-9
    np.testing.assert_allclose(found.predicted, found.measured, rtol=TOLERANCE[name], atol=atol)


@pytest.mark.parametrize("name", ["loss-share", "gradient-share"])
def test_an_untrained_networks_own_output_hides_a_small_reward(compared, name):
    """DESIGN's shares hold for the part of the targets; loss and gradient do not fall with it."""
    found = compared(name)
    assert found.usual[-1] < 1e-3 * found.usual[0]
    assert found.measured[-1] > 0.1 * found.measured[0]


def test_an_adam_step_has_no_unit(compared):
    found = compared("adam-step")
    np.testing.assert_allclose(found.measured[-1] * found.x[-1], found.measured[0], rtol=0.5)
    assert found.measured[-1] > 1 > 100 * found.measured[0] / 10


def test_a_half_is_the_least_weight_under_which_larger_errors_pull_no_less(compared):
    found = compared("pull-of-the-likelihood")
    before_cap = found.x < 1.0
    turn = found.x > 2 * EQUATIONS.SPREAD
    assert (np.diff(found.measured[before_cap & turn]) < 0).all()
    assert (np.diff(compared("pull-of-half").measured) > -1e-3).all()
    less = EQUATIONS.pull(0.4).measured[before_cap & turn]
    assert (np.diff(less) < 0).any()


def test_the_optimal_policy_survives_an_affine_reward_unless_something_terminates():
    changed = EQUATIONS.changed_actions
    assert changed(terminating=0.0, intercept=3.0, shrink=0.05) == 0.0
    assert changed(terminating=0.5, intercept=0.5, shrink=1.0) == pytest.approx(0.115, abs=1e-3)
    assert changed(terminating=0.5, intercept=3.0, shrink=1.0) == pytest.approx(0.395, abs=1e-3)
    uneven = np.random.default_rng(0).uniform(0, 2, (20, 4))
    assert changed(terminating=0.0, intercept=0.0, shrink=uneven) > 0.1
    # A factor below 1 − 1/β turns the ranking round.
    assert changed(terminating=0.0, intercept=0.0, shrink=-0.5) > 0.5


def test_a_shrunken_critic_is_a_hotter_policy():
    """§2.1: the soft policy of wQ at temperature α is that of Q at α/w."""
    q = np.random.default_rng(0).normal(size=(5, 4))
    weight, alpha = 0.3, 0.2

    def soft(values, temperature):
        odds = np.exp(values / temperature)
        return odds / odds.sum(axis=1, keepdims=True)

    np.testing.assert_allclose(soft(weight * q + 7.0, alpha), soft(q, alpha / weight), rtol=1e-9)


def test_a_direct_floor_passes_the_change_where_the_page_says():
    """§1.3: 0.0067/√(2(1 − κ)) of the change is above 1 from κ = 0.99998 on."""
    floor = np.exp(0.5 * DynamicsConfig().logvar_min)
    assert floor == pytest.approx(0.0067, abs=5e-5)
    over = [floor / np.sqrt(2 * (1 - kappa)) for kappa in (0.99997, 0.99998)]
    assert over[0] < 1 < over[1]


def test_the_likelihood_knows_no_unit_but_for_its_bounds():
    """Twice the NLL moves by 2 ln u, the same for every prediction: minimisers correspond."""
    generator = np.random.default_rng(0)
    mean, logvar, z = (jnp.asarray(generator.normal(size=(2, 9, 3)), jnp.float32) for _ in range(3))
    unit = 2.0**-7
    plain = nll(Gaussian(mean, logvar), z)
    other = nll(Gaussian(mean * unit, logvar + 2 * jnp.log(jnp.float32(unit))), z * unit)
    np.testing.assert_allclose(other - plain, 2 * np.log(unit), rtol=1e-5)


def test_least_squares_does_not_care_which_target_it_is_given(compared):
    direct, residual = compared("decay-direct"), compared("decay-residual")
    assert direct.measured[0] == pytest.approx(residual.measured[0], abs=1e-12)
    # Weight decay does: one shrinks to the mean, the other to persistence, both by 1/(1 + λ)
    # whatever κ the sample has.
    shrunk = 1 / (1 + direct.x)
    np.testing.assert_allclose(direct.measured, direct.measured[0] * shrunk, rtol=1e-9)
    np.testing.assert_allclose(
        1 - residual.measured, (1 - residual.measured[0]) * shrunk, rtol=1e-9
    )
    assert direct.measured[-1] < 0.02
    assert residual.measured[-1] > 0.99
    # And the innovation to neither: however strong, it leaves the slope of the data.
    innovation = compared("decay-innovation")
    assert innovation.measured[0] == pytest.approx(direct.measured[0], abs=1e-12)
    assert innovation.measured[-1] == pytest.approx(EQUATIONS.KAPPA, abs=0.01)


def test_an_innovation_is_never_the_larger_target(compared):
    found = compared("innovation-variance")
    assert (found.measured <= 1.02 * found.usual).all()
    assert found.measured[1] < 0.8 < 1.0  # κ = −½, where the change has three times the variance


def test_noise_lifts_any_action_by_what_follows_it_alone(compared):
    """§2.2: γ times as much as the action that the critic recommends."""
    found = compared("exploited-noise")
    best, any_one = EQUATIONS.lifted(8)
    assert best == found.measured[3]
    assert any_one == pytest.approx(EQUATIONS.DISCOUNT * best, rel=0.01)
    assert any_one == pytest.approx(EQUATIONS.DISCOUNT * found.predicted[3], rel=0.03)


def test_every_equation_has_its_figure_and_stands_on_the_page():
    page = (ROOT / "docs" / "theory.md").read_text(encoding="utf-8")
    shown = re.findall(r"figures/theory-([\w-]+)\.svg", page)
    assert set(shown) == set(EQUATIONS.EQUATIONS)
    for name in shown:
        svg = (ROOT / "docs" / "figures" / f"theory-{name}.svg").read_text(encoding="utf-8")
        assert svg.lstrip().startswith("<?xml")
        assert "</svg>" in svg
