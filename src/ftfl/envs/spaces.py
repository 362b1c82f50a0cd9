"""Vectors in and out: action ranges, and observations flattened in a recorded order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from ftfl.envs.faults import Violation, shown
from ftfl.errors import FtflError

UNBOUNDED = 1e9
"""A bound at or beyond this is no bound: dm_control's lqr declares 1e10, Gymnasium infinity."""


@dataclass(frozen=True)
class ActionRange:
    """The affine map between the agent's [-1, 1] and an actuator's [low, high]."""

    low: np.ndarray
    high: np.ndarray

    @staticmethod
    def of(low: np.ndarray, high: np.ndarray, task: str) -> ActionRange:
        """Check the bounds (shape (A,)) of ``task`` and keep them as float64."""
        low, high = np.asarray(low, np.float64), np.asarray(high, np.float64)
        if low.ndim != 1 or low.size == 0:
            raise FtflError(
                f"{task} has actions of shape {low.shape}; only vectors with at least one entry "
                "are supported, so flatten them in the environment."
            )
        usable = (np.abs(low) < UNBOUNDED) & (np.abs(high) < UNBOUNDED) & (low < high)
        if not usable.all():
            bad = int(np.flatnonzero(~usable)[0])
            raise FtflError(
                f"{task} bounds action {bad} by [{low[bad]:g}, {high[bad]:g}], which cannot be "
                "scaled to [-1, 1]: every action needs finite bounds with low < high, so clip it "
                "in the environment."
            )
        return ActionRange(low, high)

    def to_env(self, action: np.ndarray) -> np.ndarray:
        """Map [-1, 1] to [low, high]; exact at both ends, the identity for [-1, 1]."""
        action = np.asarray(action, np.float64)
        scaled = (self.low + self.high) / 2 + (self.high - self.low) / 2 * action
        # The rounded sum can miss an end by one unit in the last place.
        return np.where(action <= -1, self.low, np.where(action >= 1, self.high, scaled))

    def from_env(self, action: np.ndarray) -> np.ndarray:
        """Invert `to_env`: for logged actions in the actuator's own unit; float32."""
        action = np.asarray(action, np.float64)
        unit = (action - (self.low + self.high) / 2) / ((self.high - self.low) / 2)
        unit = np.where(action <= self.low, -1, np.where(action >= self.high, 1, unit))
        return unit.astype(np.float32)


@dataclass(frozen=True)
class ObsLayout:
    """Named parts of an observation and where each lies in the flat float32 vector."""

    parts: tuple[tuple[str, tuple[int, ...]], ...]
    """(name, shape) in flattening order; the only part of a plain vector is ``obs``."""

    @property
    def dim(self) -> int:
        """Length of the flat vector."""
        return sum(_size(shape) for _, shape in self.parts)

    @property
    def names(self) -> tuple[str, ...]:
        """One name per entry of the flat vector."""
        return tuple(name for part, shape in self.parts for name in _entry_names(part, shape))

    def flatten(self, get: Callable[[str], object]) -> np.ndarray:
        """Collect every part by ``get(name)`` into a new float32 vector.

        Other shapes, and what is no number, are violations. The environment may do as it likes
        with its own arrays afterwards.
        """
        flat = np.empty(self.dim, np.float32)
        start = 0
        with np.errstate(over="ignore"):  # an overflow becomes inf, which the guard reports
            for name, shape in self.parts:
                value = _numbers(get(name), name)
                if value.shape != shape:
                    raise Violation(
                        "contract",
                        f"observation part {name!r} has shape {value.shape}, declared is {shape}",
                    )
                stop = start + value.size
                flat[start:stop] = value.ravel()
                start = stop
        return flat


def pick(observation: Mapping, path: str) -> object:
    """Look up ``a/b`` in nested mappings; a missing key is named."""
    value: object = observation
    for key in path.split("/"):
        if not isinstance(value, Mapping) or key not in value:
            raise Violation("contract", f"observation part {path!r} is missing")
        value = value[key]
    return value


def _numbers(value: object, name: str) -> np.ndarray:
    try:
        array = np.asarray(value)
    except Exception as error:  # ragged lists, tensors on another device
        raise Violation(
            "contract", f"observation part {name!r} is {shown(value)}, which is no array"
        ) from error
    if array.dtype.kind not in "fiub":
        what = f"has dtype {array.dtype}" if isinstance(value, np.ndarray) else f"is {shown(value)}"
        raise Violation("contract", f"observation part {name!r} {what}, which is not numbers")
    return array


def _size(shape: Iterable[int]) -> int:
    return int(np.prod(tuple(shape), dtype=int))


def _entry_names(part: str, shape: tuple[int, ...]) -> list[str]:
    if shape == ():
        return [part]
    return [f"{part}[{','.join(map(str, index))}]" for index in np.ndindex(shape)]
