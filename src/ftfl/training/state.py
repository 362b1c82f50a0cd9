"""RunState: everything that a run is and that a checkpoint must hold, and the run's randomness.

Keys: ``fold_in(fold_in(root, stream), counter)``. Every consumer has its own stream, so adding
one, evaluating more often or measuring changes nobody else's randomness (docs/architecture.md).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from enum import IntEnum
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, UInt

from ftfl import replay, sac
from ftfl.config import Config
from ftfl.dynamics import predict as dynamics
from ftfl.dynamics.predict import DynamicsState
from ftfl.envs.spec import EnvSpec
from ftfl.errors import FtflError
from ftfl.replay import Replay
from ftfl.rollouts.memory import Memory, remember
from ftfl.sac import SacState
from ftfl.store.segments import Stored, Table
from ftfl.training import alarms, sentinels
from ftfl.training.alarms import Alarms
from ftfl.types import Key, Transition


class Stream(IntEnum):
    """One number per consumer of randomness; never renumber, old runs depend on it."""

    AGENT_INIT = 0
    MODEL_INIT = 1
    EXPLORE = 2
    ACT = 3
    FIT = 4
    LEARN = 5
    HOLDOUT = 6
    AGENT_RESET = 7


class RunState(eqx.Module):
    """The device side of a run; the host side is ``loop.Progress``."""

    # what learns
    agent: SacState
    dynamics: DynamicsState | None
    # what it learns from
    real: Replay
    synthetic: Replay | None
    screen: Memory | None
    # randomness
    key: Key
    holdout: UInt[Array, ""]
    """Decides which rows are held out; it outlives a change of the key (fork, roll back)."""
    # counters
    env_steps: Int[Array, ""]
    learn_steps: Int[Array, ""]
    resets: Int[Array, ""]
    mismatches: Int[Array, ""]
    """Real transitions whose end the termination function got wrong."""
    # what went wrong, and when
    alarms: Alarms


def with_parts(state: RunState, parts: Mapping[str, Any]) -> RunState:
    """``dataclasses.replace`` without Equinox's checks, which outlast a step of a small task."""
    values, structure = jax.tree.flatten(state, is_leaf=lambda x: x is not state)
    names = [field.name for field in dataclasses.fields(state)]
    return jax.tree.unflatten(structure, map(parts.get, names, values))


def stream_key(root: Key, stream: Stream, counter: Array | int = 0) -> Key:
    """The key of one consumer at one moment."""
    return jax.random.fold_in(jax.random.fold_in(root, int(stream)), counter)


def _holdout(root: Key) -> UInt[Array, ""]:
    return jax.random.bits(stream_key(root, Stream.HOLDOUT), (), jnp.uint32)


def init(config: Config, spec: EnvSpec, logged_rows: int = 0) -> RunState:
    """The state before the first step. The same seed gives every algorithm the same agent."""
    root = jax.random.key(config.seed)
    obs_dim, act_dim = spec.obs_dim, spec.act_dim
    model = synthetic = None
    memory = None
    if config.dynamics is not None and config.rollouts is not None:
        model = dynamics.init(
            stream_key(root, Stream.MODEL_INIT),
            obs_dim,
            act_dim,
            config.dynamics,
            learn_termination=spec.learned_termination and spec.termination is None,
        )
        synthetic = replay.empty(config.rollouts.capacity_rows, obs_dim, act_dim)
        memory = remember(config, obs_dim)
    return RunState(
        agent=sac.init(
            stream_key(root, Stream.AGENT_INIT), obs_dim, act_dim, config.sac, spec.view
        ),
        dynamics=model,
        real=replay.empty(config.real_rows(logged_rows), obs_dim, act_dim),
        synthetic=synthetic,
        screen=memory,
        key=root,
        holdout=_holdout(root),
        env_steps=jnp.int32(0),
        learn_steps=jnp.int32(0),
        resets=jnp.int32(0),
        mismatches=jnp.int32(0),
        alarms=alarms.init(),
    )


_COMPONENTS = ("agent", "dynamics", "synthetic", "screen", "alarms")
_COUNTERS = ("env_steps", "learn_steps", "resets", "mismatches")


def to_components(state: RunState) -> dict[str, dict[str, np.ndarray]]:
    """Named arrays by component, for a checkpoint; all but the real replay (``real_rows``)."""
    components: dict[str, dict[str, np.ndarray]] = {}
    for name in _COMPONENTS:
        part = getattr(state, name)
        arrays = _named(part)
        if isinstance(part, Replay):
            # Rows never filled are zeros.
            filled = int(part.size)
            arrays = {k: v[:filled] if v.ndim else v for k, v in arrays.items()}
        if arrays:
            components[name] = arrays
    counters = {name: np.asarray(getattr(state, name)) for name in _COUNTERS}
    key = np.asarray(jax.random.key_data(state.key))
    components["run"] = {"key": key, "holdout": np.asarray(state.holdout), **counters}
    return components


