"""Termination functions against the simulators they describe, near and beyond every boundary."""

import gymnasium
import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from ftfl.termination import TERMINATION, hopper, inverted_double_pendulum, never

pytestmark = pytest.mark.filterwarnings("ignore:.*is out of date")

TERMINATING = sorted(name for name, fn in TERMINATION.items() if fn is not never)
ENDLESS = sorted(name for name, fn in TERMINATION.items() if fn is never)
TRIALS = 300

# qpos index -> the boundaries that the task watches there
BOUNDARIES = {
    "Ant": {2: (0.2, 1.0)},
    "Hopper": {1: (0.7,), 2: (-0.2, 0.2), 3: (-100.0, 100.0)},
    "Humanoid": {2: (1.0, 2.0)},
    "InvertedDoublePendulum": {1: (-0.7, 0.7), 2: (-0.9, 0.9)},
    "InvertedPendulum": {1: (-0.2, 0.2)},
    "Walker2d": {1: (0.8, 2.0), 2: (-1.0, 1.0)},
}


@pytest.fixture(autouse=True)
def _no_log_file():
    """MuJoCo would write its warnings to a file in the current directory."""
    mujoco.set_mju_user_warning(lambda message: None)


def ask(task_id, next_obs):
    """Answer of our function; obs and action must not matter, so they are zeros."""
    next_obs = jnp.asarray(next_obs, jnp.float32)
    obs, action = jnp.zeros_like(next_obs), jnp.zeros((*next_obs.shape[:-1], 2), jnp.float32)
    return np.asarray(TERMINATION[task_id](obs, action, next_obs))


def drive(task_id, seed=0):
    """Step once from states around each boundary; yields the environment and its answer."""
    env = gymnasium.make(task_id, disable_env_checker=True).unwrapped
    rng = np.random.default_rng(seed)
    watched = BOUNDARIES[task_id.partition("-")[0]]
    env.reset(seed=seed)
    rest = env.init_qpos
    for trial in range(TRIALS):
        qpos = rest + rng.normal(scale=0.02, size=rest.shape)
        qvel = rng.normal(scale=0.5, size=env.init_qvel.shape)
        if trial % 5:  # every fifth trial stays where an episode starts
            index = list(watched)[trial % len(watched)]
            boundary = rng.choice(watched[index])
            qpos[index] = boundary + rng.normal(scale=abs(boundary) * 0.1)
        mujoco.mj_resetData(env.model, env.data)
        env.set_state(qpos, qvel)
        obs, _, terminated, _, _ = env.step(rng.uniform(-0.4, 0.4, env.action_space.shape))
        if not env.data.warning.number.any():  # a diverged simulation has reset itself
            yield env, obs, terminated


@pytest.mark.parametrize("task_id", [t for t in TERMINATING if not t.startswith("Mountain")])
def test_agrees_with_the_simulator_around_every_boundary(task_id):
    observations, ends = [], []
    for env, obs, terminated in drive(task_id):
        unseen = task_id.startswith("Hopper") and (np.abs(env.data.qvel) >= 100).any()
        if not unseen:
            observations.append(obs)
            ends.append(terminated)
    said = ask(task_id, np.array(observations))
    assert len(ends) > TRIALS / 2
    assert 20 < sum(ends) < len(ends) - 20
    np.testing.assert_array_equal(said, ends)


@pytest.mark.parametrize("task_id", TERMINATING)
def test_agrees_with_the_simulator_under_random_actions(task_id):
    env = gymnasium.make(task_id, disable_env_checker=True)
    rng = np.random.default_rng(1)
    observations, ends = [], []
    env.reset(seed=1)
    for _ in range(150):
        obs, _, terminated, truncated, _ = env.step(
            rng.uniform(env.action_space.low, env.action_space.high).astype(np.float32)
        )
        observations.append(obs)
        ends.append(terminated)
        if terminated or truncated:
            env.reset()
    np.testing.assert_array_equal(ask(task_id, np.array(observations)), ends)


@pytest.mark.parametrize("velocity", [-0.02, 0.0, 0.02])
@pytest.mark.parametrize("position", [0.3, 0.44, 0.449, 0.451, 0.5, 0.6])
def test_mountain_car_agrees_with_the_simulator(position, velocity):
    env = gymnasium.make("MountainCarContinuous-v0", disable_env_checker=True).unwrapped
    env.reset(seed=0)
    env.state = np.array([position, velocity], np.float32)
    obs, _, terminated, _, _ = env.step(np.zeros(1, np.float32))
    assert ask("MountainCarContinuous-v0", obs) == terminated


def test_mountain_car_meets_both_outcomes():
    states = np.array([[0.46, 0.01], [0.46, -0.01], [0.44, 0.01], [0.45, 0.0]])
    np.testing.assert_array_equal(ask("MountainCarContinuous-v0", states), [1, 0, 0, 1])


