"""SBX's SAC updates on request: a line in, seconds of 20 updates out. Runs in SBX's environment."""

import sys
import time

import gymnasium as gym
import jax
import numpy as np
from sbx import SAC

OBS, ACT, BATCH, UPDATES, ROWS = 15, 4, 256, 20, 20_000


class Nothing(gym.Env):
    """Spaces of the right size; never stepped."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (OBS,), np.float32)
    action_space = gym.spaces.Box(-1.0, 1.0, (ACT,), np.float32)

    def reset(self, *, seed=None, options=None):
        return np.zeros(OBS, np.float32), {}

    def step(self, action):
        return np.zeros(OBS, np.float32), 0.0, False, False, {}


def main() -> None:
    model = SAC(
        "MlpPolicy", Nothing(), batch_size=BATCH, buffer_size=ROWS, gradient_steps=UPDATES,
        policy_kwargs={"net_arch": [256, 256]}, seed=0, verbose=0,
    )  # fmt: skip
    model._setup_learn(ROWS)  # gives it a logger
    rng = np.random.default_rng(0)
    for _ in range(ROWS):
        obs, next_obs = rng.normal(size=(2, 1, OBS)).astype(np.float32)
        action = rng.uniform(-1, 1, (1, ACT)).astype(np.float32)
        model.replay_buffer.add(obs, next_obs, action, rng.normal(size=1), np.zeros(1), [{}])
    for _ in sys.stdin:
        start = time.perf_counter()
        model.train(UPDATES, BATCH)
        jax.block_until_ready(model.policy.qf_state.params)
        print(time.perf_counter() - start, flush=True)


if __name__ == "__main__":
    main()
