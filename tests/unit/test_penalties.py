"""What a screen takes from rewards is measured apart from what the model says of them."""

import jax.numpy as jnp
import numpy as np
import pytest

from ftfl.dynamics.predict import predict
from ftfl.forensics import penalties
from ftfl.forensics.penalties import make_penalty
from ftfl.forensics.subject import Subject
from ftfl.rollouts.uncertainty import one_vs_rest
from helpers import tiny
from known import saved

pytestmark = pytest.mark.usefixtures("quick_compiles")
SIMULATED = "envs_for_tests:make_simulated_lqr"


def subject_of(folder, algo, **changes):
    return Subject.load(saved(folder / "seed_0", tiny(algo, SIMULATED, steps=40, **changes), 40))


def members_of(subject):
    rows = subject.rows
    state, config = subject.state.dynamics, subject.config.dynamics
    return predict(state, jnp.asarray(rows.obs), jnp.asarray(rows.action), config)


def test_mopo_takes_the_widest_members_std(tmp_path):
    penalty = {"rollouts.screening.std_penalty": 0.7, "rollouts.screening.units": "raw"}
    subject = subject_of(tmp_path, "mopo", **penalty)
    std = np.asarray(members_of(subject).std, np.float64)
    expected = 0.7 * np.sqrt((std**2).sum(axis=-1)).max(axis=0)
    taken = subject.model.penalty(np.asarray(subject.rows.obs), np.asarray(subject.rows.action))
    np.testing.assert_allclose(taken, expected, rtol=1e-5)
    assert "before the penalty" in penalties.note(subject.config)


def test_m2ac_takes_the_divergence_of_each_elite_on_average(tmp_path):
    penalty = {"rollouts.screening.kl_penalty": 0.01}
    subject = subject_of(tmp_path, "m2ac", **penalty)
    members, count = members_of(subject), len(subject.rewards)
    expected = np.mean(
        [
            one_vs_rest(members, jnp.full(count, e, jnp.int32))
            for e in subject.state.dynamics.elites
        ],
        axis=0,
    )
    taken = subject.model.penalty(np.asarray(subject.rows.obs), np.asarray(subject.rows.action))
    np.testing.assert_allclose(taken, 0.01 * expected, rtol=1e-4)


@pytest.mark.parametrize("screen", ["keep-all", "macura", "certainty", "infoprop"])
def test_screens_that_take_nothing_have_no_penalty_and_all_but_one_are_named(tmp_path, screen):
    config = tiny("ftfl", SIMULATED, **{"rollouts.screen": screen})
    told = penalties.note(config)
    assert (told is None) == (screen == "keep-all")
    if told is not None:
        assert screen in told
        assert ("draws anew" in told) == (screen == "infoprop")
    subject = subject_of(tmp_path, "ftfl")
    assert make_penalty(subject.state, config, subject.spec.obs_dim) is None
