"""Evaluation: the deterministic policy, on its own environment and seeds, mean of all episodes.

Evaluating never changes what is learned: no key of the run is used, and the environment is not
the one the run learns in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
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
    returns, lengths, faults = [], [], []
    for episode in range(episodes):
        total = count = 0
        try:
            for reward in _episode(env, policy, episode_seed(run_seed, episode, _EVAL_DOMAIN)):
                total += reward
                count += 1
        except EnvFault as fault:
            faults.append(fault)
            continue
        returns.append(total)
        lengths.append(count)
    return Evaluation(np.array(returns, np.float64), np.array(lengths, np.int64), tuple(faults))


def _episode(env: Environment, policy: Policy, seed: int) -> Iterator[float]:
    obs = env.reset(seed)
    for _ in range(env.spec.max_episode_steps or _NO_LIMIT_STEPS):
        step = env.step(policy(obs))
        yield step.reward
        if step.terminated or step.truncated:
            return
        obs = step.obs
