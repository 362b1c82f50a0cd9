"""When an episode ends, in closed form, for the standard tasks.

A model-based agent must decide on *predicted* observations whether the episode would have ended,
so every function here reads nothing but ``next_obs``. Each is pure, traceable by JAX and batched
on leading axes: ``(obs, action, next_obs) -> terminated``, shapes ``(*B, O), (*B, A), (*B, O) ->
(*B)``.

Two rules hold for all of them:

* Finiteness is tested first: a non-finite prediction is terminated. Comparisons with NaN are
  false, so a test written as "dead if z < 1 or z > 2" would call NaN alive.
* Tasks without an end use `never`, which answers false even for NaN. It states a fact about the
  task; keeping non-finite predictions out of the data is the rollout's duty, not this function's.

What the closed forms cannot see, because the observation does not hold it:

* Hopper ends when a joint velocity leaves ±100, but its observation clips velocities to ±10.
* InvertedDoublePendulum tests the height of the tip at the integrator's last stage, which differs
  from the angles it reports by about 1e-4 m.

Source: Gymnasium 1.4 ``gymnasium/envs/mujoco/*_v4.py, *_v5.py`` and ``classic_control``; the
tests drive those simulators against these functions.
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ftfl.types import TerminationFn

Obs = Float[Array, "*B O"]
Action = Float[Array, "*B A"]
Terminated = Bool[Array, "*B"]


def never(obs: Obs, action: Action, next_obs: Obs) -> Terminated:
    """End nothing: all DeepMind Control tasks, HalfCheetah, Swimmer, Reacher, Pusher, Pendulum."""
    return jnp.zeros(next_obs.shape[:-1], dtype=bool)


def inverted_pendulum(obs: Obs, action: Action, next_obs: Obs) -> Terminated:
    """End when the pole leans more than 0.2 rad. Layout: cart, pole angle, their velocities."""
    return ~(_finite(next_obs) & (jnp.abs(next_obs[..., 1]) <= 0.2))


def inverted_double_pendulum(obs: Obs, action: Action, next_obs: Obs) -> Terminated:
    """End when the tip is at 1 m or lower; each of the two poles is 0.6 m long.

    Layout: cart, sin of both joint angles, cos of both, velocities, (v4: constraint forces). The
    second angle is relative to the first, so the tip needs ``cos(θ1 + θ2)``.
    """
    sin1, sin2 = next_obs[..., 1], next_obs[..., 2]
    cos1, cos2 = next_obs[..., 3], next_obs[..., 4]
    height = 0.6 * (cos1 + cos1 * cos2 - sin1 * sin2)
    return ~(_finite(next_obs) & (height > 1.0))


def hopper(obs: Obs, action: Action, next_obs: Obs) -> Terminated:
    """End on a fall (z <= 0.7), a lean of 0.2 rad, or any other entry outside ±100."""
    z, angle = next_obs[..., 0], next_obs[..., 1]
    # |o| < 100, not |(o < 100)|: the slip in three published copies lets -500 live.
    in_range = (jnp.abs(next_obs[..., 1:]) < 100.0).all(axis=-1)
    alive = in_range & (z > 0.7) & (jnp.abs(angle) < 0.2)
    return ~(_finite(next_obs) & alive)


def walker2d(obs: Obs, action: Action, next_obs: Obs) -> Terminated:
    """End when the torso leaves 0.8 m < z < 2 m or leans 1 rad or more."""
    z, angle = next_obs[..., 0], next_obs[..., 1]
    alive = (z > 0.8) & (z < 2.0) & (jnp.abs(angle) < 1.0)
    return ~(_finite(next_obs) & alive)


def ant(obs: Obs, action: Action, next_obs: Obs) -> Terminated:
    """End when the torso leaves 0.2 m <= z <= 1 m; z comes first in every layout (27, 105, 111)."""
    z = next_obs[..., 0]
    return ~(_finite(next_obs) & (z >= 0.2) & (z <= 1.0))


def humanoid(obs: Obs, action: Action, next_obs: Obs) -> Terminated:
    """End when the torso leaves 1 m < z < 2 m; z comes first in every layout (45, 348, 376)."""
    z = next_obs[..., 0]
    return ~(_finite(next_obs) & (z > 1.0) & (z < 2.0))


def mountain_car(obs: Obs, action: Action, next_obs: Obs) -> Terminated:
    """End at the goal: position 0.45 or beyond, not rolling back. Layout: position, velocity."""
    at_goal = (next_obs[..., 0] >= 0.45) & (next_obs[..., 1] >= 0.0)
    return at_goal | ~_finite(next_obs)


def _finite(next_obs: Obs) -> Terminated:
    return jnp.isfinite(next_obs).all(axis=-1)


_MUJOCO: dict[str, TerminationFn] = {
    "Ant": ant,
    "HalfCheetah": never,
    "Hopper": hopper,
    "Humanoid": humanoid,
    "HumanoidStandup": never,
    "InvertedDoublePendulum": inverted_double_pendulum,
    "InvertedPendulum": inverted_pendulum,
    "Pusher": never,
    "Reacher": never,
    "Swimmer": never,
    "Walker2d": walker2d,
}

TERMINATION: dict[str, TerminationFn] = {
    **{f"{name}-v{version}": fn for name, fn in _MUJOCO.items() for version in (4, 5)},
    "MountainCarContinuous-v0": mountain_car,
    "Pendulum-v1": never,
}
"""Termination function by Gymnasium id, e.g. ``TERMINATION["Hopper-v5"]``."""
