"""Does an environment keep its word? The checks behind ``ftfl doctor TASK``."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterator
from typing import Literal

import jax.numpy as jnp
import numpy as np
from jax import Array

from ftfl.envs.guard import Guarded
from ftfl.envs.make import make_env
from ftfl.envs.spec import Environment, EnvSpec, require_termination
from ftfl.errors import FtflError, in_a_line

STEPS = 1000
TIMED = 200
SHORT = 10
CLOSE = 1e-4
"""Share of the largest reward by which a reward function may differ from what was paid."""
COARSE = 2**24
"""From here on float32 cannot tell neighbouring whole numbers apart."""


@dataclasses.dataclass(frozen=True)
class Check:
    """One question, its answer, and what to do about it if it is not ok."""

    name: str
    status: Literal["ok", "note", "problem"]
    detail: str
    fix: str = ""

    @property
    def ok(self) -> bool:
        """Whether one can train with it."""
        return self.status != "problem"


@dataclasses.dataclass(frozen=True)
class Record:
    """What happened in a row of steps; ``N`` of them, some the first of an episode."""

    obs: np.ndarray
    action: np.ndarray
    reward: np.ndarray
    next_obs: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    seconds: float
    """Spent in steps, without resets."""

    def arguments(self) -> tuple[Array, Array, Array]:
        """What a termination or reward function is asked."""
        return jnp.asarray(self.obs), jnp.asarray(self.action), jnp.asarray(self.next_obs)

    def bits(self) -> np.ndarray:
        """All of it, one float64 row per step."""
        flags = (self.reward, self.terminated, self.truncated)
        parts = (self.obs, self.action, self.next_obs, *(flag[:, None] for flag in flags))
        return np.concatenate([part.astype(np.float64) for part in parts], axis=1)


def check_env(task: str, step_limit_seconds: float | None = None) -> list[Check]:
    """Run all checks on ``task`` with random actions; stops at the first that breaks the rest.

    Steps the environment about 1,250 times: not for hardware that must not move at random. With
    ``step_limit_seconds`` it is looked at in a process of its own, where it may hang or die.
    """
    checks: list[Check] = []
    try:
        # In this process only after it has been made in another one and lived.
        if step_limit_seconds is not None:
            from ftfl.envs.process import EnvProcess

            EnvProcess((task, 1, 1.0, False), step_limit_seconds).close()
        env = make_env(task, step_limit_seconds=step_limit_seconds)
    except FtflError as error:
        return [Check("make", "problem", str(error), "correct the task or the environment")]
    try:
        for check in _checks(env):
            checks.append(dataclasses.replace(check, fix="") if check.status == "ok" else check)
        env.close()
        checks.append(_throughput(task))
    except FtflError as error:
        checks.append(Check("contract", "problem", str(error), "correct what the message names"))
    except Exception as error:  # noqa: BLE001 - the user's functions may raise anything
        fix = "correct the function that raised it"
        checks.append(Check("functions", "problem", f"{task}: {in_a_line(error)}", fix))
    finally:
        env.close()
    return checks


def _checks(env: Guarded) -> Iterator[Check]:
    spec = env.spec
    yield Check("make", "ok", f"{spec.obs_dim} observations, {spec.act_dim} actions")
    short = _play(env, seed=0, steps=SHORT)
    constant = int((short.next_obs == short.obs[0]).all(axis=0).sum())
    yield Check(
        "contract",
        "ok",
        f"{SHORT} steps with finite observations of shape ({spec.obs_dim},), finite rewards, true "
        f"flags and valid physics; {constant} entries constant",
    )
    yield from _determinism(env)
    record = _play(env, seed=3, steps=STEPS)
    yield _endings(spec, record)
    yield from _numbers(env, record)
    yield _termination(spec, record)
    if spec.reward_fn is not None:
        yield _reward(spec, record)


def _determinism(env: Environment) -> Iterator[Check]:
    first = _play(env, seed=1, steps=SHORT).bits()
    # A used environment must repeat it, and after another episode has been in between.
    other = _play(env, seed=2, steps=SHORT).bits()
    name = "same seed, same episode"
    fix = (
        "draw all randomness from the generator that reset(seed) makes, or do not declare the "
        "environment replayable (an interrupted run then starts a new episode)"
    )
    again = _play(env, seed=1, steps=SHORT).bits()
    where = "two rollouts with one seed and the same actions differ"
    if np.array_equal(first, again) and env.spec.replayable:
        env.restart()  # as it is when a run resumes
        again = _play(env, seed=1, steps=SHORT).bits()
        where = "made anew, it answers the same seed and actions differently"
    if np.array_equal(first, again):
        yield Check(name, "ok", "bitwise equal")
    else:
        row = int(np.flatnonzero((first != again).any(axis=1))[0])
        what = f"env not reproducible: {where}, from step {row + 1} on"
        yield Check(name, "problem" if env.spec.replayable else "note", what, fix)
    if np.array_equal(first, other):
        what, fix = "seeds 1 and 2 give the same episode", "use the seed given to reset"
        yield Check("other seed, other episode", "problem", what, fix + ", or vary the start")
    else:
        yield Check("other seed, other episode", "ok", "seeds 1 and 2 differ")


def _endings(spec: EnvSpec, record: Record) -> Check:
    name, limit = "time limit", spec.max_episode_steps
    ends = np.flatnonzero(record.terminated | record.truncated)
    lengths = np.diff(ends, prepend=-1, append=len(record.reward) - 1)  # the last one may go on
    happened = (
        f"{record.terminated.sum()} terminations and {record.truncated.sum()} time-outs in "
        f"{len(record.reward)} random steps"
    )
    if limit is not None and lengths.max() > limit:
        what = f"{limit} steps are declared, but an episode went on for {lengths.max()}"
        return Check(name, "problem", what, "return truncated=True at the limit")
    if limit is not None:
        return Check(name, "ok", f"{limit} steps; {happened}")
    if len(ends) == 0:
        what = f"none declared, and no episode ended in {len(record.reward)} random steps"
        fix = "unless it surely ends by itself, wrap it in gymnasium.wrappers.TimeLimit"
        return Check(name, "note", what, fix)
    return Check(name, "ok", f"none declared: the environment ends episodes itself; {happened}")


def _numbers(env: Guarded, record: Record) -> Iterator[Check]:
    """What can be trained with, but is hardly meant."""
    spec = env.spec
    obs = np.concatenate([record.obs, record.next_obs])
    least, most = obs.min(axis=0), obs.max(axis=0)
    low = np.asarray(spec.obs_low or least, np.float32)
    high = np.asarray(spec.obs_high or most, np.float32)
    strays = np.flatnonzero((least < low) | (most > high))
    if len(strays):
        i = strays[0]
        what = (
            f"{len(strays)} of {spec.obs_dim} entries leave the declared Box, {spec.obs_names[i]} "
            f"with [{least[i]:g}, {most[i]:g}] instead of [{low[i]:g}, {high[i]:g}]"
        )
        yield Check("declared bounds", "note", what, "correct the Box (nothing is clipped)")
    coarse = np.flatnonzero(np.maximum(-least, most) >= COARSE)
    if len(coarse):
        i = coarse[0]
        what = (
            f"{spec.obs_names[i]} reached {max(-least[i], most[i]):g}, where float32 cannot tell "
            "neighbouring whole numbers apart"
        )
        yield Check("large numbers", "note", what, "shift or scale it in the environment")
    if env.suspicious_rewards:
        what = (
            f"{env.suspicious_rewards} of {len(record.reward)} paid a million times the mean or "
            f"more, at most {np.abs(record.reward).max():g}"
        )
        yield Check("rewards", "note", what, "look for a division by nearly nothing")


def _termination(spec: EnvSpec, record: Record) -> Check:
    name, ends = "termination function", record.terminated
    try:
        require_termination(spec)
    except FtflError as error:
        return Check(name, "problem", "none", str(error))
    if spec.termination is None:
        return Check(name, "ok", f"to be learned; {ends.sum()} ends in {len(ends)} random steps")
    said = np.asarray(spec.termination(*record.arguments()))
    wrong = int((said != ends).sum())
    return Check(
        name,
        "problem" if wrong else "ok",
        f"{wrong} of {len(ends)} steps disagree; the environment ended {ends.sum()} times, "
        f"the function {said.sum()} times",
        "correct termination_fn: a model would stop its rollouts at the wrong states",
    )


def _reward(spec: EnvSpec, record: Record) -> Check:
    assert spec.reward_fn is not None
    said = np.asarray(spec.reward_fn(*record.arguments()), np.float64)
    error = np.abs(said - record.reward)
    scale = np.abs(record.reward).max()
    wrong = int((~(error <= CLOSE * scale)).sum())
    return Check(
        "reward function",
        "problem" if wrong else "ok",
        f"{wrong} of {len(error)} steps disagree by more than {CLOSE:g} of the largest reward; the "
        f"largest error is {error.max():g}",
        "correct reward_fn: a model would learn to earn something else",
    )


def _throughput(task: str) -> Check:
    """Timed in this process, whichever one the rest was checked in."""
    with contextlib.closing(make_env(task)) as env:
        record = _play(env, seed=4, steps=TIMED)
    return Check("throughput", "ok", f"{TIMED / record.seconds:.0f} steps/s")


def _play(env: Environment, seed: int, steps: int) -> Record:
    """Random steps, and as many resets as they take; equal arguments send equal actions."""
    generator = np.random.default_rng(0)
    obs, seconds, rows = env.reset(seed), 0.0, []
    for _ in range(steps):
        action = generator.uniform(-1, 1, env.spec.act_dim).astype(np.float32)
        start = time.perf_counter()
        result = env.step(action)
        seconds += time.perf_counter() - start
        rows.append((obs, action, result.reward, result.obs, result.terminated, result.truncated))
        obs = result.obs
        if result.terminated or result.truncated:
            seed += 1
            obs = env.reset(seed)
    return Record(*map(np.array, zip(*rows, strict=True)), seconds=seconds)
