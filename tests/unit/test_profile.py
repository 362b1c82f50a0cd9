"""The structural profile and its predictions, on tasks whose structure was set."""

import dataclasses
import math

import numpy as np
import pytest

from ftfl import presets
from ftfl.envs.faults import EnvFault
from ftfl.errors import FtflError
from ftfl.forensics.foresight import foresee, recommend
from ftfl.forensics.profile import collect, participation, profile, uniform
from ftfl.types import Step
from helpers import spec
from known_cases import autoregressive, linear, transitions

CONFIG = presets.build("gym/Pendulum-v1", "mbpo", "laptop").dynamics


def look(rows, **task):
    size = rows.obs.shape[1]
    described = dataclasses.replace(spec(obs_dim=size, act_dim=rows.action.shape[1]), **task)
    seen = profile(rows, described)
    found = foresee(seen, CONFIG, "random actions")
    return seen, {f.name: f for f in found.findings}, found.recommended


def test_sound_scales_are_found_innocent():
    seen, found, best = look(autoregressive(episodes=20, steps=100, kappas=[0.9, 0.8]))
    assert found == {}
    assert best.preset == "mbpo"
    assert best.to_json()["verified_by_training"] is False
    assert (seen.rows, seen.episodes, seen.termination) == (2_000, 20, "known")
    np.testing.assert_allclose(seen.kappa, [0.9, 0.8], atol=0.05)
    np.testing.assert_allclose(seen.ratio, np.sqrt(2 * (1 - seen.kappa)), rtol=0.1)
    assert seen.reward_rows > 500


@pytest.mark.parametrize(
    ("scale", "names", "severity"),
    [
        (2.0**-14, {"reward-below-adam-step", "reward-below-floor", "reward-starved"}, "failure"),
        (0.01, {"reward-below-adam-step", "reward-below-floor", "reward-starved"}, "warning"),
        (0.03, {"reward-starved"}, None),
    ],
)
def test_a_small_reward_is_foreseen_to_fail_with_raw_targets(scale, names, severity):
    rows = autoregressive(episodes=20, steps=100, kappas=[0.9, 0.7, 0.8], reward_scale=scale)
    _, found, best = look(rows)
    assert found.keys() == names
    assert best.preset == "ftfl"
    if severity is not None:
        assert found["reward-below-adam-step"].severity == severity
    assert all(name in best.because for name in names)


@pytest.mark.parametrize(
    ("scale", "severity"), [(30.0, None), (2_000.0, "warning"), (2.0**15, "failure")]
)
def test_a_large_reward_is_foreseen_to_drown_the_states_of_raw_targets(scale, severity):
    rows = autoregressive(episodes=20, steps=100, kappas=[0.9, 0.7, 0.8], reward_scale=scale)
    seen, found, best = look(rows)
    assert found.keys() == ({"states-starved"} if severity else set())
    assert best.preset == ("ftfl" if severity else "mbpo")
    if severity:
        assert found["states-starved"].severity == severity
        share = found["states-starved"].evidence["states_signal_share"]
        assert share.value == pytest.approx(math.sqrt(seen.table.dynamics_over_reward.value), 1e-3)
        assert "--scale unit" in found["states-starved"].advice


def test_without_a_reward_signal_it_cannot_tell():
    rows = autoregressive(episodes=5, steps=50, kappas=[0.9])
    silent = rows._replace(reward=np.zeros(250, np.float32))
    seen, found, best = look(silent)
    assert found.keys() == {"cannot-tell-yet"}
    assert "needs transitions that meet the reward" in found["cannot-tell-yet"].advice
    assert "the reward was 0 in all 250 steps" in found["cannot-tell-yet"].sentence
    assert best.preset is None
    assert math.isinf(seen.table.dynamics_over_reward.value)
    once = silent._replace(reward=np.eye(1, 250, 7, dtype=np.float32)[0])
    assert "rests on about 1.0 of 250 steps" in look(once)[1]["cannot-tell-yet"].sentence


def test_where_nothing_moves_nothing_is_recommended():
    rows = autoregressive(episodes=5, steps=50, kappas=[0.9])
    _, found, best = look(rows._replace(obs=0 * rows.obs, next_obs=0 * rows.next_obs))
    assert found["nothing-moves"].severity == "warning"
    assert "constant-channels" not in found
    assert best.preset is None


