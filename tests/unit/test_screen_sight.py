"""What the screen sees: a screen that knows the errors, one that knows nothing, and real ones."""

import numpy as np
import pytest

from ftfl.errors import FtflError
from ftfl.forensics.autopsy import examine
from ftfl.forensics.evidence import plain
from ftfl.forensics.instruments.screen import screen_sight
from ftfl.forensics.judging import Judged, judge
from ftfl.forensics.registry import INSTRUMENTS
from ftfl.forensics.subject import Subject
from helpers import tiny
from known import saved

pytestmark = pytest.mark.usefixtures("quick_compiles")
SIMULATED = "envs_for_tests:make_simulated_lqr"
ROWS = 4_000


def made_up(measure, noise=2.0, keep=0.5):
    """Rewards and states wrong by known amounts, and a screen that stores the lowest measures."""
    rng = np.random.default_rng(0)
    size = rng.uniform(0, noise, ROWS)
    reward, next_obs = rng.normal(size=ROWS), rng.normal(size=(ROWS, 2))
    told = reward + size * rng.choice([-1, 1], ROWS)
    states = next_obs + 0.1 * rng.normal(size=(ROWS, 2))
    uncertainty = measure(rng, size, np.mean((states - next_obs) ** 2, axis=1))
    stored = uncertainty <= np.quantile(uncertainty, keep)
    judged = Judged(stored, uncertainty, told, states)
    return screen_sight(
        judged, reward, next_obs, np.ones(2), np.arange(ROWS) // 100, True, "made-up", "raw"
    ), size, reward  # fmt: skip


def test_a_screen_that_knows_the_rewards_error_is_told_so_and_what_it_keeps_is_exact():
    sight, size, reward = made_up(lambda rng, wrong, state: wrong)
    assert sight.sees_reward.value == pytest.approx(1.0)
    assert abs(sight.sees_state.value) < 0.05
    assert sight.stored.value == pytest.approx(0.5)
    variance = reward.var()
    assert sight.reward_r2.value == pytest.approx(1 - (size**2).mean() / variance)
    kept = size[size <= np.quantile(size, 0.5)]
    assert sight.reward_r2_stored.value == pytest.approx(1 - (kept**2).mean() / variance)
    assert sight.reward_r2_stored.low > 0.5 > sight.reward_r2.high
    assert sight.findings() == []


def test_a_screen_that_looks_at_states_alone_is_found_blind_and_lets_bad_rewards_through():
    sight, _, _ = made_up(lambda rng, wrong, state: state)
    assert sight.sees_state.value == pytest.approx(1.0)
    assert sight.sees_reward.low < 0 < sight.sees_reward.high
    assert sight.state_error_stored.high < 0.5
    names = {finding.name: finding for finding in sight.findings()}
    assert names.keys() == {"screen-lets-worthless-rewards-through", "screen-blind-to-reward"}
    assert all("--scale unit" in finding.advice for finding in names.values())


def test_a_blind_screen_over_a_sound_reward_is_no_finding():
    sight, _, _ = made_up(lambda rng, wrong, state: rng.uniform(size=ROWS), noise=0.2)
    assert abs(sight.sees_reward.value) < 0.05
    assert sight.findings() == []


def test_what_cannot_be_said_is_none():
    rows = 50
    judged = Judged(np.zeros(rows, bool), np.ones(rows), np.zeros(rows), np.zeros((rows, 1)))
    sight = screen_sight(
        judged, np.zeros(rows), np.ones((rows, 1)), np.ones(1), np.arange(rows), True, "x", "unit"
    )
    assert sight.stored.value == 0
    assert (sight.sees_reward, sight.sees_state) == (None, None)
    assert (sight.reward_r2, sight.reward_r2_stored, sight.state_error_stored) == (None,) * 3
    assert plain(sight.numbers())["reward_r2_stored"] is None
    gone = judged._replace(reward=np.full(rows, np.nan))
    with pytest.raises(FtflError, match="none of 50 imagined rows is finite"):
        screen_sight(
            gone, np.zeros(rows), np.ones((rows, 1)), np.ones(1), np.arange(rows), True, "x", "raw"
        )


@pytest.mark.parametrize("algo", ["m2ac", "macura", "infoprop", "mopo", "certainty"])
def test_every_screen_of_a_real_run_is_asked(tmp_path, algo):
    subject = Subject.load(saved(tmp_path / "seed_0", tiny(algo, SIMULATED, steps=40), 40))
    (instrument,) = (i for i in INSTRUMENTS if i.name == "screen_sight")
    found = examine(subject, quick=True, instruments=[instrument])
    sight = found.results["screen_sight"]
    assert 0 <= sight.stored.value <= 1
    assert -1 <= sight.sees_state.value <= 1
    if algo == "mopo":
        assert sight.stored.value == 1
        assert sight.reward_r2_stored.value == pytest.approx(sight.reward_r2.value)
    rows = subject.rows
    again = judge(subject.state, subject.config, subject.spec, rows.obs, rows.action, 3)
    assert again.stored.shape == (40,)
    assert again.next_obs.shape == (40, subject.spec.obs_dim)


def test_plain_runs_do_not_miss_it_and_say_so_if_asked(tmp_path):
    subject = Subject.load(saved(tmp_path / "seed_0", tiny("ftfl", SIMULATED, steps=40), 40))
    (instrument,) = (i for i in INSTRUMENTS if i.name == "screen_sight")
    found = examine(subject, quick=True, instruments=[instrument])
    assert (found.results, found.unmeasured) == ({}, {})
    rows = subject.rows
    with pytest.raises(FtflError, match="stores every synthetic row"):
        judge(subject.state, subject.config, subject.spec, rows.obs, rows.action, 0)
