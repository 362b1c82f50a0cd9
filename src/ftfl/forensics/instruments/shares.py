"""What share of a joint model's training is about the reward: of loss, trunk gradient, Adam step.

The trunk's gradient has two ways in, through the means and through the log-variances. Every output
whose error is small beside the starting std asks for less variance with about the same force,
whatever its scale, so the second way hides what the first shows: they are measured apart. And at
initialisation most of a tiny reward's gradient is about the network's own random output; what the
*data* say is the part that depends on the targets' variation (``signal``).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from ftfl.config import DynamicsConfig
from ftfl.dynamics import ensemble as ens
from ftfl.dynamics import predict
from ftfl.dynamics.ensemble import Ensemble, Gaussian
from ftfl.dynamics.predict import DynamicsState
from ftfl.dynamics.targets import (
    floor_shift,
    measure,
    model_input,
    model_target,
    training_scaler,
)
from ftfl.errors import FtflError
from ftfl.forensics.evidence import Estimate, Numbers, mean_estimate
from ftfl.forensics.moments import unknown
from ftfl.nets import Optimiser
from ftfl.replay import Replay, Split, take
from ftfl.types import Key

ROWS = 1_024
_ADAM_DECAY, _ADAM_EPSILON = 0.999, 1e-8  # optax's defaults, which `nets.Optimiser` uses


@dataclass(frozen=True)
class RewardShares:
    """The reward's shares, each between 0 and 1, over the members of one ensemble.

    A share of a gradient or step is that of its length: ‖g_r‖ / √(‖g_r‖² + ‖g_rest‖²), the square
    root of a share of squares. D equal outputs have 1/D of the loss and 1/√D of the gradient.
    """

    loss: Estimate
    """Of the weighted squared errors, (z − μ)² e^{−ℓ}."""
    mean_gradient: Estimate
    """Of the trunk's gradient through the means."""
    variance_gradient: Estimate
    """Of the trunk's gradient through the log-variances."""
    gradient: Estimate
    """Of the trunk's whole gradient."""
    signal_gradient: Estimate
    """Of the part of the trunk's gradient that the targets' variation makes."""
    adam_step: Estimate
    """Of Adam's step on the trunk."""
    step_over_std: np.ndarray
    """(E, D): by how much one update moves each member's mean, in target standard deviations."""
    outputs: int

    @property
    def reward_step_over_std(self) -> Estimate:
        """How far one update throws the reward's mean, in standard deviations of the reward.

        NaN for a constant reward.
        """
        steps = self.step_over_std[:, -1]
        if np.isnan(steps).any():
            return unknown(float("nan"), len(steps), "a constant reward has no spread")
        return mean_estimate(steps)

    def numbers(self) -> Numbers:
        """All shares, and how far one update throws each output."""
        return {
            "loss": self.loss,
            "mean_gradient": self.mean_gradient,
            "variance_gradient": self.variance_gradient,
            "gradient": self.gradient,
            "signal_gradient": self.signal_gradient,
            "adam_step": self.adam_step,
            "equal_share_of_loss": 1.0 / self.outputs,
            "equal_share_of_gradient": self.outputs**-0.5,
            "reward_step_over_std": self.reward_step_over_std,
            "step_over_std": self.step_over_std.mean(axis=0).tolist(),
        }


def fresh(key: Key, ring: Replay, split: Split, config: DynamicsConfig) -> DynamicsState:
    """The model a run starts with, in the units that this replay would give it."""
    rows = ring.rows
    state = predict.init(key, rows.obs.shape[1], rows.action.shape[1], config)
    statistics = jax.jit(measure, static_argnames=("config",))(ring, split, config=config)
    return eqx.tree_at(lambda s: s.statistics, state, statistics)


def reward_shares(
    state: DynamicsState, ring: Replay, split: Split, config: DynamicsConfig
) -> RewardShares:
    """The shares for one state of the model, fresh or trained, on up to 1,024 training rows.

    Raises:
        FtflError: the reward is not an output of the joint network.
    """
    if config.reward_model != "joint":
        raise FtflError(
            f"with reward_model={config.reward_model} the reward shares no network with the"
            " state: shares are measured with reward_model=joint only."
        )
    count = int(split.train_count(ring))
    if count == 0:
        raise FtflError(f"the replay holds no training rows: {int(ring.size)} rows in all.")
    chosen = jnp.asarray(np.linspace(0, count - 1, min(ROWS, count)).round().astype(np.int32))
    batch = take(ring, split.train_slot(chosen))
    scaler = training_scaler(state.statistics, config)
    x = state.statistics.input.to_unit(model_input(batch))
    z = scaler.to_unit(model_target(config.target, True, batch, state.statistics.reversion))
    shift = floor_shift(state.statistics, scaler, config)
    found = jax.tree.map(np.asarray, _measure(state, x, z, shift, config))
    # A constant target has no std to compare a step with, and under unit scale no step either.
    std = np.asarray(state.statistics.target.std)
    physical = found.step * np.asarray(scaler.std)
    step = np.divide(physical, std, out=np.full_like(physical, np.nan), where=std > 0)
    return RewardShares(
        **{
            name: mean_estimate(getattr(found, name))
            for name in ("loss", "mean_gradient", "variance_gradient", "gradient",
                         "signal_gradient", "adam_step")
        },
        step_over_std=step,
        outputs=z.shape[1],
    )  # fmt: skip


