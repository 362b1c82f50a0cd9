"""Environments small enough to know everything about; tasks like ``envs_for_tests:make_lqr``."""

import gymnasium
import numpy as np
from gymnasium import spaces

STEPS = 20
PUSH, ACTION_COST = 0.3, 0.1


class Lqr(gymnasium.Env):
    """x′ = x + 0.3 u, paid −(x² + 0.1 u²) for 20 steps from x₀ in ±½; only the clock ends it."""

    observation_space = spaces.Box(-np.inf, np.inf, (1,), np.float32)
    action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
    termination_fn = "never"
    _max_episode_steps = STEPS

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x, self.t = self.np_random.uniform(-0.5, 0.5), 0
        return np.array([self.x], np.float32), {}

    def step(self, action):
        u = float(action[0])
        reward = -(self.x**2 + ACTION_COST * u**2)
        self.x += PUSH * u
        self.t += 1
        return np.array([self.x], np.float32), reward, False, self.t == STEPS, {}


def make_lqr():
    return Lqr()


def best_gain():
    """u = −k x, from the Riccati equation p = 1 + p − (0.3 p)² / (0.1 + 0.09 p): k = 2."""
    b = PUSH**2
    p = (b + np.sqrt(b**2 + 4 * b * ACTION_COST)) / (2 * b)
    return PUSH * p / (ACTION_COST + b * p)


def make_simulated_lqr():
    """The same, declared to repeat itself bit by bit."""
    env = Lqr()
    env.replayable = True
    return env