def real_rows(state: RunState, total: int) -> Table:
    """The real replay as a table of ``total`` rows that only grows: saving costs what is new."""
    capacity = state.real.capacity

    def read(start: int, stop: int) -> dict[str, np.ndarray]:
        slots = np.arange(start, stop) % capacity
        return {k: np.asarray(v)[slots] for k, v in state.real.rows._asdict().items()}

    return Table(total=total, kept=min(total, capacity), read=read)


def from_components(
    template: RunState, components: Mapping[str, Mapping[str, np.ndarray]], real: Stored
) -> RunState:
    """The inverse of both, into the shapes of ``template`` (a fresh ``init`` of the same config).

    The room for real rows may have grown since (``--steps``): row number n lies in slot n modulo
    the capacity, wherever that leads.

    A checkpoint from before there were alarms gets fresh ones, which know the replay's rewards.

    Raises:
        FtflError: an array is missing, or has another shape or dtype than the configuration says.
    """
    parts: dict[str, Any] = {
        name: restore(name, getattr(template, name), components.get(name, {}))
        for name in _COMPONENTS
        if name != "alarms" or name in components
    }
    parts["real"] = ring(template.real, real)
    if "alarms" not in parts:
        parts["alarms"] = sentinels.see_rewards(alarms.init(), parts["real"].rows.reward)
    run = components["run"]
    parts |= {k: jnp.asarray(run[k]) for k in _COUNTERS}
    parts["key"] = jax.random.wrap_key_data(jnp.asarray(run["key"]))
    held_out = run.get("holdout")
    parts["holdout"] = _holdout(parts["key"]) if held_out is None else jnp.asarray(held_out)
    return RunState(**parts)


def ring(template: Replay, stored: Stored) -> Replay:
    """A replay of ``template``'s room that holds the newest of the stored rows."""
    capacity, total = template.capacity, stored.total
    kept = min(total, capacity)
    slots = np.arange(total - kept, total) % capacity
    columns = {}
    for name, leaf in template.rows._asdict().items():
        if name not in stored.rows:
            raise FtflError(f"the checkpoint's real replay has no column {name!r}.")
        value = stored.rows[name]
        if value.shape[1:] != leaf.shape[1:] or value.dtype != leaf.dtype or len(value) < kept:
            raise FtflError(
                f"the checkpoint's real replay holds {name!r} as {value.dtype}{value.shape}, but"
                f" the configuration says {leaf.dtype} of shape ({kept}, …{leaf.shape[1:]})."
            )
        whole = np.zeros(leaf.shape, leaf.dtype)
        whole[slots] = value[len(value) - kept :]
        columns[name] = jnp.asarray(whole)
    return Replay(
        Transition(**columns), jnp.int32(total % capacity), jnp.int32(min(total, capacity))
    )


def restore(name: str, part: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    """One component, into the structure of ``part``; a replay may hold fewer rows than its room.

    Raises:
        FtflError: an array is missing, or has another shape or dtype than ``part``.
    """
    leaves = []
    paths, structure = jax.tree_util.tree_flatten_with_path(part)
    for path, leaf in paths:
        key = _path_name(path)
        if key not in arrays:
            raise FtflError(f"the checkpoint has no array {key!r} in {name}.")
        value = arrays[key]
        if isinstance(part, Replay) and value.ndim:
            whole = np.zeros(leaf.shape, leaf.dtype)
            if value.shape[0] > whole.shape[0] or value.shape[1:] != whole.shape[1:]:
                raise FtflError(f"{name} {key!r} has shape {value.shape}, not {leaf.shape}.")
            whole[: value.shape[0]] = value
            value = whole
        if value.shape != leaf.shape or value.dtype != leaf.dtype:
            raise FtflError(
                f"{name} {key!r} is {value.dtype}{value.shape} in the checkpoint, but the"
                f" configuration says {leaf.dtype}{leaf.shape}."
            )
        leaves.append(jnp.asarray(value))
    return jax.tree_util.tree_unflatten(structure, leaves)


def _named(tree: Any) -> dict[str, np.ndarray]:
    paths, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {_path_name(path): np.asarray(leaf) for path, leaf in paths}


def _path_name(path: tuple) -> str:
    return "/".join(str(getattr(p, "name", getattr(p, "idx", getattr(p, "key", p)))) for p in path)
