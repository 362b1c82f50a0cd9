"""What the model regresses (the target cell) and in which units: FTFL's two repairs.

Target vector (docs/algorithms/ftfl.md): ``t = [next_obs − obs, r]`` (residual), ``[next_obs, r]``
(direct), or ``[next_obs − κ obs, r]`` (innovation; docs/algorithms/innovation.md). With scale
``unit`` each dimension is standardised by itself, z = (t − m)/c (Target Unit
Normalization); with ``raw`` the network sees t. Every ε is relative, so that a change of units by
a power of two changes no bit of z.
"""

from __future__ import annotations

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ftfl.config import DynamicsConfig, Target
from ftfl.replay import Replay, Split, take
from ftfl.types import Transition

_CHUNK = 2_048


class Scaler(eqx.Module):
    """z = (x − mean)/std, dimension by dimension.

    A constant dimension carries nothing to learn: its z is 0 and its way back gives the constant
    exactly, with no spread. ``std`` is 0 there.
    """

    mean: Float[Array, "D"]
    std: Float[Array, "D"]

    @staticmethod
    def identity(size: int) -> Scaler:
        """Leaves values as they are."""
        return Scaler(jnp.zeros(size), jnp.ones(size))

    @property
    def constant(self) -> Bool[Array, "D"]:
        """Dimensions that did not vary."""
        return self.std == 0

    def first(self, size: int) -> Scaler:
        """Of the first ``size`` dimensions; of an input scaler, those are the observation."""
        return Scaler(self.mean[:size], self.std[:size])

    def to_unit(self, x: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
        """Physical to network units."""
        mean, std, constant = _like(x, self.mean, self.std, self.constant)
        return jnp.where(constant, 0.0, (x - mean) / jnp.where(constant, 1.0, std))

    def from_unit(self, z: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
        """Network to physical units, for means."""
        mean, std = _like(z, self.mean, self.std)
        return mean + std * z

    def spread_from_unit(self, z: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
        """Network to physical units, for standard deviations."""
        (std,) = _like(z, self.std)
        return std * z


def _like(x: Array, *vectors: Array) -> list[Array]:
    """Broadcast (D,) vectors against ``x`` explicitly (rank promotion is an error in our tests)."""
    return [jnp.broadcast_to(v, x.shape) for v in vectors]


class Statistics(eqx.Module):
    """Measured on training rows only, in physical units."""

    input: Scaler
    """Of [obs, action]."""
    target: Scaler
    """Of the target vector, reward last when it is learned."""
    change: Float[Array, "D"]
    """std of next_obs − obs per channel; for the reward, std of the reward."""
    rows: Float[Array, ""]
    reversion: Float[Array, "O"] | None = None
    """1 − κ of each channel, under innovation targets; κ is the slope of next_obs over obs."""


def model_target(
    target: Target,
    learn_reward: bool,
    batch: Transition,
    reversion: Float[Array, "O"] | None = None,
) -> Float[Array, "*B D"]:
    """The regression target of each transition; ``reversion`` for innovation targets."""
    state = batch.next_obs if target == "direct" else batch.next_obs - batch.obs
    if target == "innovation":
        assert reversion is not None
        # next_obs − κ obs, written so that a slow channel keeps its digits.
        state = state + jnp.broadcast_to(reversion, batch.obs.shape) * batch.obs
    if not learn_reward:
        return state
    return jnp.concatenate([state, batch.reward[..., None]], axis=-1)


def next_obs_of(
    target: Target,
    obs: Float[Array, "*B O"],
    predicted: Float[Array, "*B O"],
    reversion: Float[Array, "O"] | None = None,
) -> Float[Array, "*B O"]:
    """The next observation a predicted target stands for; inverse of `model_target`."""
    if target == "direct":
        return predicted
    if target == "innovation":
        assert reversion is not None
        predicted = predicted - jnp.broadcast_to(reversion, obs.shape) * obs
    return obs + predicted


def model_input(batch: Transition) -> Float[Array, "*B I"]:
    """What the network is given: observation and action."""
    return jnp.concatenate([batch.obs, batch.action], axis=-1)


def measure(
    replay: Replay,
    split: Split,
    config: DynamicsConfig,
    reversion: Float[Array, "O"] | None = None,
) -> Statistics:
    """Mean and std of inputs, targets and one-step changes over all training rows.

    Under innovation targets with the given ``reversion``; with none it is measured as well.

    Two passes (mean, then centred squares) in chunks, so that cost follows the rows stored and
    float32 keeps its digits; sums are taken from the first row's values, so that a constant's mean
    is the constant itself at any number of rows. A dimension whose std is at most ``scale_floor``
    times its root mean square is constant.
    """
    learn_reward = config.reward_model != "given"
    if config.target == "innovation" and reversion is None:
        reversion = measure_reversion(replay, split, config)

    def columns(batch: Transition) -> Float[Array, "B C"]:
        reward = batch.reward[:, None] if learn_reward else jnp.zeros((batch.reward.shape[0], 0))
        return jnp.concatenate(
            [
                model_input(batch),
                model_target(config.target, learn_reward, batch, reversion),
                batch.next_obs - batch.obs,
                reward,
            ],
            axis=-1,
        )

    mean, mean_of = _means(replay, split, columns)
    std = jnp.sqrt(mean_of(lambda x: (x - jnp.broadcast_to(mean, x.shape)) ** 2))
    constant = std <= config.scale_floor * jnp.sqrt(mean**2 + std**2)
    std = jnp.where(constant, 0.0, std + config.scale_epsilon)

    inputs = replay.rows.obs.shape[1] + replay.rows.action.shape[1]
    outputs = replay.rows.obs.shape[1] + int(learn_reward)
    return Statistics(
        input=Scaler(mean[:inputs], std[:inputs]),
        target=Scaler(mean[inputs : inputs + outputs], std[inputs : inputs + outputs]),
        change=std[inputs + outputs :],
        rows=split.train_count(replay).astype(jnp.float32),
        reversion=reversion,
    )


def measure_reversion(replay: Replay, split: Split, config: DynamicsConfig) -> Float[Array, "O"]:
    """1 − κ of each channel: −Cov(next_obs − obs, obs)/Var(obs) over training rows, in [0, 2].

    Beyond these bounds κ would make a branch grow by itself. A constant channel reverts to nothing:
    it has 0, the residual.
    """
    size = replay.rows.obs.shape[1]

    def columns(batch: Transition) -> Float[Array, "B C"]:
        return jnp.concatenate([batch.obs, batch.next_obs - batch.obs], axis=-1)

    def products(x: Float[Array, "B C"]) -> Float[Array, "B C"]:
        centred = x - jnp.broadcast_to(mean, x.shape)
        obs, change = centred[:, :size], centred[:, size:]
        return jnp.concatenate([obs**2, -change * obs], axis=-1)

    mean, mean_of = _means(replay, split, columns)
    variance, covariance = jnp.split(mean_of(products), 2)
    constant = jnp.sqrt(variance) <= config.scale_floor * jnp.sqrt(mean[:size] ** 2 + variance)
    return jnp.where(constant, 0.0, jnp.clip(covariance / jnp.where(constant, 1.0, variance), 0, 2))


def _means(
    replay: Replay, split: Split, columns: Callable[[Transition], Float[Array, "B C"]]
) -> tuple[Float[Array, "C"], Callable[[Callable[[Array], Array]], Float[Array, "C"]]]:
    """Means of columns over all training rows, and a function for those of any function of them."""
    count = split.train_count(replay)
    origin = columns(take(replay, split.train_slot(jnp.zeros(1, jnp.int32))))[0]

    def mean_of(value: Callable[[Array], Array]) -> Float[Array, "C"]:
        def add(chunk: Array, acc: Array) -> Array:
            u = chunk * _CHUNK + jnp.arange(_CHUNK, dtype=jnp.int32)
            x = columns(take(replay, split.train_slot(jnp.minimum(u, count - 1))))
            return acc + jnp.sum(jnp.where((u < count)[:, None], value(x), 0.0), axis=0)

        chunks = (count + _CHUNK - 1) // _CHUNK
        return jax.lax.fori_loop(0, chunks, add, jnp.zeros_like(origin)) / count.astype(jnp.float32)

    return origin + mean_of(lambda x: x - jnp.broadcast_to(origin, x.shape)), mean_of


def training_scaler(statistics: Statistics, config: DynamicsConfig) -> Scaler:
    """The scaler of the target cell: the measured one (unit) or none (raw)."""
    if config.scale == "unit":
        return statistics.target
    return Scaler.identity(statistics.target.mean.shape[0])


def floor_shift(statistics: Statistics, scaler: Scaler, config: DynamicsConfig) -> Array:
    """What is added to the lower log-variance bound of each output, 0 or less; shape (D,).

    The bound −10 is a std of 0.0067 in network units. For a slow channel under direct prediction
    that can exceed the whole one-step change (docs/algorithms/ftfl.md). With
    ``logvar_floor='change'`` the bound is measured against the change wherever that is smaller.
    """
    if config.logvar_floor == "target":
        return jnp.zeros_like(scaler.std)
    usable = (statistics.change > 0) & (scaler.std > 0)
    ratio = jnp.where(usable, statistics.change, 1.0) / jnp.where(usable, scaler.std, 1.0)
    return jnp.minimum(0.0, 2.0 * jnp.log(ratio))
