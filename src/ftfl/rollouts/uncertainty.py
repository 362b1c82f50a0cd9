"""How far an ensemble's Gaussians disagree, and how wide they are: pure measures.

All take the members' means and standard deviations of every output, (E, B, D). Nothing here
subtracts large numbers from each other: means enter as differences, mixture variances are centred,
logarithms take ratios. Each row and output is first divided by the largest standard deviation any
member gives it, so that no unit under- or overflows and a power of two changes no bit. An output
that every member is certain of (a constant target) disagrees with nobody and counts nothing.
"""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ftfl.dynamics.predict import Prediction

_NATS_OF_UNIT_GAUSSIAN = 0.5 * (1.0 + math.log(2.0 * math.pi))

_PAIRS_A_LOGARITHM = 7  # stds 10⁵ apart do not overflow


def _scale(members: Prediction) -> tuple[Float[Array, "B D"], Bool[Array, "B D"]]:
    """The largest std of each row and output (1 where all are 0), and where it is above 0."""
    largest = jnp.max(members.std, axis=0)
    alive = largest > 0
    return jnp.where(alive, largest, 1.0), alive


def one_vs_rest(members: Prediction, member: Int[Array, "B"]) -> Float[Array, "B"]:
    """KL divergence of one member's Gaussian from the moments of all others, in nats (M2AC).

    ½ Σ_d [ln(v_rest/v) − 1 + v/v_rest + (μ_rest − μ)²/v_rest], where μ_rest and v_rest are mean and
    variance of the equal mixture of the other members (arXiv 2010.04893).

    Args:
        members: predictions of all E ≥ 2 members.
        member: the one of each row.
    """
    count, rows = members.mean.shape[:2]
    chosen = (member, jnp.arange(rows, dtype=jnp.int32))
    scale, alive = _scale(members)
    offset = (members.mean - members.mean[chosen][None]) / scale[None]
    variance = (members.std / scale[None]) ** 2
    others = jnp.arange(count, dtype=jnp.int32)[:, None] != member[None]

    def mean_of_others(x: Float[Array, "E B D"]) -> Float[Array, "B D"]:
        return jnp.sum(jnp.where(others[..., None], x, 0.0), axis=0) / (count - 1)

    rest = mean_of_others(offset)
    spread = mean_of_others(variance + (offset - rest[None]) ** 2)
    spread = jnp.where(alive, spread, 1.0)
    excess = variance[chosen] / spread - 1.0
    nats = 0.5 * (excess - jnp.log1p(excess) + rest**2 / spread)
    return jnp.sum(jnp.where(alive, nats, 0.0), axis=-1)


def mean_pairwise_gjs(members: Prediction) -> Float[Array, "B"]:
    """Geometric Jensen-Shannon divergence, mean over all pairs of members, in nats (MACURA).

    Σ_d (μᵢ − μⱼ)²/(4(vᵢ + vⱼ)) + ½ ln[(vᵢ + vⱼ)/(2 σᵢσⱼ)] for a pair with skew ½ (arXiv
    2405.19014); the logarithm's argument is 1 + (σᵢ − σⱼ)²/(2 σᵢσⱼ).
    """
    scale, alive = _scale(members)
    std = jnp.where(alive[None], members.std / scale[None], 1.0)
    total = excess = jnp.zeros(members.mean.shape[1:])
    pairs = list(itertools.combinations(range(members.mean.shape[0]), 2))
    for n, (i, j) in enumerate(pairs, start=1):
        offset = (members.mean[i] - members.mean[j]) / scale
        total += offset**2 / (4.0 * (std[i] ** 2 + std[j] ** 2))
        # Logarithms are dear: one of the product for several pairs, as (1 + excess)(1 + x) − 1.
        excess += (1.0 + excess) * (std[i] - std[j]) ** 2 / (2.0 * std[i] * std[j])
        if n % _PAIRS_A_LOGARITHM == 0 or n == len(pairs):
            total += 0.5 * jnp.log1p(excess)
            excess = jnp.zeros_like(excess)
    return jnp.sum(jnp.where(alive, total, 0.0), axis=-1) / len(pairs)


