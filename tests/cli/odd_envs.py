"""Environments of a user who has not read the manual."""

import gymnasium
import numpy as np
from gymnasium import spaces


class Plain(gymnasium.Env):
    """One number in, one number out; says nothing about its end."""

    observation_space = spaces.Box(-1, 1, (2,), np.float32)
    action_space = spaces.Box(-1, 1, (1,), np.float32)
    _max_episode_steps = 20

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}

    def step(self, action):
        return np.zeros(2, np.float32), 0.0, False, False, {}


class Pixels(Plain):
    observation_space = spaces.Box(0, 255, (8, 8, 3), np.uint8)


class Unbounded(Plain):
    action_space = spaces.Box(-np.inf, np.inf, (1,), np.float32)


not_a_function = 3
