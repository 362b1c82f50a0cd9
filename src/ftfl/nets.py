"""Networks as pytrees of arrays: MLP, member stacks, and the tanh-normal policy.

Modules act on a batch of rows; members are ``jax.vmap``, so that a stack of members is one
constructor mapped over keys and each member has its own fan-in. Rows are an axis of the modules
because the gradient of a weight is then one matrix product whose form we choose (``affine``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from ftfl.config import Precision
from ftfl.types import Key, View

Activation = Callable[[Array], Array]
Init = Callable[[Key, tuple[int, ...]], Array]
T = TypeVar("T")

_LAYER_NORM_EPSILON = 1e-6


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def affine(
    x: Float[Array, "B I"], weight: Float[Array, "I J"], bias: Float[Array, "J"], precision: str
) -> Float[Array, "B J"]:
    """``x @ weight + bias``, float32 in and out; with ``bf16`` the operands are rounded first.

    Sums are float32 in both (``preferred_element_type``). The gradient is written out because of
    what XLA's CPU backend makes of xᵀ·dy (benchmarks/speed): a column of ones beside x yields the
    bias's gradient with the weight's.
    """
    return _affine(x, weight, bias, precision)[0]


def _affine(x: Array, weight: Array, bias: Array, precision: str) -> tuple[Array, Any]:
    x, weight = _operand(x, precision), _operand(weight, precision)
    return _contract(x, 1, weight, 0, bias.dtype) + bias[None], (x, weight)


def _affine_gradient(precision: str, known: Any, dy: Array) -> tuple[Array, Array, Array]:
    x, weight = known
    wide, dy = dy.dtype, _operand(dy, precision)
    ones = jnp.ones((x.shape[0], 1), x.dtype)
    if precision == "bf16":
        # Only a product over the last axis of x has a kernel for bfloat16 (twice as fast), and a
        # transpose alone would be folded back into the product; the ones keep it apart.
        parts = _contract(jnp.concatenate([x.T, ones.T]), 1, dy, 0, wide)
    else:
        # The odd row length the ones give keeps rows of 256 from sharing cache sets.
        parts = _contract(jnp.concatenate([x, ones], axis=1), 0, dy, 0, wide)
    # Not by a transposed weight, which loses the kernel for bfloat16.
    return _contract(dy, 1, weight, 1, wide), parts[:-1], parts[-1]


affine.defvjp(_affine, _affine_gradient)


def _operand(x: Array, precision: str) -> Array:
    return x.astype(jnp.bfloat16) if precision == "bf16" else x


def _contract(a: Array, axis_a: int, b: Array, axis_b: int, dtype: Any) -> Array:
    """Sum over one axis of each matrix, in the wider type."""
    axes = (((axis_a,), (axis_b,)), ((), ()))
    return jax.lax.dot_general(a, b, axes, preferred_element_type=dtype)


class Linear(eqx.Module):
    """``x @ weight + bias``."""

    weight: Float[Array, "*E I J"]
    bias: Float[Array, "*E J"]

    def __init__(self, key: Key, inputs: int, outputs: int, init: Init):
        self.weight = init(key, (inputs, outputs))
        self.bias = jnp.zeros(outputs)

    def __call__(
        self, x: Float[Array, "B I"], precision: Precision = "float32"
    ) -> Float[Array, "B J"]:
        """Rows."""
        return affine(x, self.weight, self.bias, precision)


class LayerNorm(eqx.Module):
    """Layer norm with learned gain and offset."""

    gain: Float[Array, "*E J"]
    offset: Float[Array, "*E J"]

    def __init__(self, size: int):
        self.gain = jnp.ones(size)
        self.offset = jnp.zeros(size)

    def __call__(self, x: Float[Array, "B J"]) -> Float[Array, "B J"]:
        """Rows, each by itself."""
        centred = x - jnp.mean(x, axis=-1, keepdims=True)
        variance = jnp.mean(centred**2, axis=-1, keepdims=True)
        scale = jax.lax.rsqrt(variance + _LAYER_NORM_EPSILON)
        return centred * scale * self.gain[None] + self.offset[None]


class MLP(eqx.Module):
    """Hidden layers with one activation, a linear output, layer norm before it on request."""

    layers: list[Linear]
    norms: list[LayerNorm]
    view: View | None = eqx.field(static=True)
    """How an agent's network looks at observations (``sac.seen``); None: as they are."""

    def __init__(
        self,
        key: Key,
        inputs: int,
        hidden: Sequence[int],
        outputs: int,
        init: Init,
        layer_norm: bool = False,
        view: View | None = None,
    ):
        sizes = [inputs, *hidden, outputs]
        keys = jax.random.split(key, len(sizes) - 1)
        self.layers = [
            Linear(k, i, o, init) for k, i, o in zip(keys, sizes[:-1], sizes[1:], strict=True)
        ]
        self.norms = [LayerNorm(size) for size in hidden] if layer_norm else []
        self.view = view

    def __call__(
        self, x: Float[Array, "B I"], activation: Activation, precision: Precision = "float32"
    ) -> Float[Array, "B J"]:
        """Rows; ``precision`` is that of the matrix products' operands (``affine``)."""
        for i, layer in enumerate(self.layers[:-1]):
            x = layer(x, precision)
            if self.norms:
                x = self.norms[i](x)
            x = activation(x)
        return self.layers[-1](x, precision)


