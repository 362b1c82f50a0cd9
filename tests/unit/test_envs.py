"""Environments: names, layouts, ranges, seeds, endings, units, refusals and guards."""

import subprocess
import sys
import types
from collections import OrderedDict
from pathlib import Path

import gymnasium
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

from ftfl.envs import EnvFault, Guarded, list_tasks, make_env, require_termination
from ftfl.envs.check import check_env
from ftfl.envs.spaces import ActionRange
from ftfl.errors import FtflError
from ftfl.types import Step

TASKS = list_tasks()
# obs and action dimensions, ALGORITHMS §2 and §14.4
DIMENSIONS = {
    "dmc/acrobot-swingup": (6, 1),
    "dmc/ball-in-cup-catch": (8, 2),
    "dmc/cheetah-run": (17, 6),
    "dmc/finger-turn-hard": (12, 2),
    "dmc/fish-swim": (24, 5),
    "dmc/hopper-hop": (15, 4),
    "dmc/hopper-stand": (15, 4),
    "dmc/humanoid-run": (67, 21),
    "dmc/pendulum-swingup": (3, 1),
    "dmc/quadruped-walk": (78, 12),
    "dmc/reacher-hard": (6, 2),
    "dmc/swimmer-swimmer6": (25, 5),
    "dmc/walker-run": (24, 6),
    "gym/Ant-v4": (27, 8),
    "gym/Ant-v5": (105, 8),
    "gym/HalfCheetah-v4": (17, 6),
    "gym/Hopper-v5": (11, 3),
    "gym/Humanoid-v4": (376, 17),
    "gym/Humanoid-v5": (348, 17),
    "gym/InvertedDoublePendulum-v4": (11, 1),
    "gym/InvertedDoublePendulum-v5": (9, 1),
    "gym/InvertedPendulum-v4": (4, 1),
    "gym/MountainCarContinuous-v0": (2, 1),
    "gym/Pendulum-v1": (3, 1),
    "gym/Walker2d-v5": (17, 6),
}


def rollout(env, seed, steps=20, action_seed=0):
    """All observations and rewards of an episode's start, as one float64 vector."""
    rng = np.random.default_rng(action_seed)
    numbers = [env.reset(seed)]
    for _ in range(steps):
        result = env.step(rng.uniform(-1, 1, env.spec.act_dim).astype(np.float32))
        numbers += [result.obs, np.array([result.reward])]
        if result.terminated or result.truncated:
            break
    return np.concatenate(numbers)


def repeat(env, action, times):
    for _ in range(times):
        env.step(action)


def box(*shape, low=-1.0, high=1.0, dtype=np.float32):
    return spaces.Box(low, high, shape, dtype)


# Names and layouts -------------------------------------------------------------------------------


@pytest.mark.parametrize("task", TASKS["dmc"] + TASKS["gym"])
def test_every_task_constructs_steps_and_repeats_its_episode(task):
    env = make_env(task)
    spec = env.spec
    assert spec.task == task
    assert (spec.obs_dim, spec.act_dim) == DIMENSIONS.get(task, (spec.obs_dim, spec.act_dim))
    assert len(set(spec.obs_names)) == spec.obs_dim
    assert spec.replayable
    assert spec.termination is not None
    fresh = rollout(env, seed=7)
    obs = env.reset(3)
    result = env.step(np.zeros(spec.act_dim, np.float32))
    for vector in (obs, result.obs):
        assert vector.dtype == np.float32
        assert vector.shape == (spec.obs_dim,)
    assert isinstance(result, Step)
    assert type(result.reward) is float
    assert type(result.terminated) is bool
    assert type(result.truncated) is bool
    np.testing.assert_array_equal(fresh, rollout(env, seed=7))
    assert not np.array_equal(env.reset(7), env.reset(8))


