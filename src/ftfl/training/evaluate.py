"""Evaluation: the deterministic policy, on its own environment and seeds, mean of all episodes.

Evaluating never changes what is learned: no key of the run is used, and the environment is not
the one the run learns in.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass

import numpy as np

from ftfl.envs.guard import EnvFault
from ftfl.envs.spec import Environment

_NO_LIMIT_STEPS = 10_000
_EVAL_DOMAIN = 1  # keeps evaluation seeds apart from the run's own episodes (domain 0)

Policy = Callable[[np.ndarray], np.ndarray]
"""Observation (O,) to action (A,) in [−1, 1]."""


@dataclass(frozen=True)
class Evaluation:
    """Returns (in the environment's paid unit) and lengths (in agent steps), by episode."""

    returns: np.ndarray
    lengths: np.ndarray
    faults: tuple[EnvFault, ...] = ()
    """What ended the episodes that are missing above: the environment failed in them."""


def episode_seed(run_seed: int, episode: int, domain: int = 0) -> int:
    """Seed of an episode's reset, below 2³²: equal for equal arguments, on any machine."""
    sequence = np.random.SeedSequence((run_seed, domain, episode))
    return int(sequence.generate_state(1, np.uint32)[0])


def evaluate(env: Environment, policy: Policy, run_seed: int, episodes: int) -> Evaluation:
    """Play whole episodes. The same run seed meets the same starts at every evaluation."""
    played = evaluation(env, run_seed, episodes)
    try:
        obs = next(played)
        while True:
            obs = played.send(policy(obs))
    except StopIteration as end:
        return end.value


def evaluation(
    env: Environment, run_seed: int, episodes: int
) -> Generator[np.ndarray, np.ndarray, Evaluation]:
    """``evaluate``, as a generator that yields each observation and is sent the action."""
    returns, lengths, faults = [], [], []
    for episode in range(episodes):
        try:
            total, count = yield from _episode(env, episode_seed(run_seed, episode, _EVAL_DOMAIN))
        except EnvFault as fault:
            faults.append(fault)
            continue
        returns.append(total)
        lengths.append(count)
    return Evaluation(np.array(returns, np.float64), np.array(lengths, np.int64), tuple(faults))


def _episode(env: Environment, seed: int) -> Generator[np.ndarray, np.ndarray, tuple[float, int]]:
    """Return and length of one episode."""
    total, count, obs = 0.0, 0, env.reset(seed)
    for _ in range(env.spec.max_episode_steps or _NO_LIMIT_STEPS):
        step = env.step((yield obs))
        total, count, obs = total + step.reward, count + 1, step.obs
        if step.terminated or step.truncated:
            break
    return total, count
