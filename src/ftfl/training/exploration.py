"""What the agent plays while it learns: a draw from its policy, its mean, or a pink-noise draw."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ftfl.config import SacConfig
from ftfl.nets import TanhNormal
from ftfl.training.state import Stream, stream_key
from ftfl.types import Key

_BLOCK = 1_000  # steps of one noise sequence: an epoch of MACURA's and Infoprop's codes


def act(
    policy: TanhNormal, root: Key, env_steps: Int[Array, ""], config: SacConfig
) -> Float[Array, "1 A"]:
    """The action of this step, for a batch of one observation."""
    if config.exploration == "mean":
        return policy.mode()
    if config.exploration == "sample":
        return policy.sample(stream_key(root, Stream.ACT, env_steps))[0]
    # Block after block of noise, as in the source: an episode's end does not start a new one.
    key = stream_key(root, Stream.ACT, env_steps // _BLOCK)
    noise = pink_noise(key, _BLOCK, policy.mean.shape[-1])
    return policy.transform(noise[env_steps % _BLOCK][None])[0]


def pink_noise(key: Key, steps: int, act_dim: int) -> Float[Array, "T A"]:
    """Gaussian sequences of unit variance whose power falls as 1/f, one per action dimension.

    Independent complex Gaussians in frequency with amplitude f^(−½) (Timmer and König 1995); the
    constant part is as strong as the lowest frequency. A real sequence has no phase at frequency 0
    and, for even ``steps``, at the highest; the variance is the sum over all frequencies.
    """
    frequency = jnp.fft.rfftfreq(steps)
    amplitude = jnp.maximum(frequency, frequency[1]) ** -0.5
    real, imaginary = jax.random.normal(key, (2, act_dim, len(frequency)))
    spectrum = jax.lax.complex(amplitude[None] * real, amplitude[None] * imaginary)
    doubled = jnp.full(len(frequency), 4.0).at[0].set(1.0)
    if steps % 2 == 0:
        doubled = doubled.at[-1].set(1.0)
    std = jnp.sqrt(jnp.sum(doubled * amplitude**2)) / steps
    return (jnp.fft.irfft(spectrum, n=steps) / std).T