def test_the_lists_hold_the_published_suites():
    assert len(TASKS["dmc"]) == 49  # 51 of the suite less two lqr
    assert len(TASKS["gym"]) == 23  # 11 MuJoCo tasks in two versions, less Pusher-v4, plus 2
    assert set(DIMENSIONS) <= {*TASKS["dmc"], *TASKS["gym"]}
    assert not any("_" in task for task in TASKS["dmc"])


@pytest.mark.parametrize(
    ("given", "canonical"),
    [
        ("dmc/finger-turn_hard", "dmc/finger-turn-hard"),
        ("dmc/ball_in_cup-catch", "dmc/ball-in-cup-catch"),
        ("dmc/humanoid-cmu-run", "dmc/humanoid-CMU-run"),
        ("dmc/humanoid_CMU-run", "dmc/humanoid-CMU-run"),
    ],
)
def test_dmc_names_are_accepted_with_either_dash(given, canonical):
    assert make_env(given).spec.task == canonical


def test_layouts_are_recorded():
    hopper = make_env("dmc/hopper-stand").spec
    assert hopper.obs_names[:2] == ("position[0]", "position[1]")
    assert hopper.obs_names[-1] == "touch[1]"
    assert make_env("dmc/walker-run").spec.obs_names[14] == "height"
    assert make_env("gym/Hopper-v5").spec.obs_names == make_env("gym/Hopper-v4").spec.obs_names
    assert make_env("gym/Hopper-v5").spec.obs_names[0] == "qpos[1]"  # the height; x is left out
    assert make_env("gym/InvertedDoublePendulum-v5").spec.obs_names[3] == "cos_angle[0]"


def test_dmc_observation_follows_the_order_of_the_specification():
    env = make_env("dmc/hopper-stand")
    obs = env.reset(0)
    physics = env.inner.physics
    np.testing.assert_array_equal(obs[6:13], physics.data.qvel.astype(np.float32))


def test_dmc_matches_the_suite_itself():
    from dm_control import suite

    ours, theirs = make_env("dmc/quadruped-walk"), suite.load("quadruped", "walk", {"random": 5})
    expected = theirs.reset()
    np.testing.assert_array_equal(ours.reset(5), flat(expected.observation))
    bounds = theirs.action_spec()
    rng = np.random.default_rng(0)
    for _ in range(5):
        action = rng.uniform(-1, 1, 12).astype(np.float32)
        scaled = bounds.minimum + (bounds.maximum - bounds.minimum) * (action + 1.0) / 2
        expected, result = theirs.step(scaled), ours.step(action)
        np.testing.assert_allclose(result.obs, flat(expected.observation), rtol=1e-4, atol=1e-5)
        assert result.reward == pytest.approx(expected.reward, rel=1e-6)


def flat(observation):
    return np.concatenate([np.ravel(part) for part in observation.values()]).astype(np.float32)


def test_times():
    assert make_env("dmc/humanoid-run").spec.seconds_per_step == pytest.approx(0.025)
    assert make_env("gym/Hopper-v5").spec.seconds_per_step == pytest.approx(0.008)
    assert make_env("gym/Reacher-v5").spec.max_episode_steps == 50
    assert make_env("dmc/manipulator-bring-ball").spec.max_episode_steps == 1000


# Action ranges -----------------------------------------------------------------------------------

bound = st.floats(-1e3, 1e3, width=32).filter(lambda x: x == 0 or abs(x) > 1e-3)


@settings(deadline=None)
@given(bound, bound, st.floats(-1, 1, width=32).filter(lambda x: x == 0 or abs(x) > 1e-3))
def test_scaling_is_exact_at_the_ends_and_round_trips(one, other, action):
    low, high = min(one, other), max(one, other)
    if high - low < 1e-2:
        return
    scale = ActionRange.of(np.array([low]), np.array([high]), "task")
    assert scale.to_env(np.array([-1.0])) == low
    assert scale.to_env(np.array([1.0])) == high
    assert scale.to_env(np.array([0.0])) == (low + high) / 2
    inside = scale.to_env(np.array([action], np.float32))
    assert low <= inside <= high
    np.testing.assert_allclose(scale.from_env(inside), np.float32(action), rtol=1e-5, atol=1e-8)


