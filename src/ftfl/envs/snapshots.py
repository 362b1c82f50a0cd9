"""Take an environment back to a moment of an episode, as often as wanted.

Setting positions and velocities is not exact (Ant, Humanoid, reacher, pusher: stale caches, goals
in the model, counters outside the simulator). So everything an environment holds is kept: all of
MuJoCo's data, the model's fields, and every Python object that can be reached, down to step counts,
generators and reward bookkeeping. What cannot be seen from here (a simulator behind a socket, a
library's own memory) is left as it is; whoever restores checks that a known step comes out again.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import math
import sys
from collections.abc import Callable, MutableMapping, MutableSequence, MutableSet
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np

_ATOMS = (
    type(None), bool, int, float, complex, str, bytes, np.generic, np.dtype, type, ModuleType,
    FunctionType, BuiltinFunctionType, MethodType,
)  # fmt: skip
_OPAQUE = (
    # Descriptions that never change, and hundreds of views into MuJoCo's memory.
    "gymnasium.spaces", "gymnasium.envs.registration", "dm_control.mujoco.index", "ftfl.envs.spec",
    "ftfl.envs.spaces",
    # Pictures, processes and what belongs to the whole process.
    "gymnasium.envs.mujoco.mujoco_rendering", "dm_control._render", "ftfl.envs.isolated",
    "ftfl.envs.process", "subprocess", "socket", "threading", "logging", "weakref", "jax", "jaxlib",
)  # fmt: skip
_MISSING = object()
_DRAWN_ONLY = ("tex_", "skin_", "mat_", "light_", "cam_")
"""Fields of MuJoCo's model that only a picture shows: a texture alone takes 12 MB."""


class Snapshot:
    """What an environment was when this was made; `restore` takes it back there, in place."""

    def __init__(self, env: object):
        self._undo: list[Callable[[], None]] = []
        # References, so that no address is used twice while objects are told apart by it.
        self._seen: dict[int, object] = {}
        self._stack: list[object] = [env]
        while self._stack:
            self._keep(self._stack.pop())

    def restore(self) -> None:
        """Put back every value; objects keep their identity, so views stay views."""
        for undo in self._undo:
            undo()

    def _keep(self, value: Any) -> None:
        if isinstance(value, _ATOMS) or id(value) in self._seen:
            return
        self._seen[id(value)] = value
        if _is_of(value, _OPAQUE):
            return
        if _is_of(value, ("mujoco",)):
            self._keep_mujoco(value)
        elif isinstance(value, np.ndarray):
            self._keep_array(value)
        elif isinstance(value, tuple | frozenset):
            self._stack.extend(value)
        elif isinstance(value, np.random.Generator):
            self._stack.append(value.bit_generator)
        elif isinstance(value, np.random.RandomState):
            legacy = value.get_state()
            self._undo.append(lambda: value.set_state(legacy))
        elif _is_of(value, ("numpy.random",)) and hasattr(value, "state"):  # a bit generator
            state = copy.deepcopy(value.state)
            self._undo.append(lambda: setattr(value, "state", state))
        elif hasattr(value, "getstate") and hasattr(value, "setstate"):  # Python's own generators
            pure = value.getstate()
            self._undo.append(lambda: value.setstate(pure))
        else:
            self._keep_object(value)

    def _keep_array(self, value: np.ndarray) -> None:
        if value.dtype == object:
            self._stack.extend(value.ravel().tolist())
        if value.flags.writeable:
            content = value.copy()
            self._undo.append(lambda: np.copyto(value, content))

    def _keep_object(self, value: Any) -> None:
        """Containers, and anything with attributes; some are both."""
        if isinstance(value, MutableMapping):
            mapping = dict(value)
            self._stack.extend(mapping.values())
            self._undo.append(lambda: _refill(value, mapping, value.update))
        elif isinstance(value, MutableSequence):  # lists, deques, byte arrays
            items = list(value)
            self._stack.extend(items)
            self._undo.append(lambda: _refill(value, items, value.extend))
        elif isinstance(value, MutableSet):
            members = set(value)
            self._undo.append(lambda: _refill(value, members, value.__ior__))
        attributes = getattr(value, "__dict__", None)
        if isinstance(attributes, dict):
            fields = dict(attributes)
            self._stack.extend(fields.values())
            self._undo.append(lambda: _refill(attributes, fields, attributes.update))
        for name in _slots(type(value)):
            slot = getattr(value, name, _MISSING)
            if slot is _MISSING:
                continue
            self._stack.append(slot)
            with contextlib.suppress(AttributeError, TypeError):  # some cannot be set
                object.__setattr__(value, name, slot)
                self._undo.append(lambda n=name, s=slot: object.__setattr__(value, n, s))

    def _keep_mujoco(self, value: Any) -> None:
        mujoco: Any = sys.modules["mujoco"]
        if isinstance(value, mujoco.MjData):
            data = copy.copy(value)
            self._stack.append(value.model)
            self._undo.append(lambda: mujoco.mj_copyData(value, value.model, data))
        elif isinstance(value, mujoco.MjModel):
            for holder in (value, value.opt):
                for name in _model_fields(type(holder)):
                    field = getattr(holder, name)
                    if isinstance(field, np.ndarray):
                        self._keep_array(field)
                    elif holder is not value and isinstance(field, int | float):
                        self._undo.append(lambda h=holder, n=name, f=field: setattr(h, n, f))


def lift_time_limit(env: object) -> Callable[[], None]:
    """Let an episode go on past the clock's end; calling what is returned puts the limit back.

    The limits of dm_control, of Gymnasium's wrapper and of probes are lifted. An environment that
    counts by itself still ends its episodes by itself.
    """
    lifted: list[tuple[Any, str, Any]] = []
    holder: Any = env
    while holder is not None:
        if _is_of(holder, ("dm_control", "gymnasium.wrappers", "ftfl.envs.probes")):
            for name, unlimited in (("_step_limit", math.inf), ("_max_episode_steps", sys.maxsize)):
                if name in vars(holder):
                    lifted.append((holder, name, vars(holder)[name]))
                    setattr(holder, name, unlimited)
        inside = (vars(holder).get(name) for name in ("inner", "_env", "env"))
        holder = next((h for h in inside if hasattr(h, "__dict__")), None)

    def put_back() -> None:
        for owner, name, limit in lifted:
            setattr(owner, name, limit)

    return put_back


def _is_of(value: object, packages: tuple[str, ...]) -> bool:
    module = type(value).__module__
    return any(module == package or module.startswith(package + ".") for package in packages)


def _refill(container: Any, content: Any, fill: Callable[[Any], Any]) -> None:
    container.clear()
    fill(content)


def _slots(kind: type) -> list[str]:
    """Names of attributes that are not in a ``__dict__``."""
    names: list[str] = []
    for base in kind.__mro__:
        declared = base.__dict__.get("__slots__", ())
        names.extend((declared,) if isinstance(declared, str) else declared)
    return [name for name in names if name not in ("__dict__", "__weakref__")]


@functools.cache
def _model_fields(kind: type) -> tuple[str, ...]:
    return tuple(
        name
        for name in dir(kind)
        if not name.startswith(("_", *_DRAWN_ONLY)) and isinstance(getattr(kind, name), property)
    )
