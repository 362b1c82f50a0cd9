"""Does an environment keep its word? The checks behind ``ftfl doctor TASK``."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator

import jax.numpy as jnp
import numpy as np

from ftfl.envs.make import make_env
from ftfl.envs.spec import Environment, require_termination
from ftfl.errors import FtflError

STEPS = 1000
SHORT = 10


@dataclasses.dataclass(frozen=True)
class Check:
    """One question, its answer, and what to do if the answer is no."""

    name: str
    ok: bool
    detail: str
    fix: str = ""


def check_env(task: str) -> list[Check]:
    """Run all checks on ``task`` with random actions; stops at the first that breaks the rest.

    Steps the environment about 1,100 times: not for hardware that must not move at random.
    """
    try:
        env = make_env(task)
    except FtflError as error:
        return [Check("make", False, str(error), "correct the task or the environment")]
    try:
        return [dataclasses.replace(c, fix="") if c.ok else c for c in _checks(env)]
    finally:
        env.close()


def _checks(env: Environment) -> Iterator[Check]:
    spec = env.spec
    limit = spec.max_episode_steps
    yield Check("make", True, f"{spec.obs_dim} observations, {spec.act_dim} actions")
    yield Check(
        "time limit",
        True,
        f"{limit} steps" if limit else "none declared: the environment must end episodes itself",
    )
    try:
        yield _contract(env)
        yield from _determinism(env)
        yield from _long_run(env)
    except FtflError as error:
        yield Check("contract", False, str(error), "correct what the message names")


def _contract(env: Environment) -> Check:
    trajectory = _rollout(env, seed=0, steps=SHORT)
    constant = int((trajectory == trajectory[0]).all(axis=0).sum())
    return Check(
        "contract",
        trajectory.dtype == np.float32 and trajectory.shape[1] == env.spec.obs_dim,
        f"{len(trajectory) - 1} steps with finite {trajectory.dtype} observations of shape "
        f"{trajectory.shape[1:]}, finite rewards and valid physics; {constant} entries constant",
        "return observations of the declared space",
    )


def _determinism(env: Environment) -> Iterator[Check]:
    first = _rollout(env, seed=1, steps=SHORT)
    # A used environment must repeat it, and after another episode has been in between.
    other = _rollout(env, seed=2, steps=SHORT)
    again = _rollout(env, seed=1, steps=SHORT)
    same = np.array_equal(first, again)
    yield Check(
        "same seed, same episode",
        same or not env.spec.replayable,
        "bitwise equal" if same else "two rollouts with one seed and the same actions differ",
        "draw all randomness from the generator that reset(seed) makes, or do not declare the "
        "environment replayable (an interrupted run then starts a new episode)",
    )
    yield Check(
        "other seed, other episode",
        not np.array_equal(first, other),
        "seeds 1 and 2 differ"
        if not np.array_equal(first, other)
        else "seeds 1 and 2 give the same episode",
        "use the seed given to reset, unless the task has a single start",
    )


def _long_run(env: Environment) -> Iterator[Check]:
    generator = np.random.default_rng(3)
    obs, episodes, seconds = env.reset(3), 1, 0.0
    before, actions, after, ends = [], [], [], []
    for _ in range(STEPS):
        action = _random_action(generator, env.spec.act_dim)
        start = time.perf_counter()
        result = env.step(action)
        seconds += time.perf_counter() - start
        before.append(obs)
        actions.append(action)
        after.append(result.obs)
        ends.append(result.terminated)
        obs = result.obs
        if result.terminated or result.truncated:
            obs, episodes = env.reset(3 + episodes), episodes + 1
    yield Check("throughput", True, f"{STEPS / seconds:.0f} steps/s over {episodes} episodes")
    yield _termination(env, np.array(before), np.array(actions), np.array(after), np.array(ends))


def _termination(
    env: Environment, obs: np.ndarray, action: np.ndarray, next_obs: np.ndarray, ends: np.ndarray
) -> Check:
    name = "termination function"
    try:
        require_termination(env.spec)
    except FtflError as error:
        return Check(name, False, "none", str(error))
    if env.spec.termination is None:
        return Check(name, True, f"to be learned; {ends.sum()} ends in {len(ends)} random steps")
    said = np.asarray(
        env.spec.termination(jnp.asarray(obs), jnp.asarray(action), jnp.asarray(next_obs))
    )
    wrong = int((said != ends).sum())
    return Check(
        name,
        wrong == 0,
        f"{wrong} of {len(ends)} steps disagree; the environment ended {ends.sum()} times, "
        f"the function {said.sum()} times",
        "correct termination_fn: a model would stop its rollouts at the wrong states",
    )


def _rollout(env: Environment, seed: int, steps: int) -> np.ndarray:
    """Observations of the first ``steps`` random steps, shape (T + 1, O)."""
    generator = np.random.default_rng(seed=0)
    observations = [env.reset(seed)]
    for _ in range(steps):
        result = env.step(_random_action(generator, env.spec.act_dim))
        observations.append(result.obs)
        if result.terminated or result.truncated:
            break
    return np.array(observations)


def _random_action(generator: np.random.Generator, act_dim: int) -> np.ndarray:
    return generator.uniform(-1, 1, act_dim).astype(np.float32)
