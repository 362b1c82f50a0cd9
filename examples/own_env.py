"""Train on an environment of your own, from Python: ``python examples/own_env.py``.

The same from the command line: ``ftfl train examples.own_env:make_env --algo ftfl``.
"""

from __future__ import annotations

import gymnasium
import numpy as np

import ftfl


class PointMass(gymnasium.Env):
    """Push a mass on a line to the origin: obs (position, velocity), action force in [-1, 1]."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)

    # What a dynamics model must know: when does an episode end? One of
    #   a JAX function (obs, action, next_obs) -> bool, "never", or "learned".
    termination_fn = "never"
    # A simulator: the same seed and actions give the same bits. Leave it out for real machines.
    replayable = True

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.state = self.np_random.uniform(-1.0, 1.0, 2).astype(np.float32)
        self.steps = 0
        return self.state.copy(), {}

    def step(self, action):
        position, velocity = self.state
        velocity = 0.95 * velocity + 0.1 * float(action[0])
        position = position + 0.1 * velocity
        self.state = np.array([position, velocity], np.float32)
        self.steps += 1
        reward = -float(position**2) - 0.01 * float(action[0] ** 2)
        return self.state.copy(), reward, False, self.steps >= 100, {}


def make_env() -> gymnasium.Env:
    """What ``package.module:make_env`` names."""
    return PointMass()


def main(out: str = "runs/own_env", steps: int = 1_500) -> ftfl.Run:
    """Train FTFL for a minute and look at what came out."""
    run = ftfl.train(make_env, "ftfl", profile="probe", steps=steps, out=out)
    steps_seen, returns = run.series("eval/return_mean_reward")
    print("evaluations:", list(zip(steps_seen.tolist(), returns.round(1).tolist(), strict=True)))
    print("action at (1, 0):", run.policy(np.array([1.0, 0.0], np.float32)))
    return run


if __name__ == "__main__":
    main()