def test_scaling_is_the_identity_on_the_unit_range():
    scale = ActionRange.of(-np.ones(3), np.ones(3), "task")
    action = np.array([1e-12, -0.3, 0.7], np.float32)
    np.testing.assert_array_equal(scale.to_env(action), action.astype(np.float64))


def test_asymmetric_actuators_of_a_real_task_reach_both_ends():
    env = make_env("dmc/quadruped-run")
    limits = env.inner.physics.model.actuator_ctrlrange
    assert (limits[:, 0] != -limits[:, 1]).any()
    for action, expected in ((-1, limits[:, 0]), (1, limits[:, 1])):
        env.reset(0)
        env.step(np.full(12, action, np.float32))
        np.testing.assert_array_equal(env.inner.physics.data.ctrl, expected)


# Custom environments -----------------------------------------------------------------------------


class Toy(gymnasium.Env):
    """Counts its steps in the first entry; the second is a random start."""

    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float64)
    action_space = spaces.Box(np.array([0.0, -4.0]), np.array([1.0, 2.0]), dtype=np.float64)
    termination_fn = "never"

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.state = np.array([0.0, self.np_random.normal()])
        return self.observe(), {}

    def step(self, action):
        self.action = action
        self.state[0] += 1
        return self.observe(), 0.1, False, False, {}

    def observe(self):
        return self.state.copy()


@pytest.fixture
def toy(monkeypatch):
    """Serve an environment class as ``toy_module:make_env``."""

    def serve(env_class, **options):
        module = types.ModuleType("toy_module")
        module.make_env = env_class
        monkeypatch.setitem(sys.modules, "toy_module", module)
        return make_env("toy_module:make_env", **options)

    return serve


def test_custom_environment(toy):
    env = toy(Toy)
    assert env.spec.task == "toy_module:make_env"
    assert env.spec.max_episode_steps is None
    assert env.spec.obs_names == ("obs[0]", "obs[1]")
    assert not env.spec.replayable
    assert env.spec.seconds_per_step is None
    env.reset(0)
    assert env.step(np.array([-1.0, 1.0])).obs[0] == 1.0
    np.testing.assert_array_equal(env.inner.unwrapped.action, [0.0, 2.0])
    require_termination(env.spec)


