"""Members that diverge in a refit start again instead of staying dead.

Left alone, a member whose gradient was once not finite is lost for the rest of the run: its Adam
moments hold the NaN, and every later step puts it back into the weights.
"""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Int

from ftfl.dynamics.ensemble import Ensemble


class Broken(NamedTuple):
    """Which parts of an ensemble a refit left without finite Adam moments."""

    members: Bool[Array, "E"]
    shared: Bool[Array, ""]
    """What members share: bounds of log-variance, learned termination."""


def find_broken(optimiser: optax.OptState) -> Broken:
    """Read off Adam's second moments, the running squares of all gradients.

    They are not finite once a gradient was not, weights that are not finite give no other, nor once
    a square overflowed, which leaves weights finite but never moves them again.
    """
    return _not_finite(cast(Any, optimiser)[0].nu)


def renew(
    ensemble: Ensemble,
    optimiser: optax.OptState,
    broken: Broken,
    before: Ensemble,
    best: Int[Array, ""],
) -> tuple[Ensemble, optax.OptState]:
    """Broken parts with empty moments and the weights they had before the refit.

    A member whose weights were not finite even then gets those of the ``best`` living one.
    """
    adam, *rest = cast(tuple[Any, ...], optimiser)
    mu, nu = (_choose(broken, jax.tree.map(jnp.zeros_like, m), m) for m in (adam.mu, adam.nu))
    copies = jax.tree.map(lambda x: jnp.broadcast_to(x[best], x.shape), ensemble.trunks)
    trunks = per_member(_not_finite(before).members, copies, before.trunks)
    source = Ensemble(trunks, before.logvar_min, before.logvar_max, before.termination)
    return _choose(broken, source, ensemble), (adam._replace(mu=mu, nu=nu), *rest)


def per_member(which: Bool[Array, "E"], new: Any, old: Any) -> Any:
    """Of stacked members the ``new`` ones where ``which`` says so, the ``old`` ones elsewhere."""

    def choose(a: Array, b: Array) -> Array:
        return jnp.where(which.reshape(-1, *([1] * (a.ndim - 1))), a, b)

    return jax.tree.map(choose, new, old)


def _shared(ensemble: Ensemble) -> tuple[Any, ...]:
    return ensemble.logvar_min, ensemble.logvar_max, ensemble.termination


def _not_finite(ensemble: Ensemble) -> Broken:
    # A sum is not finite if a term is not; it compiles and runs faster than asking each.
    members = [
        jnp.sum(leaf, axis=tuple(range(1, leaf.ndim))) for leaf in jax.tree.leaves(ensemble.trunks)
    ]
    shared = [jnp.sum(leaf) for leaf in jax.tree.leaves(_shared(ensemble))]
    return Broken(~jnp.isfinite(sum(members)), ~jnp.isfinite(sum(shared)))


def _choose(which: Broken, new: Ensemble, old: Ensemble) -> Ensemble:
    shared = jax.tree.map(lambda a, b: jnp.where(which.shared, a, b), _shared(new), _shared(old))
    return Ensemble(per_member(which.members, new.trunks, old.trunks), *shared)
