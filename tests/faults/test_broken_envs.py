"""The catalogue of broken environments: never a false transition, always one clear sentence."""

import contextlib
import logging
import sys

import broken_envs
import numpy as np
import pytest
from broken_envs import CATALOGUE, HARMLESS, MAKE, RESET, STEPS

from ftfl.config import TaskConfig
from ftfl.envs import EnvFault, Guarded, make_env
from ftfl.envs.check import check_env
from ftfl.envs.make import make_task
from ftfl.errors import FtflError
from ftfl.types import Step

LIMIT = 1.0
IN_PROCESS = [entry for entry in CATALOGUE if not entry.isolated]
ISOLATED = [entry for entry in CATALOGUE if entry.isolated]
AT_MAKE = [entry for entry in CATALOGUE if entry.moment == MAKE]
LATER = [entry for entry in IN_PROCESS if entry.moment != MAKE]


@pytest.fixture(autouse=True)
def nothing_left_behind(tmp_path_factory, monkeypatch):
    """MuJoCo would leave a log file in the current directory."""
    here = tmp_path_factory.mktemp("here")
    monkeypatch.chdir(here)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    assert list(here.iterdir()) == []


def by_name(entry):
    return entry.name


def task(name):
    return f"broken_envs:{name}"


def one_sentence(text):
    return "\n" not in text and text.endswith(".")


def act(env, value=0.25):
    return env.step(np.full(env.spec.act_dim, value, np.float32))


def play(env, episodes):
    """Transitions (obs, next_obs, reward) up to the first fault, and the fault."""
    rows = []
    try:
        for episode in range(episodes):
            obs, ended = env.reset(episode), False
            while not ended:
                result = act(env)
                rows.append((obs, result.obs, result.reward))
                obs, ended = result.obs, result.terminated or result.truncated
    except EnvFault as fault:
        return rows, fault
    return rows, None


def test_the_catalogue_is_a_catalogue():
    assert len(CATALOGUE) >= 30
    assert len({entry.name for entry in CATALOGUE}) == len(CATALOGUE)
    assert all(hasattr(broken_envs, entry.name) for entry in CATALOGUE)
    causes = {entry.cause for entry in CATALOGUE}
    assert causes == {
        None, "observation", "reward", "contract", "exception", "simulator", "hang", "died",
    }  # fmt: skip


@pytest.mark.parametrize("entry", AT_MAKE, ids=by_name)
def test_what_cannot_be_used_is_refused_when_it_is_made(entry):
    with pytest.raises(FtflError, match=entry.message) as refusal:
        make_task(TaskConfig(name=task(entry.name)))
    assert one_sentence(str(refusal.value))
    assert str(refusal.value).startswith(task(entry.name))


def check_fault(entry, env):
    """Play until it breaks, see that it says so, and go on."""
    rows, fault = play(env, entry.episode)
    assert fault is not None, "nothing was noticed"
    text = str(fault)
    assert fault.cause == entry.cause
    assert fault.seed == entry.episode - 1
    assert fault.step == entry.moment
    with pytest.raises(EnvFault, match=entry.message):
        raise fault
    assert text.startswith(f"{task(entry.name)}: ")
    assert one_sentence(text)
    if entry.moment == RESET:
        assert fault.action is None
        assert text.endswith(f"(at reset; to reproduce: reset(seed={fault.seed})).")
    else:
        np.testing.assert_array_equal(fault.action, np.full(env.spec.act_dim, 0.25, np.float32))
        same = f"reset(seed={fault.seed}) and the same {fault.step} actions, the last [0.25"
        assert f"(at step {fault.step} of the episode; to reproduce: {same}" in text
    # Everything before the fault is a transition, and nothing else is.
    assert len(rows) == (entry.episode - 1) * STEPS + max(entry.moment - 1, 0)
    for obs, next_obs, reward in rows:
        assert np.isfinite([*obs, *next_obs, reward]).all()
    with pytest.raises(FtflError, match="call reset"):
        act(env)
    # The next episode is as good as any, or breaks in the same way.
    if fault.needs_restart:
        env.restart()
    _, next_fault = play(env, 1)
    assert next_fault is None or next_fault.cause == entry.cause
    return fault


@pytest.mark.parametrize("entry", LATER, ids=by_name)
def test_what_breaks_later_is_a_fault_and_leaves_no_transition(entry):
    with contextlib.closing(make_env(task(entry.name))) as env:
        fault = check_fault(entry, env)
    assert fault.needs_restart == (entry.cause == "exception")
    assert ("Traceback" in fault.details) == (entry.cause == "exception")


@pytest.mark.slow
@pytest.mark.parametrize("entry", ISOLATED, ids=by_name)
def test_what_hangs_or_dies_takes_only_its_own_process_along(entry):
    with contextlib.closing(make_env(task(entry.name), step_limit_seconds=LIMIT)) as env:
        fault = check_fault(entry, env)
    assert fault.needs_restart
    if entry.name in ("Crashes", "HangsInStep", "HangsInSecondReset"):
        assert 'broken_envs.py", line ' in fault.details  # where it was


