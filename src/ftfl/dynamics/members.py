"""Members trained one after the other, where that is faster than all at once.

Members share no gradient, so either order gives the same networks up to rounding. A CPU is faster
one by one: a member's weights, moments and activations stay in its cache from update to update,
and XLA's plain matrix product beats its batched one (benchmarks/speed). An accelerator wants all
of them at once, and so does whatever members learn together.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from ftfl.config import DynamicsConfig
from ftfl.dynamics.ensemble import Ensemble

Trained = tuple[Ensemble, optax.OptState, Float[Array, ""]]
"""An ensemble, its optimiser, and the summed loss of the last update."""
Train = Callable[[Ensemble, optax.OptState, Int[Array, "M"]], Trained]
"""Trains an ensemble of the members with these numbers."""


def train_members(
    train: Train, net: Ensemble, optimiser: optax.OptState, config: DynamicsConfig
) -> Trained:
    """Apply ``train`` to all members, in the faster order."""
    numbers = jnp.arange(config.members, dtype=jnp.int32)
    learn_together = config.logvar_learned or net.termination is not None
    if learn_together or jax.default_backend() != "cpu":
        return train(net, optimiser, numbers)
    return _one_by_one(train, net, optimiser, numbers)


def _one_by_one(
    train: Train, net: Ensemble, optimiser: optax.OptState, numbers: Int[Array, "E"]
) -> Trained:
    own, shared = _split((net, optimiser))

    def one(x: tuple[Array, Any]) -> tuple[Any, Any, Array]:
        number, mine = x
        alone = jax.tree.map(lambda leaf: leaf[None], mine)
        net, optimiser = eqx.combine(alone, shared)
        net, optimiser, loss = train(net, optimiser, number[None])
        mine, rest = _split((net, optimiser))
        return jax.tree.map(lambda leaf: leaf[0], mine), rest, loss

    own, rest, losses = jax.lax.map(one, (numbers, own))
    # What is shared counts updates or does not learn: the same whoever was trained.
    net, optimiser = eqx.combine(own, jax.tree.map(lambda leaf: leaf[0], rest))
    return net, optimiser, jnp.sum(losses)


def _split(whole: tuple[Ensemble, optax.OptState]) -> tuple[Any, Any]:
    """Leaves with a member axis, and the others."""
    net, optimiser = whole
    adam, *rest = cast(tuple[Any, ...], optimiser)
    none = jax.tree.map(lambda _: False, net)
    members = eqx.tree_at(lambda e: e.trunks, none, jax.tree.map(lambda _: True, net.trunks))
    which = adam._replace(count=False, mu=members, nu=members)
    return eqx.partition(whole, (members, (which, *jax.tree.map(lambda _: False, rest))))