def test_custom_environment_from_a_file_in_the_current_directory(tmp_path, monkeypatch):
    (tmp_path / "my_robot_env.py").write_text(
        "import gymnasium\n"
        "def make_env():\n"
        "    env = gymnasium.make('Pendulum-v1', max_episode_steps=30)\n"
        "    env.unwrapped.termination_fn = 'learned'\n"
        "    env.unwrapped.replayable = True\n"
        "    return env\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    env = make_env("my_robot_env:make_env")
    assert env.spec.max_episode_steps == 30
    assert env.spec.learned_termination
    assert env.spec.termination is None
    assert env.spec.replayable
    require_termination(env.spec)
    with pytest.raises(
        FtflError, match=r"unknown environment in my_robot_env 'make_evn': .*make_env"
    ):
        make_env("my_robot_env:make_evn")


def test_custom_functions_are_used(toy):
    class Known(Toy):
        termination_fn = staticmethod(lambda obs, action, next_obs: next_obs[..., 0] > 3)
        reward_fn = staticmethod(lambda obs, action, next_obs: 0.1 * jnp.ones_like(obs[..., 0]))

    spec = toy(Known, reward_unit=4.0).spec
    obs = jnp.array([[1.0, 0.0], [4.0, 0.0]])
    np.testing.assert_array_equal(spec.termination(obs, obs, obs), [False, True])
    np.testing.assert_allclose(spec.reward_fn(obs, obs, obs), 0.4)


def test_missing_termination_is_refused_with_three_ways_out(toy):
    class Silent(Toy):
        termination_fn = None

    spec = toy(Silent).spec
    assert spec.termination is None
    with pytest.raises(FtflError, match=r"JAX function.*'never'.*'learned'"):
        require_termination(spec)


def test_dict_observations_are_flattened_in_sorted_order(toy):
    class Parts(Toy):
        observation_space = spaces.Dict(
            OrderedDict(  # which Gymnasium leaves in the order given
                wheels=spaces.Box(-1, 1, (2, 2)),
                arm=spaces.Dict(OrderedDict(tip=spaces.Box(-1, 1, (1,)), angle=box(1))),
                count=spaces.Box(0, 9, (1,), np.int64),
            )
        )

        def observe(self):
            wheels = np.array([[4, 5], [6, 7]])
            return {"wheels": wheels, "count": [3], "arm": {"tip": [2], "angle": [1]}}

    env = toy(Parts)
    assert env.spec.obs_names == (
        "arm/angle[0]",
        "arm/tip[0]",
        "count[0]",
        "wheels[0,0]",
        "wheels[0,1]",
        "wheels[1,0]",
        "wheels[1,1]",
    )
    np.testing.assert_array_equal(env.reset(0), np.arange(1, 8, dtype=np.float32))


# Endings -----------------------------------------------------------------------------------------


def test_the_clock_truncates_and_does_not_terminate():
    env = make_env("gym/Pendulum-v1")
    env.reset(0)
    flags = [env.step(np.zeros(1))[2:] for _ in range(200)]
    assert flags == [(False, False)] * 199 + [(False, True)]


def test_dmc_ends_by_the_clock_with_discount_one():
    env = make_env("dmc/pendulum-swingup")
    env.reset(0)
    flags = [env.step(np.zeros(1))[2:] for _ in range(1000)]
    assert flags == [(False, False)] * 999 + [(False, True)]


def test_dmc_discount_zero_terminates(monkeypatch):
    env = make_env("dmc/pendulum-swingup")
    env.reset(0)
    monkeypatch.setattr(env.inner._env.task, "get_termination", lambda physics: 0.0)
    assert env.step(np.zeros(1))[2:] == (True, False)


def test_a_fall_terminates_and_is_not_truncated():
    env = make_env("gym/InvertedPendulum-v5")
    env.reset(0)
    for _ in range(100):
        result = env.step(np.ones(1))
        if result.terminated:
            break
    assert result[2:] == (True, False)
    with pytest.raises(FtflError, match=r"episode is over; call reset"):
        env.step(np.ones(1))
    env.reset(0)
    env.step(np.zeros(1))


def test_step_before_reset_is_refused():
    with pytest.raises(FtflError, match="call reset"):
        make_env("gym/Pendulum-v1").step(np.zeros(1))


# Action repeat and reward unit -------------------------------------------------------------------


def test_action_repeat_sums_rewards_and_keeps_the_last_observation():
    once, thrice = make_env("dmc/cheetah-run"), make_env("dmc/cheetah-run", action_repeat=3)
    once.reset(4)
    thrice.reset(4)
    action = np.full(6, 0.5, np.float32)
    singles = [once.step(action) for _ in range(3)]
    repeated = thrice.step(action)
    assert repeated.reward == sum(single.reward for single in singles)
    np.testing.assert_array_equal(repeated.obs, singles[-1].obs)
    assert thrice.spec.max_episode_steps == 334  # 333 whole repeats and a short last one
    assert thrice.spec.seconds_per_step == pytest.approx(0.03)


def test_action_repeat_stops_at_the_end_of_the_episode():
    env = make_env("gym/Pendulum-v1", action_repeat=3)
    env.reset(0)
    steps = [env.step(np.zeros(1)) for _ in range(67)]
    assert env.spec.max_episode_steps == 67
    assert [step.truncated for step in steps] == [False] * 66 + [True]
    assert env.spec.reward_fn is None  # the hidden steps between decide it too


@pytest.mark.parametrize("unit", [2.0**-10, 8.0])
@pytest.mark.parametrize("task", ["dmc/walker-run", "gym/HalfCheetah-v5"])
def test_reward_unit_is_exact_for_powers_of_two(task, unit):
    plain, scaled = make_env(task), make_env(task, reward_unit=unit)
    plain.reset(1)
    scaled.reset(1)
    rng = np.random.default_rng(0)
    rewards = []
    for _ in range(20):
        action = rng.uniform(-1, 1, plain.spec.act_dim)
        one, other = plain.step(action), scaled.step(action)
        np.testing.assert_array_equal(one.obs, other.obs)
        assert other.reward == one.reward * unit
        rewards.append(one.reward)
    assert any(rewards)


@pytest.mark.parametrize(
    "task",
    [
        "gym/Pendulum-v1",
        "gym/MountainCarContinuous-v0",
        "gym/InvertedPendulum-v4",
        "gym/InvertedPendulum-v5",
    ],
)
@pytest.mark.parametrize("unit", [1.0, 0.001])
def test_known_rewards_are_what_the_environment_pays(task, unit):
    env = make_env(task, reward_unit=unit)
    rng = np.random.default_rng(0)
    obs = env.reset(0)
    rows = []
    for step in range(300):
        action = rng.uniform(-1, 1, 1).astype(np.float32)
        if "Car" in task:  # rock it to the goal, so that the goal's reward is paid
            action = np.sign(obs[1:], dtype=np.float32) * np.float32(0.9)
        result = env.step(action)
        rows.append((obs, action, result.obs, result.reward))
        obs = result.obs
        if result.terminated:
            break
        if result.truncated:
            obs = env.reset(step)
    *columns, paid = (np.array(column) for column in zip(*rows, strict=True))
    known = env.spec.reward_fn(*(jnp.asarray(column) for column in columns))
    np.testing.assert_allclose(known, paid, rtol=0, atol=1e-5 * unit)
    if "Pendulum-v1" not in task:
        assert result.terminated


# Refusals ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ("dmc/hoper-stand", r"unknown task 'dmc/hoper-stand': did you mean dmc/hopper-stand"),
        ("dmc/lqr-lqr-2-1", r"unbounded actions.*point-mass-easy"),
        ("dmc/lqr-lqr_6_2", r"unbounded actions"),
        ("gym/Hoper-v5", r"unknown task 'gym/Hoper-v5': did you mean gym/Hopper-v5"),
        ("gym/Hopper-v2", r"use gym/Hopper-v5\. v2 and v3 live in gymnasium-robotics"),
        ("gym/Walker2d-v3", r"use gym/Walker2d-v5.*gym/Walker2d-v4"),
        ("gym/HalfCheetah", r"use gym/HalfCheetah-v5\.$"),
        ("gym/Pendulum", r"use gym/Pendulum-v1\.$"),
        ("gym/Pusher-v4", r"refuses MuJoCo 3.*use gym/Pusher-v5"),
        ("gym/CartPole-v1", r"Discrete action space; only continuous actions"),
        ("hopper-stand", r"lacks its suite: did you mean dmc/hopper-stand"),
        ("Hopper-v5", r"lacks its suite: did you mean gym/Hopper-v5"),
        ("atari/pong", r"unknown suite 'atari'.*dmc, gym.*package\.module:make_env"),
        ("hoppr", r"unknown task 'hoppr'"),
        (
            "no_such_module_here:make_env",
            r"importing no_such_module_here failed.*current directory",
        ),
        (":make_env", r"not of the form package\.module:make_env"),
        ("sys:", r"not of the form"),
        ("sys:maxsize", r"is a int, not a function"),
        ("sys:getrecursionlimit", r"returned a int without reset"),
    ],
)
def test_tasks_that_cannot_be_made_are_refused_by_name(task, message):
    with pytest.raises(FtflError, match=message) as refusal:
        make_env(task)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"action_repeat": 0}, "action_repeat 0 must be"),
        ({"action_repeat": -2}, "action_repeat -2 must be"),
        ({"reward_unit": 0.0}, "reward_unit 0.0 must be"),
        ({"reward_unit": np.inf}, "reward_unit inf must be"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(FtflError, match=message):
        make_env("gym/Pendulum-v1", **options)


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"action_space": spaces.Discrete(3)}, "Discrete action space"),
        ({"action_space": spaces.MultiBinary(3)}, "MultiBinary action space"),
        ({"action_space": box(2, high=np.inf)}, r"action 0 by \[-1, inf\].*finite bounds"),
        ({"action_space": box(2, low=1.0)}, r"action 0 by \[1, 1\]"),
        ({"action_space": box(2, 2)}, r"actions of shape \(2, 2\)"),
        ({"observation_space": box(64, 64, 3, low=0, high=255, dtype=np.uint8)}, "pixels"),
        ({"observation_space": box(64, 64, low=0, high=255, dtype=np.uint8)}, "pixels"),
        ({"observation_space": spaces.Discrete(3)}, "Discrete observation;"),
        ({"observation_space": spaces.Dict(goal=spaces.Discrete(3))}, "observation 'goal'"),
        ({"observation_space": spaces.Tuple([box(2)])}, "Tuple observation.*dictionaries"),
        ({"termination_fn": "sometimes"}, r"termination_fn = 'sometimes'.*'never' or 'learned'"),
        ({"termination_fn": staticmethod(lambda o, a, n: n > 0)}, r"must give shape \(7,\)"),
        ({"termination_fn": staticmethod(lambda o, a, n: n[..., 0])}, "dtype bool"),
        ({"termination_fn": staticmethod(lambda o, a, n: bool(n[0]))}, "cannot be traced"),
        ({"termination_fn": lambda o, a, n: n[..., 0] > 0}, "staticmethod"),
        ({"reward_fn": staticmethod(lambda o, a, n: n)}, r"reward_fn maps .* shape \(7,\)"),
        ({"reset": lambda self: None}, r"reset takes no seed.*before 0\.26"),
        ({"step": None}, "without step"),
    ],
)
def test_custom_environments_that_cannot_be_used_are_refused(toy, attributes, message):
    with pytest.raises(FtflError, match=message):
        toy(type("Broken", (Toy,), attributes))