@pytest.mark.parametrize("entry", IN_PROCESS, ids=by_name)
def test_doctor_says_it_too(entry):
    bad = [check for check in check_env(task(entry.name)) if not check.ok]
    expected = "make" if entry.moment == MAKE else "contract"
    assert [check.name for check in bad] == [expected]
    with pytest.raises(FtflError, match=entry.message):
        raise FtflError(bad[0].detail)
    assert one_sentence(bad[0].detail)
    assert bad[0].fix


@pytest.mark.slow
@pytest.mark.parametrize("name", ["HangsInStep", "Crashes"])
def test_doctor_survives_what_hangs_or_dies(name):
    (entry,) = (entry for entry in ISOLATED if entry.name == name)
    bad = [check for check in check_env(task(name), LIMIT) if not check.ok]
    assert [check.name for check in bad] == ["contract"]
    with pytest.raises(FtflError, match=entry.message):
        raise FtflError(bad[0].detail)


# Odd, and fine -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", HARMLESS)
def test_what_is_only_odd_works(name, caplog):
    with contextlib.closing(make_env(task(name))) as env:
        episodes = [env.reset(seed) for seed in (0, 1)]
        assert not np.array_equal(*episodes) or name == "NumpyScalars"
        obs = env.reset(0)
        kept, steps = obs.copy(), 0
        for _ in range(STEPS):
            action = np.full(1, 0.25, np.float32)
            result = env.step(action)
            assert (action == 0.25).all()
            np.testing.assert_array_equal(obs, kept)  # yesterday's observation is ours
            obs, kept = result.obs, result.obs.copy()
            assert obs.dtype == np.float32
            assert type(result.reward) is float
            assert {type(result.terminated), type(result.truncated)} == {bool}
            steps += 1
            if result.terminated or result.truncated:
                break
        assert steps == {"OneStepEpisodes": 1}.get(name, STEPS)
    assert ("close raised OSError: the door is stuck" in caplog.text) == (name == "RaisesInClose")


def test_asymmetric_bounds_are_met_exactly():
    env = make_env(task("Asymmetric"))
    env.reset(0)
    assert [act(env, value).obs[0] for value in (-1, 0, 0.5, 1)] == [-4, -1, 0.5, 2]


def test_nested_parts_keep_their_places():
    env = make_env(task("Nested"))
    env.reset(0)
    assert env.spec.obs_names == ("clock", "leg/hip[0]", "leg/knee[0]")
    assert act(env).obs[:2].tolist() == [1, 0.25]


def test_huge_rewards_are_counted_and_do_not_become_usual():
    env = make_env(task("HugeReward"))
    for seed in range(8):
        env.reset(seed)
        for _ in range(STEPS):
            act(env)
    assert env.suspicious_rewards == 1
    env.restart()
    assert env.suspicious_rewards == 1  # what was counted stays counted
    for seed in range(8):
        env.reset(seed)
        for _ in range(STEPS):
            act(env)
    assert env.suspicious_rewards == 2


def test_a_first_reward_after_many_zeros_is_not_suspicious():
    class Sparse:  # an adapter
        spec = make_env(task("Sound")).spec
        rewards = iter([0.0] * 300 + [1.0] * 200)

        def reset(self, seed):
            return np.zeros(2, np.float32)

        def step(self, action):
            return Step(np.zeros(2, np.float32), next(self.rewards), False, False)

        def render(self):
            raise FtflError("no")

        def close(self):
            pass

        def simulator_warnings(self):
            return None

    env = Guarded(Sparse)
    env.reset(0)
    for _ in range(500):
        act(env)
    assert env.suspicious_rewards == 0


# What only doctor can see ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "row", "status", "message"),
    [
        ("Unrepeatable", "same seed, same episode", "problem", "env not reproducible: two rollou"),
        ("Unrepeatable2", "same seed, same episode", "note", "env not reproducible: two rollouts"),
        ("RepeatableOnce", "same seed, same episode", "problem", "made anew, it answers"),
        ("Deaf", "other seed, other episode", "problem", "seeds 1 and 2 give the same episode"),
        ("IgnoresItsLimit", "time limit", "problem", "20 steps are declared, but an episode went"),
        ("NeverEnds", "time limit", "note", "none declared, and no episode ended"),
        ("WrongTermination", "termination function", "problem", "250 of 1000 steps disagree"),
        ("WrongReward", "reward function", "problem", "1000 of 1000 steps disagree"),
        ("Silent", "termination function", "problem", "none"),
        ("LeavesItsBox", "declared bounds", "note", "2 of 2 entries leave the declared Box, obs"),
        ("LargeIntegers", "large numbers", "note", r"obs[0] reached 1e+09, where float32 cannot"),
        ("HugeReward", "rewards", "note", "1 of 1000 paid a million times the mean or more, at"),
    ],
)
def test_doctor_finds_broken_promises(name, row, status, message):
    checks = {check.name: check for check in check_env(task(name))}
    assert checks[row].status == status
    assert message in checks[row].detail
    assert checks[row].fix
    others = [check.name for check in checks.values() if check.status != "ok"]
    assert others == [row] or name == "LeavesItsBox"


def test_doctor_has_nothing_against_a_sound_environment(caplog):
    caplog.set_level(logging.INFO)
    checks = check_env(task("Sound"))
    assert {check.status for check in checks} == {"ok"}
    assert not caplog.records