def test_a_rare_reward_is_said_to_be_rare():
    rows = autoregressive(episodes=10, steps=100, kappas=[0.9])
    rare = rows._replace(reward=(np.arange(1_000) % 500 < 15).astype(np.float32))
    seen, found, _ = look(rare)
    assert found.keys() == {"reward-rare"}
    assert seen.reward_rows == pytest.approx(30)
    assert seen.reward_episodes == pytest.approx(2)
    assert found["reward-rare"].severity == "info"
    long = autoregressive(episodes=40, steps=100, kappas=[0.9])
    few = long._replace(reward=(np.arange(4_000) % 200 < 1).astype(np.float32))
    warned = look(few)[1]["reward-rare"]  # 20 of 4,000 carry it
    assert (warned.severity, warned.evidence["carrying_share"]) == ("warning", pytest.approx(0.005))
    assert warned.advice.startswith("--algo sac until more of it is found")
    assert look(few)[2].preset == "sac"
    lucky = rows._replace(reward=(np.arange(1_000) < 30).astype(np.float32))
    assert look(lucky)[1].keys() == {"cannot-tell-yet"}  # one episode says nothing of the others


def test_infos_recommend_nothing_and_slow_channels_alone_ask_for_residual_targets_at_unit_scale():
    assert recommend({"reward-starved": "info"}, False).preset == "mbpo"
    assert recommend({"reward-starved": "warning"}, False).preset == "ftfl"
    assert recommend({"slow-channels-below-floor": "warning"}, False).preset == "mbpo-unit"
    both = {"reward-starved": "warning", "slow-channels-below-floor": "warning"}
    assert recommend({**both, "reward-rare": "info"}, False).preset == "mbpo-unit"
    assert recommend({**both, "reward-rare": "warning"}, False).preset == "sac"
    assert recommend(both, True).preset is None


def test_slow_channels_are_foreseen_to_trouble_direct_prediction():
    rows = autoregressive(episodes=20, steps=100, kappas=[0.9999, 0.99999], reward_scale=1.0)
    rows = rows._replace(reward=1e-3 * np.random.default_rng(0).normal(size=2_000))
    seen, found, best = look(rows)
    assert "slow-channels" in found
    assert best.preset == "mbpo-unit"
    assert seen.ratio.max() < 0.05
    drowned = found["slow-channels-below-floor"]
    assert drowned.advice.startswith("--target residual --scale unit")


def test_changes_too_small_for_the_raw_floor_ask_for_unit_scale_and_one_of_many_does_not():
    kappas, small = [0.8, 0.8, 0.9, 0.7, 0.6], 2.0**-12
    rows = autoregressive(episodes=20, steps=100, kappas=kappas)
    shrunk = np.array([small, small, 1, 1, 1], np.float32)
    _, found, best = look(rows._replace(obs=rows.obs * shrunk, next_obs=rows.next_obs * shrunk))
    assert found.keys() == {"changes-below-floor"}
    assert "2 of 5 moving channels" in found["changes-below-floor"].sentence
    assert (best.preset, "changes-below-floor" in best.because) == ("ftfl", True)
    shrunk[1] = 1
    _, found, best = look(rows._replace(obs=rows.obs * shrunk, next_obs=rows.next_obs * shrunk))
    assert (found, best.preset) == ({}, "mbpo")


def test_a_share_that_few_episodes_leave_open_is_said_to_be_open():
    rows = autoregressive(episodes=3, steps=30, kappas=[0.9, 0.7], reward_scale=0.036)
    seen, found, _ = look(rows)
    v = seen.table.dynamics_over_reward
    assert 1 / math.sqrt(1 + v.value) < 0.1 / math.sqrt(3) < 1 / math.sqrt(1 + v.low)
    assert found["reward-starved"].severity == "info"
    assert found["reward-starved"].sentence.endswith("; these data leave it open.")
    large = autoregressive(episodes=3, steps=30, kappas=[0.9, 0.7], reward_scale=180.0)
    seen, found, _ = look(large)
    v = seen.table.dynamics_over_reward
    assert math.sqrt(v.value) < 5e-3 < math.sqrt(v.high)
    assert found["states-starved"].severity == "info"
    assert "leave it open" in found["states-starved"].sentence


def channels(*columns, reward=None):
    after = np.stack(columns, axis=1)
    before = np.concatenate([after[:1], after[:-1]])
    rng = np.random.default_rng(0)
    reward = rng.normal(size=len(after)) if reward is None else reward
    return transitions(before, rng.uniform(-1, 1, (len(after), 1)), reward, after)