def test_a_module_that_breaks_on_import_is_named(tmp_path, monkeypatch):
    (tmp_path / "broken_env_module.py").write_text("def make_env(:\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(FtflError, match="importing broken_env_module failed with SyntaxError"):
        make_env("broken_env_module:make_env")


def test_a_picture_nobody_asked_for_is_refused():
    env = make_env("dmc/hopper-stand")
    env.reset(0)
    with pytest.raises(FtflError, match="without render=True"):
        env.render()


@pytest.mark.parametrize("task", ["dmc/hopper-stand", "gym/Hopper-v5"])
def test_pictures_without_any_backend_are_refused_before_they_abort(task, monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "disable")
    with pytest.raises(FtflError, match="MUJOCO_GL=disable: start the process with MUJOCO_GL=egl"):
        make_env(task, render=True)


def test_training_needs_no_display_and_leaves_nothing_behind(tmp_path):
    """In a fresh process without MUJOCO_GL, warnings being errors."""
    code = (
        "import sys; from ftfl.envs import make_env\n"
        # HalfCheetah's XML makes MuJoCo warn, and without a listener write a file.
        "for task in ('gym/HalfCheetah-v5', 'dmc/cheetah-run', 'dmc/quadruped-escape'):\n"
        "    make_env(task).reset(0)\n"
        "assert not any('OpenGL.' in name for name in sys.modules)\n"
    )
    search = [str(Path(entry).absolute()) for entry in sys.path if entry]
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": ":".join(search)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []


# Guards ------------------------------------------------------------------------------------------


def faulty(step=3, **changes):
    """Make a Toy class whose answer changes at one step."""

    class Faulty(Toy):
        def step(self, action):
            obs, reward, terminated, truncated, info = super().step(action)
            if self.state[0] < step:
                return obs, reward, terminated, truncated, info
            answer = {
                "obs": obs,
                "reward": reward,
                "terminated": terminated,
                "truncated": truncated,
                "info": info,
            }
            return tuple((answer | changes).values())

    return Faulty


@pytest.mark.parametrize(
    ("changes", "cause", "message"),
    [
        ({"obs": np.array([np.nan, 0])}, "observation", r"not finite: obs\[0\]"),
        ({"obs": np.array([0, np.inf])}, "observation", r"not finite: obs\[1\]"),
        ({"obs": np.array([0, 1e300])}, "observation", "not finite"),
        ({"obs": np.zeros(3)}, "contract", r"shape \(3,\), declared is \(2,\)"),
        ({"reward": np.nan}, "reward", "the reward is nan"),
        ({"reward": -np.inf}, "reward", "the reward is -inf"),
        ({"reward": np.zeros(1)}, "contract", "not a number"),
        ({"reward": None}, "contract", "not a number"),
        ({"terminated": 2}, "contract", "neither True nor False"),
        ({"extra": 0}, "contract", "step returned 6 values: return"),
    ],
)
def test_a_fault_names_what_when_and_how_to_reproduce(toy, changes, cause, message):
    env = toy(faulty(step=3, **changes))
    env.reset(11)
    action = np.array([0.25, -0.5], np.float32)
    env.step(action)
    env.step(action)
    with pytest.raises(EnvFault, match=message) as fault:
        env.step(action)
    assert (fault.value.cause, fault.value.step, fault.value.seed) == (cause, 3, 11)
    np.testing.assert_array_equal(fault.value.action, action)
    assert "reset(seed=11)" in str(fault.value)
    with pytest.raises(FtflError, match="call reset"):  # a faulty episode is never continued
        env.step(action)
    env.reset(12)
    env.step(action)


def test_the_old_step_interface_is_named(toy):
    class Old(Toy):
        def step(self, action):
            return self.observe(), 0.0, False, {}

    env = toy(Old)
    env.reset(0)
    with pytest.raises(EnvFault, match=r"step returned 4 values.*terminated, truncated"):
        env.step(np.zeros(2))


def test_the_old_reset_interface_is_named(toy):
    class Old(Toy):
        def reset(self, *, seed=None, options=None):
            return super().reset(seed=seed)[0]

    with pytest.raises(
        EnvFault, match=r"reset returned no \(observation, info\) pair.*\(at reset;"
    ):
        toy(Old).reset(0)


def test_a_missing_observation_part_is_named(toy):
    class Missing(Toy):
        observation_space = spaces.Dict(arm=box(1), leg=box(1))

        def observe(self):
            return {"arm": np.zeros(1)}

    with pytest.raises(EnvFault, match="'leg' is missing"):
        toy(Missing).reset(0)


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (np.array([np.nan]), "not finite"),
        (np.array([np.inf]), "not finite"),
        (np.zeros(2), r"shape \(2,\), expected is \(1,\)"),
        (np.array(0.0), r"shape \(\), expected"),
    ],
)
def test_bad_actions_are_refused(action, message):
    env = make_env("gym/Pendulum-v1")
    env.reset(0)
    with pytest.raises(EnvFault, match=message) as fault:
        env.step(action)
    assert fault.value.cause == "action"