class _Measured(NamedTuple):
    loss: Float[Array, "E"]
    mean_gradient: Float[Array, "E"]
    variance_gradient: Float[Array, "E"]
    gradient: Float[Array, "E"]
    signal_gradient: Float[Array, "E"]
    adam_step: Float[Array, "E"]
    step: Float[Array, "E D"]


@functools.partial(jax.jit, static_argnames="config")
def _measure(
    state: DynamicsState,
    x: Float[Array, "B I"],
    z: Float[Array, "B D"],
    shift: Float[Array, "D"],
    config: DynamicsConfig,
) -> _Measured:
    net = state.ensemble
    out, pull = jax.vjp(lambda n: ens.forward(n, x, shift), net)
    zs = jnp.broadcast_to(z, out.mean.shape)
    centred = zs - jnp.broadcast_to(jnp.mean(z, axis=0), zs.shape)
    weight = jnp.exp(-out.logvar)
    size = zs.shape[1] * zs.shape[2]
    # Under β-NLL a row counts by e^{βℓ}, which has no gradient of its own (ensemble.loss).
    counts = jnp.exp(config.nll_beta * out.logvar)
    squares = jnp.mean(counts * weight * (out.mean - zs) ** 2, axis=1)
    # Three ways into the trunk, each for the reward and for the rest.
    none = jnp.zeros_like(zs)
    mean = counts * 2.0 * weight * (out.mean - zs) / size
    variance = counts * (1.0 - weight * (out.mean - zs) ** 2) / size
    signal = counts * -2.0 * weight * centred / size
    ways = Gaussian(jnp.stack([mean, none, signal]), jnp.stack([none, variance, none]))
    is_reward = jnp.broadcast_to(jnp.arange(z.shape[1]) == z.shape[1] - 1, ways.mean.shape)
    parts = [
        _trunk(jax.vmap(pull)(jax.tree.map(lambda w, m=mask: jnp.where(m, w, 0.0), ways))[0])
        for mask in (is_reward, ~is_reward)
    ]

    def way(i: int) -> tuple[list[Array], list[Array]]:
        reward, rest = ([leaf[i] for leaf in part] for part in parts)
        return reward, rest

    whole = tuple([leaf[0] + leaf[1] for leaf in part] for part in parts)

    moment = optax.tree_utils.tree_get(state.optimiser, "nu")
    count = optax.tree_utils.tree_get(state.optimiser, "count")
    correction = 1.0 - _ADAM_DECAY ** (count + 1).astype(jnp.float32)
    # The second moment this step would add, with the parts' squares instead of the square of their
    # sum: from minibatch to minibatch their signs vary, and one that cancels would divide by zero.
    scale = [
        jnp.sqrt((_ADAM_DECAY * v + (1.0 - _ADAM_DECAY) * (mine**2 + rest**2)) / correction)
        + _ADAM_EPSILON
        for v, mine, rest in zip(_trunk(moment), *whole, strict=True)
    ]
    steps = tuple([g / s for g, s in zip(part, scale, strict=True)] for part in whole)

    moved = ens.forward(_one_update(state, x, z, shift, config), x, shift).mean - out.mean
    return _Measured(
        loss=squares[:, -1] / jnp.sum(squares, axis=1),
        mean_gradient=_share(*way(0)),
        variance_gradient=_share(*way(1)),
        gradient=_share(*whole),
        signal_gradient=_share(*way(2)),
        adam_step=_share(*steps),
        step=jnp.sqrt(jnp.mean(moved**2, axis=1)),
    )


def _one_update(
    state: DynamicsState, x: Array, z: Array, shift: Array, config: DynamicsConfig
) -> Ensemble:
    """The network after one more training update, on ``batch_size`` of these rows."""
    rows = min(config.batch_size, x.shape[0])
    spread = np.linspace(0, x.shape[0] - 1, rows).round().astype(np.int32)

    def repeated(part: Array) -> Array:
        return jnp.broadcast_to(part[spread], (config.members, rows, part.shape[1]))

    grads = jax.grad(ens.loss)(state.ensemble, repeated(x), repeated(z), shift, config)
    return Optimiser(config.learning_rate).step(state.ensemble, grads, state.optimiser)[0]


def _trunk(grads: Ensemble) -> list[Array]:
    """The layers all outputs share: every one but the last."""
    return [
        leaf
        for trunk in grads.trunks
        for layer in trunk.layers[:-1]
        for leaf in (layer.weight, layer.bias)
    ]


def _share(part: list[Array], rest: list[Array]) -> Float[Array, "E"]:
    """Per member, ‖part‖ / √(‖part‖² + ‖rest‖²)."""

    def square(leaves: list[Array]) -> Float[Array, "E"]:
        return sum(
            (jnp.sum(leaf**2, axis=tuple(range(1, leaf.ndim))) for leaf in leaves),
            start=jnp.zeros(leaves[0].shape[0]),
        )

    mine = square(part)
    total = mine + square(rest)
    return jnp.sqrt(mine / jnp.where(total > 0, total, 1.0))
