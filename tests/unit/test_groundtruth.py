"""Real states come back exactly, or are left out and counted; nothing is guessed."""

import dataclasses

import gymnasium
import numpy as np
import pytest

from envs_for_tests import Lqr
from ftfl.errors import FtflError
from ftfl.forensics.audit import stored_paths
from ftfl.forensics.groundtruth import MINIMUM_STATES, choose_rows, visit
from known import subject_of

MODULE = "test_groundtruth"  # environments below are made by name, as users make theirs
TASKS = [
    "gym/Pendulum-v1",
    "gym/Hopper-v5",
    "gym/Ant-v5",
    "dmc/cartpole-swingup",
    "dmc/reacher-hard",
    "dmc/hopper-stand",
    "envs_for_tests:make_simulated_lqr",
]


def two_steps(moment):
    """The stored way again after another one was taken, as bits, and how far the other went."""
    size = moment.env.spec.act_dim
    away = moment.play(lambda t, obs: np.full(size, 0.9), 6)
    again = moment.play(lambda t, obs: np.full(size, 0.9), 6)
    assert away.obs.tobytes() == again.obs.tobytes()
    assert away.reward.tobytes() == again.reward.tobytes()
    return away


@pytest.mark.parametrize("task", TASKS)
def test_states_are_restored_bit_for_bit(task):
    subject = subject_of(task, 130, episode_steps=65)
    rows = choose_rows(subject, 10, 5)
    found = visit(subject, rows, two_steps)
    assert found.rows.tolist() == rows.tolist()
    assert found.dropped == {}
    assert found.method == "copies of the simulator"
    for row, path in zip(found.rows, found.results, strict=True):
        assert path.obs[0].tobytes() == subject.rows.obs[row].tobytes()


class Hidden(Lqr):
    """Keeps its state where no copy finds it."""

    vault: dict = {}  # noqa: RUF012
    replayable = True

    def reset(self, **kwargs):
        obs, info = super().reset(**kwargs)
        Hidden.vault["x"] = self.x
        return obs, info

    def step(self, action):
        self.x = Hidden.vault["x"]
        result = super().step(action)
        Hidden.vault["x"] = self.x
        return result


def make_hidden():
    return Hidden()


def test_where_a_copy_is_not_exact_the_way_from_the_reset_is_walked_again():
    subject = subject_of(f"{MODULE}:make_hidden", 120)
    found = visit(subject, choose_rows(subject, 30, 6), two_steps)
    assert found.method == "replays from the reset"
    assert len(found.notes) == 1
    assert len(found.results) >= MINIMUM_STATES
    assert found.dropped == {}


class Restless(Lqr):
    """Declared replayable, and is not."""

    replayable = True
    made = 0

    def reset(self, **kwargs):
        Restless.made += 1
        _, info = super().reset(**kwargs)
        self.x += 1e-6 * Restless.made
        return np.array([self.x], np.float32), info


class Drifting(Lqr):
    """Repeats its resets only."""

    replayable = True
    steps = 0

    def step(self, action):
        Drifting.steps += 1
        self.x += 1e-6 * Drifting.steps
        return super().step(action)


def make_restless():
    return Restless()


def make_drifting():
    return Drifting()


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        ("make_restless", "whose episode began differently"),
        ("make_drifting", "where the simulator did not repeat the run"),
    ],
)
def test_a_simulator_that_does_not_repeat_itself_gives_no_verdict(make, reason):
    subject = subject_of(f"{MODULE}:{make}", 100)
    found = visit(subject, choose_rows(subject, 25, 5), two_steps)
    assert len(found.results) == 0
    assert found.method == "copies of the simulator"
    with pytest.raises(FtflError, match=rf"only 0 of 25 real states .*{reason}"):
        found.require()


def test_one_altered_row_costs_its_episode_from_there_on_and_no_other():
    subject = subject_of("envs_for_tests:make_simulated_lqr", 100)
    subject.rows.reward[45] += 1.0  # the sixth row of the third episode
    rows = np.arange(100)
    found = visit(subject, rows, two_steps)
    assert sorted(set(rows) - set(found.rows.tolist())) == list(range(45, 60))
    assert sum(found.dropped.values()) == 15
    assert found.method == "copies of the simulator"