class Fused(NamedTuple):
    """The ensemble as one Gaussian, and how far its members' means lie from it (Infoprop)."""

    mean: Float[Array, "B D"]
    aleatoric: Float[Array, "B D"]
    """Standard deviation of the fused Gaussian."""
    epistemic: Float[Array, "B D"]
    """Root mean squared distance of the members' means from the fused mean."""


def fuse(members: Prediction) -> Fused:
    """Inverse-variance fusion of all members (Infoprop, arXiv 2501.16918).

    v_f = 1/mean(1/v_e), μ_f = v_f mean(μ_e/v_e), v_ep = mean (μ_e − μ_f)².
    """
    scale, alive = _scale(members)
    std = jnp.where(alive[None], members.std / scale[None], 1.0)
    offset = (members.mean - members.mean[:1]) / scale[None]
    precision = 1.0 / std**2
    variance = 1.0 / jnp.mean(precision, axis=0)
    middle = variance * jnp.mean(offset * precision, axis=0)
    epistemic = jnp.sqrt(jnp.mean((offset - middle[None]) ** 2, axis=0))
    return Fused(
        members.mean[0] + scale * middle,
        jnp.where(alive, scale * jnp.sqrt(variance), 0.0),
        jnp.where(alive, scale * epistemic, 0.0),
    )


class Conditional(NamedTuple):
    """The fused Gaussian's outcome once a member's draw has been seen (Infoprop)."""

    gain: Float[Array, "B D"]
    """K = v_f/(v_f + v_ep), between 0 and 1: how much of the draw to believe."""
    std: Float[Array, "B D"]
    """√((1 − K) v_f): the part of the draw that the members' disagreement had made up."""


def conditional(fused: Fused) -> Conditional:
    """Gain and remaining std; the mean given a draw y is μ_f + K (y − μ_f)."""
    widest = jnp.maximum(fused.aleatoric, fused.epistemic)
    alive = widest > 0
    safe = jnp.where(alive, widest, 1.0)
    own, other = fused.aleatoric / safe, fused.epistemic / safe
    total = jnp.where(alive, own**2 + other**2, 1.0)
    return Conditional(own**2 / total, safe * own * other / jnp.sqrt(total))


def information(std: Float[Array, "*B D"], quantum: float) -> Float[Array, "*B D"]:
    """Bits of a Gaussian's entropy that a grid of step ``quantum`` resolves; never below 0.

    max(0, ½ log₂(2πe std²) − log₂ quantum), Infoprop's information lost when std is what remains
    after conditioning.
    """
    ratio = std / quantum
    sure = ratio == 0
    bits = (jnp.log(jnp.where(sure, 1.0, ratio)) + _NATS_OF_UNIT_GAUSSIAN) / math.log(2.0)
    return jnp.where(sure, 0.0, jnp.maximum(bits, 0.0))


def mixture_std(members: Prediction) -> Float[Array, "B D"]:
    """Standard deviation of the equal mixture of all members, centred; unit as given (WIMLE)."""
    scale, alive = _scale(members)
    offset = (members.mean - members.mean[:1]) / scale[None]
    middle = jnp.mean(offset, axis=0)
    variance = jnp.mean((members.std / scale[None]) ** 2 + (offset - middle[None]) ** 2, axis=0)
    return jnp.where(alive, scale * jnp.sqrt(variance), 0.0)


def largest_norm(std: Float[Array, "E B D"]) -> Float[Array, "B"]:
    """max over members of ‖σ_e‖₂ over all outputs (MOPO, arXiv 2005.13239); unit as given."""
    return jnp.max(jnp.sqrt(jnp.sum(std**2, axis=-1)), axis=0)
