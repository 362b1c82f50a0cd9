"""Gradients we wrote out against JAX's own, and what precision may and may not touch."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_pitfalls import config_of, fit, transitions

from ftfl import nets, presets, sac
from ftfl.dynamics import ensemble as ens
from ftfl.dynamics import members
from ftfl.dynamics import predict as dyn
from ftfl.types import Transition

KEYS = jax.random.split(jax.random.key(0), 8)


def rows(i, *shape):
    return jax.random.normal(KEYS[i], shape)


def test_the_gradient_of_affine_is_that_of_a_matrix_product():
    x, weight, bias, dy = rows(0, 9, 5), rows(1, 5, 4), rows(2, 4), rows(3, 9, 4)
    out, pull = jax.vjp(lambda *a: nets.affine(*a, "float32"), x, weight, bias)
    wanted, plain = jax.vjp(lambda x, w, b: x @ w + b[None], x, weight, bias)
    np.testing.assert_allclose(out, wanted, rtol=1e-5)
    for ours, theirs in zip(pull(dy), plain(dy), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_bf16_rounds_operands_and_keeps_sums_wide():
    """A sum of 4,096 ones is exact in float32 and stops at 256 in bfloat16."""
    n = 4096
    x, weight, dy = jnp.ones((n, n)), jnp.ones((n, 1)), jnp.ones((n, 1))
    out, pull = jax.vjp(lambda *a: nets.affine(*a, "bf16"), x, weight, jnp.zeros(1))
    assert out.dtype == jnp.float32
    np.testing.assert_array_equal(out, n)
    by_x, by_weight, by_bias = pull(dy)
    for by in (by_x, by_weight, by_bias):
        assert by.dtype == jnp.float32
    np.testing.assert_array_equal(by_weight, n)
    np.testing.assert_array_equal(by_bias, n)
    # The operand is rounded: 1 + 2⁻⁹ lies below the middle of bfloat16's neighbours 1 and 1 + 2⁻⁷.
    near = nets.affine(jnp.full((1, 1), 1 + 2**-9), jnp.ones((1, 1)), jnp.zeros(1), "bf16")
    assert float(near[0, 0]) == 1.0


@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_the_gradient_of_the_training_loss_is_that_of_the_likelihood(learned, scale):
    """Also far outside both bounds of log-variance, and for learned bounds."""
    config = config_of(members=3, elites=2, hidden=(16, 16), weight_decay=(0.0, 0.0, 0.0))
    config = dataclasses.replace(config, logvar_learned=learned)
    net = ens.init(KEYS[0], 3, 2, config, False)
    net = eqx.tree_at(lambda e: e.trunks, net, jax.tree.map(lambda x: scale * x, net.trunks))
    x, z, shift = rows(1, 3, 8, 5), rows(2, 3, 8, 4), jnp.full(4, -0.5)

    def plain(net):
        if not learned:
            bounds = jax.lax.stop_gradient((net.logvar_min, net.logvar_max))
            net = eqx.tree_at(lambda e: (e.logvar_min, e.logvar_max), net, bounds)
        total = jnp.sum(jnp.mean(ens.nll(ens.forward(net, x, shift), z), axis=(1, 2)))
        spread = jnp.sum(net.logvar_max) - jnp.sum(net.logvar_min)
        return total + (config.logvar_penalty * spread if learned else 0.0)

    ours, by_us = jax.value_and_grad(ens.loss)(net, x, z, shift, config)
    theirs, by_jax = jax.value_and_grad(plain)(net)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)
    for a, b in zip(jax.tree.leaves(by_us), jax.tree.leaves(by_jax), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-3, atol=1e-4 * float(jnp.abs(b).max()) + 1e-7)


@pytest.mark.parametrize("beta", [0.5, 1.0])
def test_the_weight_of_the_variance_takes_its_discount_back(beta):
    """β-NLL (arXiv 2203.09168, eq. 7): by the mean, the gradient is (μ − z) σ^(2β − 2)."""
    config = config_of(members=2, elites=1, hidden=(8,), weight_decay=(0.0, 0.0), nll_beta=beta)
    net = ens.init(KEYS[0], 3, 2, config, False)
    x, z, shift = rows(1, 2, 5, 5), 3.0 * rows(2, 2, 5, 4), jnp.zeros(4)
    said = ens.forward(net, x, shift)

    def by_bias(net):
        """Of the means' bias, (E, D): a sum over rows of the gradient by each mean."""
        return jax.grad(ens.loss)(net, x, z, shift, config).trunks[0].layers[-1].bias[:, :4]

    each = 2.0 * (said.mean - z) * jnp.exp((beta - 1.0) * said.logvar) / (5 * 4)
    np.testing.assert_allclose(by_bias(net), each.sum(axis=1), rtol=1e-4)


def test_members_one_by_one_are_members_together(monkeypatch):
    config = config_of(members=3, elites=2, max_updates=40, check_every=20, best_weights=True)
    state = dyn.init(KEYS[0], 3, 2, config)
    alone, told = fit(config, transitions(200), state)
    monkeypatch.setattr(members, "_one_by_one", lambda train, n, o, numbers: train(n, o, numbers))
    together, wanted = fit(config, transitions(200), state)
    for a, b in zip(jax.tree.leaves(alone), jax.tree.leaves(together), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-4)
    for name in wanted:
        np.testing.assert_allclose(told[name], wanted[name], rtol=0.02, atol=2e-3, err_msg=name)
    first = jax.tree.leaves(state.ensemble.trunks)
    assert all(
        float(jnp.abs(a - b).max()) > 1e-3
        for a, b in zip(jax.tree.leaves(alone.ensemble.trunks), first, strict=True)
    )


def test_bf16_changes_updates_and_nothing_else():
    """Acting and predicting stay float32 whatever precision updates have."""
    narrow = presets.build(
        "gym/Pendulum-v1", "ftfl", "probe", {"sac.precision": "bf16", "dynamics.precision": "bf16"}
    )
    wide = presets.build("gym/Pendulum-v1", "ftfl", "probe")
    agent = sac.init(KEYS[0], 3, 1, wide.sac)
    obs = rows(1, 128, 3)
    for a, b in zip(
        sac.policy(agent.actor, obs, narrow.sac).sample(KEYS[2]),
        sac.policy(agent.actor, obs, wide.sac).sample(KEYS[2]),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)
    batch = Transition(obs, rows(3, 128, 1), rows(4, 128), rows(5, 128, 3), jnp.zeros(128, bool))
    updated = {
        name: sac.update(agent, batch, KEYS[6], config.sac)
        for name, config in (("bf16", narrow), ("float32", wide))
    }
    far, near = updated["bf16"][1], updated["float32"][1]
    assert float(far["agent/critic_loss"]) != float(near["agent/critic_loss"])
    np.testing.assert_allclose(far["agent/critic_loss"], near["agent/critic_loss"], rtol=0.03)
    for leaf in jax.tree.leaves(updated["bf16"][0]):
        assert leaf.dtype != jnp.bfloat16  # masters and moments stay wide
