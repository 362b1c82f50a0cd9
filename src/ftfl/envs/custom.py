"""Your own environment: ``package.module:make_env``, a function that returns a Gymnasium env.

The environment may carry what a model-based agent wants to know, as attributes:
``termination_fn`` (a JAX function of (obs, action, next_obs), ``"never"`` or ``"learned"``),
``reward_fn`` (a JAX function), ``replayable`` (True only for a simulator in which the same seed and
actions give the same bits) and ``seconds_per_step`` (or ``dt``).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ftfl.envs.faults import shown
from ftfl.envs.gym import GymEnvironment, find_attribute
from ftfl.envs.physics import listen_to_mujoco
from ftfl.errors import FtflError, in_a_line
from ftfl.named import load_named
from ftfl.termination import never


def load_custom(task: str) -> GymEnvironment:
    """Import the module, call the function, check what it returns."""
    listen_to_mujoco()  # before it is made: its XML may make MuJoCo warn
    factory = _factory(task)
    try:
        env = factory()
    except Exception as error:
        raise FtflError(f"{task} cannot be made: it raised {in_a_line(error)}.") from error
    for name in ("reset", "step", "observation_space", "action_space"):
        if find_attribute(env, name) is None:
            raise FtflError(
                f"{task} returned a {type(env).__name__} without {name}: return an environment "
                "with Gymnasium's interface (reset, step, observation_space, action_space)."
            )
    _require_seeded_reset(env, task)
    ending = find_attribute(env, "termination_fn")
    if not (ending is None or callable(ending) or ending in ("never", "learned")):
        raise FtflError(
            f"{task} has termination_fn = {shown(ending)}; allowed are a JAX function "
            "(obs, action, next_obs) -> bool, 'never' or 'learned'."
        )
    reward_fn = find_attribute(env, "reward_fn")
    adapter = GymEnvironment(
        env,
        task,
        termination=never if ending == "never" else ending if callable(ending) else None,
        learned_termination=isinstance(ending, str) and ending == "learned",
        reward_fn=reward_fn,
        # Never assume it: replaying an episode would send stored actions to hardware.
        replayable=find_attribute(env, "replayable", False) is True,
    )
    _require_traceable(adapter, "termination_fn", adapter.spec.termination, jnp.dtype(bool))
    _require_traceable(adapter, "reward_fn", reward_fn, jnp.dtype(jnp.float32))
    return adapter


def _factory(task: str) -> Callable[[], Any]:
    factory = load_named(task, "environment", "package.module:make_env")
    if not callable(factory):
        raise FtflError(
            f"{task} is a {type(factory).__name__}, not a function: name a function without "
            "arguments that returns an environment."
        )
    return factory


def _require_seeded_reset(env: Any, task: str) -> None:
    parameters = inspect.signature(env.reset).parameters.values()
    if not any(p.name == "seed" or p.kind is p.VAR_KEYWORD for p in parameters):
        raise FtflError(
            f"{task}: reset takes no seed, which is Gym's interface before 0.26: define "
            "reset(self, *, seed=None, options=None) returning (obs, info)."
        )


def _require_traceable(adapter: GymEnvironment, name: str, fn: Any, dtype: Any) -> None:
    """Trace ``fn`` on a batch of shapes, which takes milliseconds and names the offender."""
    if fn is None:
        return
    spec, batch = adapter.spec, 7
    obs = jax.ShapeDtypeStruct((batch, spec.obs_dim), jnp.float32)
    action = jax.ShapeDtypeStruct((batch, spec.act_dim), jnp.float32)
    try:
        result = jax.eval_shape(fn, obs, action, obs)
    except Exception as error:
        raise FtflError(
            f"{spec.task}: {name} cannot be traced by JAX ({in_a_line(error)}); write it with "
            "jax.numpy on batches of shape (..., O), without if and float(), and in a class body "
            "wrap it in staticmethod."
        ) from error
    if getattr(result, "shape", None) != (batch,) or result.dtype != dtype:
        raise FtflError(
            f"{spec.task}: {name} maps observations of shape ({batch}, {spec.obs_dim}) to {result};"
            f" it must give shape ({batch},) and dtype {dtype}."
        )