def test_actions_outside_the_range_are_clipped_and_counted():
    env, other = make_env("gym/HalfCheetah-v5"), make_env("gym/HalfCheetah-v5")
    env.reset(0)
    other.reset(0)
    huge, unit = np.full(6, 1e6, np.float32), np.ones(6, np.float32)
    one, two = env.step(huge), other.step(unit)
    assert one.reward == two.reward
    env.step(huge)
    assert (env.clipped_actions, other.clipped_actions) == (2, 0)


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_seeds_out_of_range_are_refused(seed):
    with pytest.raises(FtflError, match=rf"seed {seed} is out of range"):
        make_env("dmc/hopper-stand").reset(seed)


@pytest.mark.parametrize(
    "task",
    ["gym/Hopper-v5", "gym/HalfCheetah-v4", "gym/Ant-v5", "dmc/hopper-stand", "dmc/cheetah-run"],
)
def test_a_diverged_simulation_is_a_fault_not_a_teleport(task, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    env, fresh = make_env(task, action_repeat=2), make_env(task, action_repeat=2)
    env.reset(5)
    action = np.zeros(env.spec.act_dim, np.float32)
    env.step(action)
    adapter = env.inner.inner
    data = adapter.physics.data if task.startswith("dmc") else adapter.unwrapped.data
    data.qvel[:] = 1e9
    with pytest.raises(EnvFault, match="mjWARN_BAD") as fault:
        repeat(env, action, times=5)
    assert fault.value.cause == "simulator"
    assert fault.value.step >= 2
    assert list(tmp_path.iterdir()) == []  # MuJoCo would leave a log file here
    np.testing.assert_array_equal(rollout(env, seed=6), rollout(fresh, seed=6))


def test_everything_is_guarded(toy):
    assert isinstance(make_env("dmc/hopper-stand", action_repeat=2), Guarded)
    assert isinstance(make_env("gym/Hopper-v5"), Guarded)
    assert isinstance(toy(Toy), Guarded)


# Checks for `ftfl doctor` ------------------------------------------------------------------------


def verdicts(task):
    return {check.name: check for check in check_env(task)}


@pytest.mark.parametrize("task", ["dmc/hopper-stand", "gym/Hopper-v5"])
def test_standard_tasks_pass_every_check(task):
    checks = verdicts(task)
    assert [check for check in checks.values() if not check.ok] == []
    assert {"make", "contract", "throughput", "termination function"} <= set(checks)
    assert "0 of 1000 steps disagree" in checks["termination function"].detail
    assert not any(check.fix for check in checks.values())


def test_checks_find_what_is_wrong(toy):
    class Wrong(Toy):
        replayable = True
        termination_fn = staticmethod(lambda obs, action, next_obs: next_obs[..., 0] > 5)

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            self.state[1] = np.random.default_rng().normal()
            return self.observe(), {}

        def step(self, action):
            obs, reward, _, truncated, info = super().step(action)
            return obs, reward, bool(obs[0] > 7), truncated, info

    toy(Wrong)
    checks = verdicts("toy_module:make_env")
    assert checks["time limit"].detail.startswith("none declared")
    assert not checks["same seed, same episode"].ok
    # Episodes of 8 steps: the function wants them to end at 6, 7 and 8.
    assert checks["termination function"].detail.startswith("250 of 1000 steps disagree")
    assert all(check.fix for check in checks.values() if not check.ok)


def test_checks_find_a_seed_that_is_ignored(toy):
    class Deaf(Toy):
        def reset(self, *, seed=None, options=None):
            return super().reset(seed=0)

    toy(Deaf)
    assert not verdicts("toy_module:make_env")["other seed, other episode"].ok


def test_checks_report_a_fault_and_an_unusable_task(toy):
    toy(faulty(step=3, reward=np.nan))
    assert "the reward is nan" in verdicts("toy_module:make_env")["contract"].detail
    failed = check_env("gym/Hopper-v2")
    assert [(check.name, check.ok) for check in failed] == [("make", False)]
