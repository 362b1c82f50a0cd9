"""The uncertainty measures against float64 NumPy, where float32 has little to spare.

The references are the formulas as published, in their expanded forms; in float64 those lose nothing
that matters at these sizes, in float32 they would (which is tested too).
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ftfl.dynamics.predict import Prediction
from ftfl.rollouts import uncertainty as unc
from helpers import to64

E, B, D = 5, 40, 9


def ensemble(seed=0, ratio=1e3, spread=1.0):
    """Members whose means are ``ratio`` stds from 0 and ``spread`` stds from each other."""
    rng = np.random.default_rng(seed)
    std = np.exp(rng.normal(-1, 1, (1, B, D)) + 0.3 * rng.normal(size=(E, B, D)))
    mean = std[:1] * (ratio * rng.choice([-1, 1], (1, B, D)) + spread * rng.normal(size=(E, B, D)))
    return mean.astype(np.float32), std.astype(np.float32), rng.integers(0, E, B).astype(np.int32)


def prediction(mean, std):
    return Prediction(jnp.asarray(mean), jnp.asarray(std))


# --- the formulas as published ----------------------------------------------------------------


def reference_kl(mean, std, member):
    out = np.zeros(mean.shape[1])
    for row, chosen in enumerate(member):
        rest = [e for e in range(len(mean)) if e != chosen]
        m, v = mean[:, row], std[:, row] ** 2
        centre = m[rest].mean(axis=0)
        wide = (v[rest] + m[rest] ** 2).mean(axis=0) - centre**2
        out[row] = (
            0.5
            * (
                np.log(wide / v[chosen]) - 1 + v[chosen] / wide + (centre - m[chosen]) ** 2 / wide
            ).sum()
        )
    return out


def reference_gjs(mean, std, skew=0.5):
    total, pairs = 0.0, list(itertools.combinations(range(len(mean)), 2))
    for i, j in pairs:
        vi, vj = std[i] ** 2, std[j] ** 2
        v = 1 / (skew / vi + skew / vj)
        m = v * (skew * mean[i] / vi + skew * mean[j] / vj)
        total = total + 0.5 * (
            skew * mean[i] ** 2 / vi + skew * mean[j] ** 2 / vj - m**2 / v
            + skew * np.log(vi) + skew * np.log(vj) - np.log(v)
        ).sum(axis=-1)  # fmt: skip
    return total / len(pairs)


def reference_fusion(mean, std):
    v = 1 / (1 / std**2).mean(axis=0)
    m = v * (mean / std**2).mean(axis=0)
    return m, np.sqrt(v), np.sqrt(((mean - m) ** 2).mean(axis=0))


def reference_conditional(mean, std, drawn):
    m, aleatoric, epistemic = reference_fusion(mean, std)
    gain = aleatoric**2 / (aleatoric**2 + epistemic**2)
    return m + gain * (drawn - m), np.sqrt((1 - gain) * aleatoric**2)


def wide(*arrays):
    return [np.asarray(a, np.float64) for a in arrays]


# --- float32 against float64 ------------------------------------------------------------------


@pytest.mark.parametrize("ratio", [0.0, 1e3])
@pytest.mark.parametrize("seed", [0, 1])
def test_divergences_in_float32_are_the_published_ones(ratio, seed):
    mean, std, member = ensemble(seed, ratio)
    kl = unc.one_vs_rest(prediction(mean, std), jnp.asarray(member))
    gjs = unc.mean_pairwise_gjs(prediction(mean, std))
    assert kl.dtype == gjs.dtype == jnp.float32
    np.testing.assert_allclose(kl, reference_kl(*wide(mean, std), member), rtol=2e-5)
    np.testing.assert_allclose(gjs, reference_gjs(*wide(mean, std)), rtol=2e-5)


def test_the_expanded_forms_would_not_survive_float32():
    """Or the test above would pass for any formula."""
    mean, std, member = ensemble(ratio=1e3, spread=0.1)
    ours = np.asarray(unc.mean_pairwise_gjs(prediction(mean, std)))
    exact = reference_gjs(*wide(mean, std))
    expanded = reference_gjs(mean, std, np.float32(0.5))
    assert expanded.dtype == np.float32
    assert np.abs(expanded - exact).max() > 1e3 * np.abs(ours - exact).max()
    ours = np.asarray(unc.one_vs_rest(prediction(mean, std), jnp.asarray(member)))
    exact = reference_kl(*wide(mean, std), member)
    with np.errstate(invalid="ignore", divide="ignore"):
        expanded = reference_kl(mean, std, member)
    wrong = np.abs(np.nan_to_num(expanded, nan=np.inf) - exact)
    assert wrong.max() > 1e3 * np.abs(ours - exact).max()


@pytest.mark.parametrize("ratio", [0.0, 1e3])
def test_fusion_and_conditioning_in_float32_are_the_published_ones(ratio):
    mean, std, member = ensemble(2, ratio)
    drawn = (mean + std)[member, np.arange(B)]
    fused = unc.fuse(prediction(mean, std))
    m, aleatoric, epistemic = reference_fusion(*wide(mean, std))
    # Means are as exact as float32 can hold them, and errors count in stds.
    np.testing.assert_allclose((fused.mean - m) / aleatoric, 0, atol=6e-7 * max(ratio, 10))
    np.testing.assert_allclose(fused.aleatoric, aleatoric, rtol=1e-5)
    np.testing.assert_allclose(fused.epistemic, epistemic, rtol=1e-4)
    gain, got_std = unc.conditional(fused)
    got_mean = fused.mean + gain * (drawn - fused.mean)
    want_mean, want_std = reference_conditional(*wide(mean, std, drawn))
    np.testing.assert_allclose((got_mean - want_mean) / aleatoric, 0, atol=6e-7 * max(ratio, 10))
    np.testing.assert_allclose(got_std, want_std, rtol=1e-4)
    bits = unc.information(got_std, 1e-6)
    wanted = np.maximum(0, 0.5 * np.log2(2 * np.pi * np.e * want_std**2) - np.log2(1e-6))
    np.testing.assert_allclose(bits, wanted, atol=1e-3)


def test_in_float64_they_agree_to_all_digits():
    mean, std, member = ensemble(3, ratio=1.0)
    with jax.enable_x64():
        said = to64(prediction(mean, std))
        kl = unc.one_vs_rest(said, jnp.asarray(member))
        gjs = unc.mean_pairwise_gjs(said)
        fused = unc.fuse(said)
    np.testing.assert_allclose(kl, reference_kl(*wide(mean, std), member), rtol=1e-11)
    np.testing.assert_allclose(gjs, reference_gjs(*wide(mean, std)), rtol=1e-11)
    for got, want in zip(fused, reference_fusion(*wide(mean, std)), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-10)


# --- by hand ----------------------------------------------------------------------------------


def one(*values):
    return jnp.asarray(np.array(values, np.float32).reshape(-1, 1, 1))


def test_two_members_a_distance_apart():
    """Equal stds 1, means 0 and d: KL = d²/2, GJS = d²/8, fused std 1, epistemic std d/2."""
    said = Prediction(one(0, 3), one(1, 1))
    np.testing.assert_allclose(unc.one_vs_rest(said, jnp.int32([0])), 4.5, rtol=1e-6)
    np.testing.assert_allclose(unc.mean_pairwise_gjs(said), 9 / 8, rtol=1e-6)
    fused = unc.fuse(said)
    np.testing.assert_allclose([fused.mean[0, 0], fused.aleatoric[0, 0], fused.epistemic[0, 0]],
                               [1.5, 1.0, 1.5], rtol=1e-6)  # fmt: skip


def test_members_that_agree_disagree_by_nothing():
    said = Prediction(one(1e4, 1e4, 1e4), one(0.1, 0.1, 0.1))
    assert float(unc.one_vs_rest(said, jnp.int32([1]))[0]) == 0.0
    assert float(unc.mean_pairwise_gjs(said)[0]) == 0.0
    fused = unc.fuse(said)
    assert float(fused.epistemic[0, 0]) == 0.0
    # Nothing to condition away: the draw passes as it is, and no information is lost.
    gain, std = unc.conditional(fused)
    assert (float(gain[0, 0]), float(std[0, 0])) == (1.0, 0.0)
    assert float(unc.information(std, 1e-6)[0, 0]) == 0.0


def test_a_constant_target_counts_nothing():
    """Unit scale predicts a constant channel exactly, with no spread: no division by it."""
    mean, std, member = ensemble(4, ratio=0.0)
    mean[..., 2], std[..., 2] = 7.0, 0.0
    others = [d for d in range(D) if d != 2]
    for measure in (
        lambda m, s: unc.one_vs_rest(prediction(m, s), jnp.asarray(member)),
        lambda m, s: unc.mean_pairwise_gjs(prediction(m, s)),
    ):
        np.testing.assert_allclose(
            measure(mean, std), measure(mean[..., others], std[..., others]), rtol=1e-6
        )
    fused = unc.fuse(prediction(mean, std))
    np.testing.assert_array_equal(fused.mean[:, 2], 7.0)
    gain, rest = unc.conditional(fused)
    assert not np.asarray(rest[:, 2]).any()
    assert np.isfinite(gain).all()


# --- which measures depend on units (ALGORITHMS §17.2) ------------------------------------------


def moved(mean, std, factor, offset):
    return mean * factor + offset, std * np.abs(factor)


@pytest.mark.parametrize("measure", ["kl", "gjs", "gain"])
def test_divergences_do_not_know_units(measure):
    """x → a x + b per output, in float64: they may be taken of raw or unit targets alike."""
    mean, std, member = ensemble(5, ratio=1.0)
    rng = np.random.default_rng(6)
    factor = np.exp(rng.normal(0, 4, D)) * rng.choice([-1, 1], D)
    offset = rng.normal(0, 10, D)

    def of(mean, std):
        said = to64(prediction(mean, std))
        if measure == "kl":
            return unc.one_vs_rest(said, jnp.asarray(member))
        if measure == "gjs":
            return unc.mean_pairwise_gjs(said)
        return unc.conditional(unc.fuse(said)).gain

    with jax.enable_x64():
        plain = of(*wide(mean, std))
        other = of(*moved(*wide(mean, std), factor, offset))
    np.testing.assert_allclose(other, plain, rtol=1e-9)


@pytest.mark.parametrize("power", [-60, 40])
def test_another_unit_changes_no_bit_of_a_divergence(power):
    mean, std, member = ensemble(7, ratio=100.0)
    factor = np.ones(D, np.float32)
    factor[::2] = 2.0**power
    plain, other = prediction(mean, std), prediction(*moved(mean, std, factor, np.float32(0)))
    np.testing.assert_array_equal(
        unc.one_vs_rest(plain, jnp.asarray(member)), unc.one_vs_rest(other, jnp.asarray(member))
    )
    np.testing.assert_array_equal(unc.mean_pairwise_gjs(plain), unc.mean_pairwise_gjs(other))
    for a, b in zip(unc.fuse(plain), unc.fuse(other), strict=True):
        np.testing.assert_array_equal(np.asarray(a) * factor, b)


def test_residual_or_direct_is_the_same_to_a_divergence():
    """They see differences of means: what both targets stand for is one next state."""
    mean, std, member = ensemble(8, ratio=0.0)
    obs = np.random.default_rng(9).integers(-8, 8, (B, D)).astype(np.float64)
    with jax.enable_x64():
        change = to64(prediction(mean, std))
        state = change._replace(mean=change.mean + obs[None])
        for measure in (lambda p: unc.one_vs_rest(p, jnp.asarray(member)), unc.mean_pairwise_gjs,
                        lambda p: unc.fuse(p).epistemic):  # fmt: skip
            np.testing.assert_allclose(measure(state), measure(change), rtol=1e-9)


def test_mixture_std_in_float32_is_that_of_the_mixture():
    mean, std, _ = ensemble(11, ratio=1e3)
    m, s = wide(mean, std)
    wanted = np.sqrt((s**2 + m**2).mean(axis=0) - m.mean(axis=0) ** 2)
    np.testing.assert_allclose(unc.mixture_std(prediction(mean, std)), wanted, rtol=2e-5)


def test_norm_and_information_do_know_units():
    """So their screens have a unit to choose (rollouts.screening.units)."""
    mean, std, _ = ensemble(10, ratio=0.0)
    factor = np.where(np.arange(D) == 0, 32.0, 1.0).astype(np.float32)
    _, other = moved(mean, std, factor, np.float32(0))
    assert not np.allclose(unc.largest_norm(jnp.asarray(std)), unc.largest_norm(jnp.asarray(other)))
    a, b = (unc.information(jnp.asarray(s[0]), 1e-6) for s in (std, other))
    np.testing.assert_allclose(b - a, np.broadcast_to(np.log2(factor), (B, D)), atol=1e-4)
