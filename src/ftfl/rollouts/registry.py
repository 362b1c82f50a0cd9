"""Names of screens become rules here: the built-in ones, and ``package.module:function``.

Your own is a function of the shape ``screens.Screen``, or a ``screens.ScreenRule`` of one and its
first memory (docs/your-own-screen.md).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ftfl.config import Config
from ftfl.dynamics.predict import Prediction
from ftfl.errors import FtflError, in_a_line, unknown
from ftfl.named import load_named
from ftfl.rollouts import certainty, infoprop, m2ac, macura, mopo
from ftfl.rollouts.screens import Predictions, Screened, ScreenRule, keep_all

_ARGUMENTS = "(key, predictions, step, active, state)"


class BuiltIn(NamedTuple):
    """A screen by name: how its rule is made from (configuration, model outputs)."""

    make: Callable[[Config, int], ScreenRule]
    summary: str


SCREENS: dict[str, BuiltIn] = {
    "keep-all": BuiltIn(
        lambda config, outputs: ScreenRule(keep_all), "store every synthetic transition (MBPO)"
    ),
    "m2ac": BuiltIn(
        m2ac.make, "filter: store the share with the least one-vs-rest divergence (M2AC)"
    ),
    "macura": BuiltIn(
        macura.make, "reject: end a branch at a self-calibrating disagreement (MACURA)"
    ),
    "infoprop": BuiltIn(
        infoprop.make, "reject: end a branch that has lost too much information (Infoprop)"
    ),
    "certainty": BuiltIn(
        certainty.make, "weigh: store each row with the probability of its certainty (WIMLE)"
    ),
    "mopo": BuiltIn(mopo.make, "penalise: rewards pay for the predicted standard deviation (MOPO)"),
}


def build(config: Config, obs_dim: int) -> ScreenRule:
    """The rule that ``config.rollouts.screen`` names.

    Raises:
        FtflError: unknown name, a module that cannot be imported, or a screen that does not go
            with the rest of the configuration.
    """
    assert config.rollouts is not None
    assert config.dynamics is not None
    name = config.rollouts.screen
    if ":" in name:
        return _load(name)
    if name not in SCREENS:
        raise unknown("screen", name, SCREENS)
    return SCREENS[name].make(config, _outputs(config, obs_dim))


def require(config: Config, obs_dim: int, act_dim: int) -> None:
    """Trace the screen on shapes alone, which takes milliseconds, and name what is wrong with it.

    Raises:
        FtflError: what ``build`` raises, a screen that JAX cannot trace, or one that returns other
            shapes or dtypes than a screen must.
    """
    assert config.rollouts is not None
    assert config.dynamics is not None
    name, rule = config.rollouts.screen, build(config, obs_dim)
    rows, outputs = config.rollouts.chunks[1], _outputs(config, obs_dim)
    members = config.dynamics.members

    def floats(*shape: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, jnp.float32)

    whole = jax.ShapeDtypeStruct((), jnp.int32)
    shown = Predictions(
        obs=floats(rows, obs_dim),  # type: ignore[arg-type]
        action=floats(rows, act_dim),  # type: ignore[arg-type]
        members=Prediction(floats(members, rows, outputs), floats(members, rows, outputs)),  # type: ignore[arg-type]
        member=jax.ShapeDtypeStruct((rows,), jnp.int32),  # type: ignore[arg-type]
        next_obs=floats(rows, obs_dim),  # type: ignore[arg-type]
        reward=floats(rows),  # type: ignore[arg-type]
        scale=floats(outputs),  # type: ignore[arg-type]
        length=whole,  # type: ignore[arg-type]
    )
    active = jax.ShapeDtypeStruct((rows,), jnp.bool_)
    key = jax.eval_shape(lambda: jax.random.key(0))
    try:
        answer = jax.eval_shape(rule.screen, key, shown, whole, active, rule.initial)
    except Exception as error:
        raise FtflError(
            f"screen {name} cannot be traced by JAX ({in_a_line(error)}); write it with jax.numpy"
            f" on whole batches, as a function of {_ARGUMENTS}, without if and float() on values."
        ) from error
    if not isinstance(answer, Screened):
        raise FtflError(
            f"screen {name} returned a value of type {type(answer).__name__}; it must return"
            " ftfl.rollouts.screens.Screened(next_obs, reward, store, proceed, state)."
        )
    wanted = {
        "next_obs": floats(rows, obs_dim),
        "reward": floats(rows),
        "store": active,
        "proceed": active,
    }
    if answer.uncertainty is not None:
        wanted["uncertainty"] = floats(rows)
    for field, want in wanted.items():
        _require_same(f"screen {name} returned {field}", getattr(answer, field), want)
    _require_same(
        f"screen {name} returned state",
        answer.state,
        jax.eval_shape(lambda: rule.initial),
        ", as its initial memory has",
    )


def _require_same(what: str, got: Any, want: Any, why: str = "") -> None:
    if _described(got) != _described(want):
        raise FtflError(f"{what} as {_described(got)}; it must be {_described(want)}{why}.")


def _described(tree: Any) -> str:
    """Dtypes and shapes of a pytree, in its structure."""
    if hasattr(tree, "shape") and hasattr(tree, "dtype"):
        return f"{tree.dtype}{list(tree.shape)}"
    leaves, structure = jax.tree_util.tree_flatten(tree)
    if structure == jax.tree_util.tree_structure(0):
        return type(tree).__name__
    return str(jax.tree_util.tree_unflatten(structure, [_described(leaf) for leaf in leaves]))


def _outputs(config: Config, obs_dim: int) -> int:
    assert config.dynamics is not None
    return obs_dim + int(config.dynamics.reward_model != "given")


def _load(name: str) -> ScreenRule:
    """Import ``package.module:function``."""
    # A memory made when the module is read is an array, even if that happens inside a trace.
    with jax.ensure_compile_time_eval():
        found = load_named(name, "screen")
    rule = found if isinstance(found, ScreenRule) else ScreenRule(found)
    if not callable(rule.screen):
        raise FtflError(
            f"screen {name} is of type {type(found).__name__}: name a function of {_ARGUMENTS},"
            " or a ftfl.rollouts.screens.ScreenRule of one and its first memory."
        )
    try:
        inspect.signature(rule.screen).bind(*range(5))
    except TypeError as error:
        raise FtflError(f"screen {name} must take five arguments, {_ARGUMENTS}.") from error
    # By way of NumPy, so that a plain number becomes an array of a firm dtype.
    return rule._replace(initial=jax.tree.map(lambda x: jnp.asarray(np.asarray(x)), rule.initial))