def test_an_environment_that_may_not_be_replayed_is_refused_in_one_sentence():
    subject = subject_of("envs_for_tests:make_lqr", 40)
    with pytest.raises(FtflError, match=r"not declared replayable.*set replayable = True on it"):
        visit(subject, [0], two_steps)


def test_few_states_are_no_verdict():
    subject = subject_of("envs_for_tests:make_simulated_lqr", 40)
    found = visit(subject, choose_rows(subject, 10, 2), two_steps)
    with pytest.raises(FtflError, match="only 10 of 10 real states"):
        found.require()


def test_without_time_it_stops_once_there_are_enough_and_says_how_many_were_left():
    subject = subject_of("envs_for_tests:make_simulated_lqr", 100)
    told = []
    found = visit(subject, np.arange(100), two_steps, seconds=0.0, told=lambda *x: told.append(x))
    assert len(found.results) == MINIMUM_STATES
    assert found.dropped == {"left out for want of time": 100 - MINIMUM_STATES}
    assert told[-1] == (100, 100)


def test_what_is_left_when_time_runs_out_stands_for_the_whole_run():
    subject = subject_of("envs_for_tests:make_simulated_lqr", 200, episode_steps=10)
    found = visit(subject, np.arange(200), two_steps, seconds=0.0)
    assert len(found.results) == MINIMUM_STATES
    assert found.rows.tolist() == sorted(found.rows.tolist())
    # not the oldest episodes, which a policy that had not learned yet made
    assert subject.episode[found.rows].max() >= 5


class Ending(gymnasium.Wrapper):
    """Ends at |x| > 0.6."""

    def step(self, action):
        obs, reward, _, truncated, info = self.env.step(action)
        return obs, reward, bool(abs(obs[0]) > 0.6), truncated, info


def make_ending():
    env = Ending(Lqr())
    env.replayable = True
    return env


def test_terminated_episodes_are_separate_and_branches_end_where_they_end():
    subject = subject_of(f"{MODULE}:make_ending", 150)
    ends = np.flatnonzero(subject.rows.terminated)
    assert len(ends) > 0
    assert {e.stop - 1 for e in subject.episodes} >= set(ends.tolist())
    found = visit(subject, choose_rows(subject, 40, 20), two_steps)
    assert found.dropped == {}
    for path in found.results:
        assert (path.end == "terminated") == (abs(path.obs[-1, 0]) > 0.6)
    assert "terminated" in {path.end for path in found.results}


def test_a_branch_goes_past_the_time_limit_and_stops_where_the_environment_itself_does():
    subject = subject_of("gym/Pendulum-v1", 210)
    (path,) = visit(subject, [195], lambda m: m.play(lambda t, o: np.zeros(1), 30)).results
    assert (path.steps, path.end) == (30, "going on")
    # the regulator counts its 20 steps by itself
    subject = subject_of("envs_for_tests:make_simulated_lqr", 40)
    (path,) = visit(subject, [15], lambda m: m.play(lambda t, o: np.zeros(1), 30)).results
    assert (path.steps, path.end) == (5, "truncated")


def test_an_environment_in_a_process_of_its_own_is_replayed_from_the_reset():
    subject = subject_of("envs_for_tests:make_simulated_lqr", 60)
    task = dataclasses.replace(subject.config.task, step_limit_seconds=20.0)
    elsewhere = dataclasses.replace(subject, config=dataclasses.replace(subject.config, task=task))
    found = visit(elsewhere, choose_rows(subject, 25, 3), two_steps)
    assert found.method == "replays from the reset"
    assert len(found.results) == 25


def test_stored_actions_stand_in_where_no_simulator_may_be_asked():
    subject = subject_of("envs_for_tests:make_lqr", 50)
    paths, episode = stored_paths(subject, 25, 4)
    assert len(paths) == 25
    assert episode.tolist() == [row // 20 for row in np.linspace(0, 49, 25).astype(int)]
    for path, row in zip(paths, np.linspace(0, 49, 25).astype(int), strict=True):
        steps = min(4, 20 - row % 20, 50 - row)
        assert (path.steps, path.end) == (steps, "going on")
        np.testing.assert_array_equal(path.obs[:-1], subject.rows.obs[row : row + steps])
        np.testing.assert_array_equal(path.obs[-1], subject.rows.next_obs[row + steps - 1])
        np.testing.assert_array_equal(path.reward, subject.rewards[row : row + steps])