def stack(make: Callable[[Key], T], key: Key, count: int) -> T:
    """``count`` modules made from different keys, as one module with a leading axis."""
    return jax.vmap(make)(jax.random.split(key, count))


def orthogonal(key: Key, shape: tuple[int, ...]) -> Float[Array, "I J"]:
    """Orthogonal kernel of gain √2 (the jaxrl SAC's)."""
    return jax.nn.initializers.orthogonal(2.0**0.5)(key, shape, jnp.float32)


class TanhNormal(eqx.Module):
    """A Gaussian squashed by tanh into (−1, 1), one per action dimension (SAC, appendix C)."""

    mean: Float[Array, "*B A"]
    log_std: Float[Array, "*B A"]

    def sample(self, key: Key) -> tuple[Float[Array, "*B A"], Float[Array, "*B"]]:
        """A reparameterised draw and its log density in nats."""
        noise = jax.random.normal(key, self.mean.shape)
        return self.transform(noise)

    def transform(
        self, noise: Float[Array, "*B A"]
    ) -> tuple[Float[Array, "*B A"], Float[Array, "*B"]]:
        """Standard normal noise to action and log density."""
        pre = self.mean + jnp.exp(self.log_std) * noise
        gaussian = -0.5 * noise**2 - self.log_std - 0.5 * jnp.log(2 * jnp.pi)
        # log(1 − tanh²u) = 2 (log 2 − u − softplus(−2u)) does not lose digits at large |u|.
        squash = 2.0 * (jnp.log(2.0) - pre - jax.nn.softplus(-2.0 * pre))
        return jnp.tanh(pre), jnp.sum(gaussian - squash, axis=-1)

    def mode(self) -> Float[Array, "*B A"]:
        """The squashed mean: what a deterministic policy plays."""
        return jnp.tanh(self.mean)


class Optimiser(NamedTuple):
    """Adam with optax's defaults, on any pytree of parameters.

    Exists because optax's own arithmetic breaks our strict dtype promotion, and so that a call
    reads ``params, state = optimiser.step(params, grads, state)``.
    """

    learning_rate: float

    def init(self, params: Any) -> Any:
        """Zero moments."""
        return optax.adam(self.learning_rate).init(params)

    def step(self, params: T, grads: T, state: Any) -> tuple[T, Any]:
        """New parameters and moments."""
        with jax.numpy_dtype_promotion("standard"):
            steps, state = optax.adam(self.learning_rate).update(cast(Any, grads), state)
        return cast(T, optax.apply_updates(cast(Any, params), steps)), state