@pytest.mark.parametrize("task_id", [t for t in ENDLESS if t != "Pusher-v4"])
def test_endless_tasks_do_not_end(task_id):
    env = gymnasium.make(task_id, disable_env_checker=True)
    obs, _ = env.reset(seed=0)
    rng = np.random.default_rng(0)
    for _ in range(60):
        obs, _, terminated, truncated, _ = env.step(
            rng.uniform(env.action_space.low, env.action_space.high).astype(np.float32)
        )
        assert not terminated
        if truncated:
            break
    assert not ask(task_id, obs)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("task_id", TERMINATING)
def test_non_finite_predictions_are_terminated(task_id, value):
    obs = alive_obs(task_id)
    assert not ask(task_id, obs)
    for index in range(len(obs)):
        broken = obs.copy()
        broken[index] = value
        assert ask(task_id, broken), f"entry {index}"


def test_never_says_no_even_to_nan_because_it_states_a_fact_about_the_task():
    assert not ask("Pendulum-v1", np.full(3, np.nan))


def alive_obs(task_id):
    env = gymnasium.make(task_id, disable_env_checker=True)
    return np.array(env.reset(seed=0)[0])


@pytest.mark.parametrize("entry", range(2, 11))
def test_hopper_minus_500_is_dead(entry):
    obs = alive_obs("Hopper-v5")
    obs[entry] = -500.0  # |(o < 100)| would call this alive
    assert ask("Hopper-v5", obs)
    obs[entry] = 99.0
    assert not ask("Hopper-v5", obs)


def test_hopper_cannot_see_a_velocity_that_its_observation_clips():
    env = gymnasium.make("Hopper-v5", disable_env_checker=True).unwrapped
    env.reset(seed=0)
    qvel = np.zeros(6)
    qvel[0] = 150.0  # flying sideways
    env.set_state(env.init_qpos, qvel)
    obs, _, terminated, _, _ = env.step(np.zeros(3))
    assert terminated
    assert obs[5] == 10.0
    assert not ask("Hopper-v5", obs)


@pytest.mark.parametrize("task_id", ["InvertedPendulum-v4", "InvertedPendulum-v5"])
def test_inverted_pendulum_fires(task_id):
    lean = np.zeros((5, 4))
    lean[:, 1] = [0.19, 0.21, -0.19, -0.21, 3.0]
    np.testing.assert_array_equal(ask(task_id, lean), [0, 1, 0, 1, 1])


def test_humanoid_bounds_are_strict_and_ant_bounds_are_not():
    # 1 and 2 are exact in float32, 0.2 is compared with its own float32 rounding.
    humanoid_z, ant_z = np.zeros((4, 348)), np.zeros((4, 105))
    humanoid_z[:, 0] = [1.0, 1.5, 2.0, 0.5]
    ant_z[:, 0] = [0.2, 1.0, np.nextafter(np.float32(1), np.float32(2)), 0.19]
    np.testing.assert_array_equal(ask("Humanoid-v5", humanoid_z), [1, 0, 1, 1])
    np.testing.assert_array_equal(ask("Ant-v5", ant_z), [0, 0, 1, 1])


def test_double_pendulum_height_needs_the_sum_of_the_angles():
    first, second = 0.5, -0.9  # the joint angles; the second pole is 0.4 rad off vertical
    obs = np.zeros(9)
    obs[1:5] = [np.sin(first), np.sin(second), np.cos(first), np.cos(second)]
    assert 0.6 * (np.cos(first) + np.cos(first + second)) > 1.0 > 0.6 * 2 * np.cos(second)
    assert not ask("InvertedDoublePendulum-v5", obs)


@pytest.mark.parametrize("task_id", sorted(TERMINATION))
def test_batches_on_any_leading_axes_and_under_jit(task_id):
    rng = np.random.default_rng(0)
    obs = jnp.asarray(rng.normal(size=(2, 3, 27)), jnp.float32)
    action = jnp.zeros((2, 3, 4), jnp.float32)
    fn = TERMINATION[task_id]
    batched = fn(obs, action, obs)
    assert batched.shape == (2, 3)
    assert batched.dtype == bool
    single = [
        [bool(fn(o, a, o)) for o, a in zip(*rows, strict=True)]
        for rows in zip(obs, action, strict=True)
    ]
    np.testing.assert_array_equal(batched, single)
    np.testing.assert_array_equal(jax.jit(fn)(obs, action, obs), batched)


def test_only_the_next_observation_decides():
    dead, alive = jnp.zeros(11), jnp.zeros(11).at[0].set(1.2)
    action = jnp.zeros(3)
    assert hopper(alive, action, dead)
    assert not hopper(dead, action, alive)
    upright = jnp.zeros(9).at[3:5].set(1.0)
    assert not inverted_double_pendulum(jnp.zeros(9), action, upright)