def test_touch_is_told_from_a_fall():
    """A sensor that rests and jumps, and a height that falls smoothly and then rests nearly."""
    t = np.arange(2_000)
    touch = ((t // 7) % 5 == 0) * (1.0 + np.sin(t))
    fall = np.exp(-t / 20.0) + 1e-4 * np.sin(t)
    noise = np.random.default_rng(1).normal(size=2_000)
    seen, found, _ = look(channels(touch, fall, noise))
    assert seen.jump[1] > 0.5  # most of the fall is in few steps, but it carries on
    assert seen.continued[1] > 0.5
    assert found["intermittent-channels"].evidence["channels_share"] == pytest.approx(1 / 3)
    assert "(obs[0])" in found["intermittent-channels"].sentence
    assert "residuals-larger-than-states" in found


def test_constant_and_spiking_channels_are_named():
    spike = np.zeros(4_000)
    spike[[5, 900]] = 1.0
    noise = np.random.default_rng(1).normal(size=4_000)
    _, found, _ = look(channels(noise.cumsum() * 0.1, np.full(4_000, 3.0), spike))
    assert "(obs[1])" in found["constant-channels"].sentence
    assert "(obs[2])" in found["near-constant-channels"].sentence


def test_many_outputs_and_an_unknown_end_are_said():
    rows = linear(500, (1.0,) * 60, 10.0)
    _, found, best = look(rows, termination=None)
    assert found["termination-unknown"].severity == "failure"
    assert best.preset == "sac"
    assert "one of 61 outputs" in found["many-outputs"].sentence
    learned = look(rows, termination=None, learned_termination=True)[1]
    assert "termination-unknown" not in learned


def test_one_episode_gives_no_interval():
    rows = autoregressive(episodes=1, steps=300, kappas=[0.5, 0.6])
    seen, found, _ = look(rows)
    assert "one-episode" in found
    assert seen.table.dynamics_over_reward.low == -math.inf
    with pytest.raises(FtflError, match="1 transitions show no spread"):
        look(autoregressive(episodes=1, steps=1, kappas=[0.5]))


def test_participation_counts_what_carries():
    assert participation(np.array([1.0, 1.0, 1.0, 0.0])) == pytest.approx(3)
    assert participation(np.array([0.0, 9.0])) == 1
    assert participation(np.zeros(3)) == 0
    assert participation(np.full(4, 1e-300)) == pytest.approx(4)


class Counter:
    """Counts steps; fails in every third if told so; never ends by itself."""

    spec = spec(obs_dim=1, act_dim=1)

    def __init__(self, fails=None):
        self.fails, self.steps, self.resets = fails, 0, []

    def reset(self, seed):
        self.resets.append(seed)
        return np.zeros(1, np.float32)

    def restart(self):
        raise NotImplementedError

    def render(self):
        raise NotImplementedError

    def close(self):
        pass

    def step(self, action):
        self.steps += 1
        if self.fails and self.steps % 3 == 0:
            raise EnvFault("test/counter", self.fails, "it failed", 0, 1, action)
        end = self.steps % 10 == 0
        return Step(np.full(1, self.steps, np.float32), 1.0, end, False)


def test_collecting_ends_with_the_steps_or_the_time():
    env, told = Counter(), []
    got = collect(env, uniform(1, 0), 25, 0, 60.0, lambda *what: told.append(what))
    assert len(got.rows.reward) == 25
    assert not got.cut_short
    assert len(set(env.resets)) == 3
    assert int(got.rows.terminated.sum()) == 2
    assert told[-1] == (25, 25)
    again = collect(Counter(), uniform(1, 0), 25, 0, 60.0)
    np.testing.assert_array_equal(got.rows.action, again.rows.action)
    with pytest.raises(FtflError, match="did not finish a single step"):
        collect(Counter(), uniform(1, 0), 25, 0, 0.0)


def test_a_failing_environment_loses_rows_and_is_given_up_at_ten():
    got = collect(Counter(fails="observation"), uniform(1, 0), 25, 0, 60.0)
    assert (len(got.rows.reward), got.faults) == (17, 8)
    with pytest.raises(FtflError, match="the environment failed 10 times, at last"):
        collect(Counter(fails="reward"), uniform(1, 0), 100, 0, 60.0)
