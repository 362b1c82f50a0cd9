"""A run without files, for tests that look at its state."""

import numpy as np

from ftfl.envs.make import make_env
from ftfl.training import state as run_state
from ftfl.training.evaluate import episode_seed
from ftfl.training.learn import make_learner
from ftfl.types import Transition


def drive(config, steps, learner=None):
    """The loop without files: explore, observe, refit when due, learn."""
    env = make_env(config.task.name, reward_unit=config.task.reward_unit)
    learner, state = learner or make_learner(config, env.spec), run_state.init(config, env.spec)
    obs, episode = env.reset(episode_seed(config.seed, 0)), 0
    for step in range(steps):
        chosen = learner.explore(state) if step < config.warmup_steps else learner.act(state, obs)
        action = np.asarray(chosen)
        result = env.step(action)
        row = Transition(obs, action, np.float32(result.reward), result.obs,
                         np.bool_(result.terminated))  # fmt: skip
        state = learner.observe(state, row)
        obs = result.obs
        if result.terminated or result.truncated:
            episode += 1
            obs = env.reset(episode_seed(config.seed, episode))
        learning = step + 1 - config.warmup_steps
        if learning >= 0:
            if config.dynamics is not None and learning % config.dynamics.train_every == 0:
                state, _ = learner.fit(state)
            state, _ = learner.learn(state)
    return learner, state
