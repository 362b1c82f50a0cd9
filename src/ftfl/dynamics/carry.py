"""Statistics move at every refit; a warm-started network is rewritten so that it does not notice.

Inputs and targets are standardised with what the training rows say at each refit. Left alone, the
same weights would mean something else under the new units. Under direct prediction input and
target of a channel move together, so that carrying one without the other is worse than neither.
"""

from __future__ import annotations

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from ftfl.config import DynamicsConfig
from ftfl.dynamics.ensemble import Ensemble
from ftfl.dynamics.targets import Scaler, Statistics, training_scaler
from ftfl.nets import MLP


def carry(ensemble: Ensemble, old: Statistics, new: Statistics, config: DynamicsConfig) -> Ensemble:
    """The ensemble whose predictions under ``new`` are those of ``ensemble`` under ``old``.

    Exact for means; log-variances shift before their soft bounds, which is exact away from them.
    A target that was or becomes constant is left alone. Adam's moments are not rewritten.
    """
    before, after = training_scaler(old, config), training_scaler(new, config)
    trunks, start = [], 0
    for trunk in ensemble.trunks:
        size = trunk.layers[-1].bias.shape[-1] // 2
        part = slice(start, start + size)
        start += size
        trunk = _carry_inputs(trunk, old.input, new.input)
        trunks.append(
            _carry_outputs(
                trunk,
                Scaler(before.mean[part], before.std[part]),
                Scaler(after.mean[part], after.std[part]),
            )
        )
    ensemble = eqx.tree_at(lambda e: e.trunks, ensemble, trunks)
    if ensemble.termination is None:
        return ensemble
    size = ensemble.termination.layers[0].weight.shape[-2]
    net = _carry_inputs(ensemble.termination, old.input.first(size), new.input.first(size))
    return eqx.tree_at(lambda e: e.termination, ensemble, net)


def _carry_inputs(net: MLP, old: Scaler, new: Scaler) -> MLP:
    """W′ = (s_new/s_old) W and b′ = b + ((m_new − m_old)/s_old) W, row by row of the first kernel.

    An input that was constant fed zeros: its row becomes 0 and is learned from there.
    """
    first = net.layers[0]
    divisor = jnp.where(old.constant, 1.0, old.std)
    ratio = jnp.where(old.constant, 0.0, new.std / divisor)
    offset = jnp.where(old.constant, 0.0, (new.mean - old.mean) / divisor)
    weight = first.weight * _column(ratio, first.weight)
    bias = first.bias + jnp.sum(first.weight * _column(offset, first.weight), axis=-2)
    return eqx.tree_at(lambda n: (n.layers[0].weight, n.layers[0].bias), net, (weight, bias))


def _carry_outputs(net: MLP, old: Scaler, new: Scaler) -> MLP:
    """W′ = W c_old/c_new, b′ = (c_old b + m_old − m_new)/c_new; log-variance + 2 ln c_old/c_new."""
    head = net.layers[-1]
    size = old.std.shape[0]
    usable = ~(old.constant | new.constant)
    divisor = jnp.where(usable, new.std, 1.0)
    ratio = jnp.where(usable, old.std / divisor, 1.0)
    offset = jnp.where(usable, (old.mean - new.mean) / divisor, 0.0)
    weight = head.weight.at[..., :size].multiply(ratio[None, None])
    bias = head.bias.at[:, :size].multiply(ratio[None])
    bias = bias.at[:, :size].add(offset[None])
    bias = bias.at[:, size:].add(2.0 * jnp.log(ratio)[None])
    return eqx.tree_at(lambda n: (n.layers[-1].weight, n.layers[-1].bias), net, (weight, bias))


def _column(row: Float[Array, "I"], like: Float[Array, "*E I J"]) -> Float[Array, "*E I J"]:
    """A factor per input, for every output (and member)."""
    return jnp.broadcast_to(row[:, None], like.shape)
