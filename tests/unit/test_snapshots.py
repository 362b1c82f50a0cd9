"""A snapshot takes an environment back exactly, whatever happened in between."""

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from ftfl.envs.guard import Guarded
from ftfl.envs.gym import GymEnvironment
from ftfl.envs.make import make_env
from ftfl.envs.snapshots import Snapshot, lift_time_limit
from ftfl.termination import never

TASKS = [
    "gym/Pendulum-v1",
    "gym/Hopper-v5",
    "gym/Ant-v5",
    "dmc/cartpole-swingup",
    "dmc/reacher-hard",
    "dmc/hopper-stand",
    "envs_for_tests:make_simulated_lqr",
]


def play(env, actions):
    """Everything the environment answers, as bits."""
    seen = []
    for action in actions:
        step = env.step(action)
        seen.append((step.obs.tobytes(), step.reward, step.terminated, step.truncated))
        if step.terminated or step.truncated:
            break
    return seen


@pytest.mark.parametrize("task", TASKS)
def test_a_restored_environment_repeats_its_steps_bit_for_bit(task):
    env = make_env(task)
    rng = np.random.default_rng(0)
    actions = rng.uniform(-1, 1, (15, env.spec.act_dim)).astype(np.float32)
    env.reset(5)
    play(env, actions[:4])
    snapshot = Snapshot(env)
    first = play(env, actions[4:])
    for disturb in (lambda: play(env, -actions[:3]), lambda: env.reset(77)):
        snapshot.restore()
        disturb()
        snapshot.restore()
        assert play(env, actions[4:]) == first
    # and the episode is the one that was begun, not only one that repeats itself
    env.reset(5)
    assert play(env, actions)[4:] == first
    env.close()


class Intricate(gymnasium.Env):
    """State in every place a program may keep it."""

    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)

    class Part:
        __slots__ = ("weight",)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.memory = np.zeros(3)
        self.view = self.memory[1:]
        self.parts = [self.Part(), {"list": [1.0]}]
        self.parts[0].weight = 1.0
        self.legacy = np.random.RandomState(seed)
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self.memory += float(action[0]) + self.np_random.normal() + self.legacy.normal()
        self.parts[0].weight *= 1.1
        self.parts[1]["list"].append(self.parts[0].weight)
        self.extra = getattr(self, "extra", 0) + 1
        obs = [self.view[0] + sum(self.parts[1]["list"]), self.extra]
        return np.array(obs, np.float32), 0.0, False, False, {}


def test_state_is_found_in_slots_lists_views_generators_and_attributes_made_later():
    facts = {"termination": never, "reward_fn": None, "replayable": True}
    env = Guarded(lambda: GymEnvironment(Intricate(), "t", **facts))
    actions = np.linspace(-1, 1, 6, dtype=np.float32)[:, None]
    env.reset(1)
    snapshot = Snapshot(env)
    first = play(env, actions)
    snapshot.restore()
    bare = env.inner.unwrapped
    assert not hasattr(bare, "extra")
    assert bare.view.base is bare.memory
    assert play(env, actions) == first


@pytest.mark.parametrize(
    ("task", "steps"), [("gym/Pendulum-v1", 200), ("dmc/cartpole-swingup", 1000)]
)
def test_a_lifted_time_limit_lets_the_episode_go_on_and_comes_back(task, steps):
    env = make_env(task)
    still = np.zeros((steps, 1), np.float32)
    env.reset(0)
    play(env, still[:-1])
    snapshot = Snapshot(env)
    put_back = lift_time_limit(env)
    assert len(play(env, still[:5])) == 5
    put_back()
    snapshot.restore()
    (last,) = play(env, still[:5])
    assert last[3]
    env.close()
