"""The ensemble of probabilistic networks: forward pass, bounded log-variance, loss.

Loss (docs/algorithms/mbpo.md): Σ over members of mean over rows and dimensions of
(z − μ)² e^{−ℓ} + ℓ, weighted by e^{βℓ} under `nll_beta`, plus ½ λ ‖W‖² per layer; with learned
bounds (MBPO 2019) also 0.01 (Σ ℓ_max − Σ ℓ_min).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ftfl.config import DynamicsConfig, Precision
from ftfl.nets import MLP, Init, stack
from ftfl.types import Key

_TERMINATION_HIDDEN = (64, 64)


class Ensemble(eqx.Module):
    """Weights of all members, and the bounds of log-variance they share."""

    trunks: list[MLP]
    """One stack of members for all outputs, or one for the state and one for the reward."""
    logvar_min: Float[Array, "D"]
    logvar_max: Float[Array, "D"]
    termination: MLP | None
    """Classifier of next observations, when a task asks for learned termination."""


class Gaussian(NamedTuple):
    """Per-member predictions in network units."""

    mean: Float[Array, "E B D"]
    logvar: Float[Array, "E B D"]


def init(
    key: Key, obs_dim: int, act_dim: int, config: DynamicsConfig, learn_termination: bool
) -> Ensemble:
    """Fresh members, each with its own key and fan-in (``init='per_member'``)."""
    trunk_key, termination_key = jax.random.split(key)
    outputs = {
        "joint": [obs_dim + 1],
        "separate": [obs_dim, 1],
        "given": [obs_dim],
    }[config.reward_model]
    trunks = [
        _with_logvar_start(_members(k, obs_dim + act_dim, size, config), size, config)
        for k, size in zip(jax.random.split(trunk_key, len(outputs)), outputs, strict=True)
    ]
    size = sum(outputs)
    termination = None
    if learn_termination:
        lecun = jax.nn.initializers.lecun_normal()
        termination = MLP(termination_key, obs_dim, _TERMINATION_HIDDEN, 1, lecun)
    return Ensemble(
        trunks,
        jnp.full(size, config.logvar_min, jnp.float32),
        jnp.full(size, config.logvar_max, jnp.float32),
        termination,
    )


def _members(key: Key, inputs: int, outputs: int, config: DynamicsConfig) -> MLP:
    lecun = jax.nn.initializers.lecun_normal()

    def truncated(k: Key, shape: tuple[int, ...]) -> Array:
        std = 1.0 / (2.0 * shape[-2] ** 0.5)
        return std * jax.random.truncated_normal(k, -2.0, 2.0, shape)

    def make(init: Init) -> Callable[[Key], MLP]:
        return lambda k: MLP(k, inputs, config.hidden, 2 * outputs, init)

    if config.init == "per_member":
        return stack(make(lecun), key, config.members)
    if config.init == "truncated":
        return stack(make(truncated), key, config.members)
    # STFL draws the (E, in, out) kernel at once, so that its fan-in counts the members: √E too
    # small (docs/algorithms/mbpo-stfl.md). Kept for the preset that stands for that code.
    kernels = make(lambda k, shape: lecun(k, (config.members, *shape)))(key)
    return jax.tree.map(
        lambda x: jnp.broadcast_to(x, (config.members, *x.shape)) if x.ndim == 1 else x, kernels
    )


def _with_logvar_start(trunk: MLP, outputs: int, config: DynamicsConfig) -> MLP:
    """Set the bias of the log-variance half so that all outputs start at ``logvar_start``."""
    if config.logvar_start is None:
        return trunk
    raw = unbound(jnp.float32(config.logvar_start), config.logvar_min, config.logvar_max)
    bias = trunk.layers[-1].bias.at[:, outputs:].set(raw)
    return eqx.tree_at(lambda t: t.layers[-1].bias, trunk, bias)


def bound(raw: Array, low: Array, high: Array) -> Array:
    """Soft bounds on log-variance: never above ``high``, never below ``low``."""
    logvar = high - jax.nn.softplus(high - raw)
    return low + jax.nn.softplus(logvar - low)


def bounded_std(raw: Array, low: Array, high: Array) -> Array:
    """√e^``bound``, at a tenth of its time: one exponential an output, and no logarithm.

    Both softplus cancel against the exponential that follows them: e^bound = e^low + 1/(e^−high +
    e^−raw). Exponents count from the middle of the bounds, so that bounds 170 nats apart are safe.
    """
    middle, edge = 0.5 * (low + high), jnp.exp(0.5 * (low - high))
    return jnp.exp(0.5 * middle) * jnp.sqrt(edge + 1.0 / (edge + jnp.exp(middle - raw)))


def unbound(logvar: Array, low: float, high: float) -> Array:
    """The raw output that ``bound`` maps to ``logvar``."""

    def inverse_softplus(y: Array) -> Array:
        return y + jnp.log(-jnp.expm1(-y))

    inner = low + inverse_softplus(logvar - low)
    return high - inverse_softplus(high - inner)


def forward(
    ensemble: Ensemble, x: Float[Array, "E B I"] | Float[Array, "B I"], shift: Float[Array, "D"]
) -> Gaussian:
    """Every member's prediction, from its own rows (E, B, I) or from rows all share (B, I).

    ``shift`` lowers the log-variance floor per output (``targets.floor_shift``).
    """
    mean, raw = _outputs(ensemble, x, "float32")
    low, high = _bounds(ensemble, shift)
    return Gaussian(mean, bound(raw, low, high))


def mean_and_std(
    ensemble: Ensemble, x: Float[Array, "E B I"] | Float[Array, "B I"], shift: Float[Array, "D"]
) -> tuple[Float[Array, "E B D"], Float[Array, "E B D"]]:
    """`forward` with standard deviations, which screens need of every member and output."""
    mean, raw = _outputs(ensemble, x, "float32")
    return mean, bounded_std(raw, *_bounds(ensemble, shift))


def _bounds(
    ensemble: Ensemble, shift: Float[Array, "D"]
) -> tuple[Float[Array, "1 1 D"], Float[Array, "1 1 D"]]:
    """Floor and cap of the log-variance of every output."""
    return (ensemble.logvar_min + shift)[None, None], ensemble.logvar_max[None, None]


def _outputs(
    ensemble: Ensemble, x: Float[Array, "E B I"] | Float[Array, "B I"], precision: Precision
) -> tuple[Float[Array, "E B D"], Float[Array, "E B D"]]:
    """Means, and log-variances before their bounds."""
    member_axis = 0 if x.ndim == 3 else None
    halves = []
    for trunk in ensemble.trunks:
        members = jax.vmap(lambda net, rows: net(rows, jax.nn.silu, precision), (0, member_axis))
        halves.append(jnp.split(members(trunk, x), 2, axis=-1))
    mean, raw = (jnp.concatenate(half, axis=-1) for half in zip(*halves, strict=True))
    return mean, raw


def nll(prediction: Gaussian, z: Float[Array, "*E B D"]) -> Float[Array, "E B D"]:
    """(z − μ)² e^{−ℓ} + ℓ: twice the Gaussian negative log-likelihood, less its constant."""
    target = jnp.broadcast_to(z, prediction.mean.shape)
    return (target - prediction.mean) ** 2 * jnp.exp(-prediction.logvar) + prediction.logvar


@jax.custom_vjp
def _training_nll(mean: Array, raw: Array, low: Array, high: Array, z: Array) -> Array:
    """``nll`` of raw outputs, all of one shape.

    The gradient is written out so that each exponential is taken once, in a loop of its own: left
    to itself XLA fuses them all into the concatenation of both halves' gradients, which it cannot
    vectorise; that took a tenth of a whole update.
    """
    return nll(Gaussian(mean, bound(raw, low, high)), z)


def _nll_forward(
    mean: Array, raw: Array, low: Array, high: Array, z: Array
) -> tuple[Array, tuple[Array, ...]]:
    below = high - jax.nn.softplus(high - raw)
    logvar = low + jax.nn.softplus(below - low)
    precision = jnp.exp(-logvar)
    error = z - mean
    weighted = error * precision
    loss = error * weighted + logvar
    by_logvar = 1.0 - error * weighted
    under, over = jax.nn.sigmoid(high - raw), jax.nn.sigmoid(below - low)
    return loss, jax.lax.optimization_barrier((weighted, by_logvar, under, over))


def _nll_gradient(known: tuple[Array, ...], d: Array) -> tuple[Array, ...]:
    weighted, by_logvar, under, over = known
    by_logvar = d * by_logvar
    by_below = by_logvar * over
    by_mean, by_raw = jax.lax.optimization_barrier((-2.0 * d * weighted, by_below * under))
    return by_mean, by_raw, by_logvar * (1.0 - over), by_below * (1.0 - under), -by_mean


_training_nll.defvjp(_nll_forward, _nll_gradient)


def loss(
    ensemble: Ensemble,
    x: Float[Array, "E B I"],
    z: Float[Array, "E B D"],
    shift: Float[Array, "D"],
    config: DynamicsConfig,
) -> Float[Array, ""]:
    """The training loss of all members together; their gradients do not mix."""
    if not config.logvar_learned:
        frozen = jax.lax.stop_gradient((ensemble.logvar_min, ensemble.logvar_max))
        ensemble = eqx.tree_at(lambda e: (e.logvar_min, e.logvar_max), ensemble, frozen)
    mean, raw = _outputs(ensemble, x, config.precision)
    low, high = (jnp.broadcast_to(x, raw.shape) for x in _bounds(ensemble, shift))
    per_row = _training_nll(mean, raw, low, high, z)  # (E, B, D)
    if config.nll_beta > 0:
        per_row = per_row * variance_weight(raw, low, high, config.nll_beta)
    per_output = jnp.mean(per_row, axis=1)  # (E, D)
    if config.reward_model == "separate":
        # Two networks, two losses: neither's size depends on the other's number of outputs.
        data = jnp.mean(per_output[:, :-1], axis=-1) + per_output[:, -1]
    else:
        data = jnp.mean(per_output, axis=-1)
    decay = sum(
        0.5 * rate * jnp.sum(layer.weight**2)
        for trunk in ensemble.trunks
        for rate, layer in zip(config.weight_decay, trunk.layers, strict=True)
    )
    total = jnp.sum(data) + decay
    if config.logvar_learned:
        spread = jnp.sum(ensemble.logvar_max) - jnp.sum(ensemble.logvar_min)
        total = total + config.logvar_penalty * spread
    return total


def variance_weight(raw: Array, low: Array, high: Array, beta: float) -> Array:
    """e^{βℓ} without gradient: the β-NLL of Seitzer et al. 2022 (arXiv 2203.09168), eq. 7.

    Under the likelihood a mean is pulled by (z − μ) e^{−ℓ}, so what is predicted badly counts less
    the surer the network is that it cannot be predicted: rows too rare to be fitted at once end as
    variance. The factor takes β of that discount back.
    """
    return jnp.exp(beta * jax.lax.stop_gradient(bound(raw, low, high)))


def termination_logit(net: MLP, next_obs: Float[Array, "B O"]) -> Float[Array, "B"]:
    """Learned termination: log odds that a standardised next observation is terminal."""
    return net(next_obs, jax.nn.silu)[:, 0]


def termination_loss(
    net: MLP, next_obs: Float[Array, "B O"], terminated: Bool[Array, "B"]
) -> Float[Array, ""]:
    """Binary cross-entropy of the learned termination, in nats."""
    logit = termination_logit(net, next_obs)
    return jnp.mean(jax.nn.softplus(logit) - jnp.where(terminated, logit, 0.0))
