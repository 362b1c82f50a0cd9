"""Our SAC against the float64 reference: losses, gradients, whole updates, the tanh-normal."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference as ref
from scipy import integrate

from ftfl import sac
from ftfl.config import SacConfig
from ftfl.nets import TanhNormal
from ftfl.types import Transition
from helpers import to64, transitions

pytestmark = pytest.mark.usefixtures("quick_compiles")
OBS, ACT, ROWS = 3, 2, 9
CONFIGS = {
    "stfl": SacConfig(hidden=(5, 4), target_update_rate=0.1),
    "mbpo-2019": SacConfig(
        hidden=(5, 4), log_std_map="clip", log_std_min=-20.0, temperature_loss="log_alpha",
        critic_loss_weight=0.5, target_entropy=-3.0, initial_temperature=0.3,
    ),
    "layer-norm": SacConfig(
        hidden=(5, 4), critic_layer_norm=True, actor_learning_rate=1e-3, critic_learning_rate=2e-3,
        temperature_learning_rate=3e-3, discount=0.9, log_std_min=-5.0, log_std_max=1.0,
    ),
}  # fmt: skip


def make(config, seed=0):
    """An agent with no zero weight (biases and layer norms moved) and opened-up actor noise."""
    state = sac.init(jax.random.key(seed), OBS, ACT, config)
    rng = np.random.default_rng(seed)

    def jitter(x):
        return x + jnp.asarray(0.3 * rng.normal(size=x.shape), x.dtype)

    state = SimpleNamespace(**{f: getattr(state, f) for f in state.__dataclass_fields__})
    actor, critic = jax.tree.map(jitter, (state.actor, state.critic))
    state.actor, state.critic = actor, critic
    state.target_critic = jax.tree.map(jitter, critic)
    return sac.SacState(**vars(state))


def batch_of(rows=ROWS, seed=1):
    """Terminated rows and, as any other row, rows that a time limit cut."""
    batch = transitions(rows, OBS, ACT, seed, terminated=0.4)
    assert 0 < batch.terminated.sum() < rows
    return batch._replace(obs=batch.obs / 2, next_obs=batch.next_obs / 2)


def as64(batch):
    return Transition(*(x.astype(float) if x.dtype != bool else x for x in batch))


def layers(mlp, member=()):
    return [
        [np.array(layer.weight[member], float), np.array(layer.bias[member], float)]
        for layer in mlp.layers
    ]


def critic_of(mlp, member):
    norms = [
        [np.array(n.gain[member], float), np.array(n.offset[member], float)] for n in mlp.norms
    ]
    return [layers(mlp, member), norms]


def constants(config):
    return SimpleNamespace(
        bounds=(config.log_std_min, config.log_std_max, config.log_std_map == "tanh"),
        discount=config.discount,
        critic_weight=config.critic_loss_weight,
        temperature_form=config.temperature_loss,
        target_entropy=-0.5 * ACT if config.target_entropy is None else config.target_entropy,
        tau=config.target_update_rate,
        rates=(config.actor_learning_rate, config.critic_learning_rate,
               config.temperature_learning_rate),
    )  # fmt: skip


def reference_of(state, config):
    agent = ref.Sac(
        layers(state.actor),
        [critic_of(state.critic, e) for e in (0, 1)],
        float(state.log_temperature),
        constants(config),
    )
    agent.targets = [critic_of(state.target_critic, e) for e in (0, 1)]
    return agent


def critics_of(critic):
    return [critic_of(critic, 0), critic_of(critic, 1)]


def noises(key, like):
    """The draws that one update makes, for the reference to use as data."""
    return [
        np.asarray(jax.random.normal(k, (ROWS, ACT), like), float) for k in jax.random.split(key)
    ]


@pytest.mark.parametrize("name", CONFIGS)
def test_whole_updates_match_in_float64(name):
    config = CONFIGS[name]
    start, batch = make(config), batch_of()
    with jax.enable_x64(True):
        state = to64(start)
        expected = reference_of(state, config)
        update = jax.jit(lambda s, b, k: sac.update(s, b, k, config))
        for step in range(3):
            key = jax.random.key(step)
            rows = to64(jax.tree.map(jnp.asarray, batch))
            state, metrics = update(state, rows, key)
            losses = expected.update(as64(batch), *noises(key, jnp.float64))
            close = {"rtol": 1e-10, "atol": 1e-12}
            np.testing.assert_allclose(metrics["agent/critic_loss"], losses.critic, **close)
            np.testing.assert_allclose(metrics["agent/actor_loss"], losses.actor, **close)
            np.testing.assert_allclose(metrics["agent/entropy_nats"], losses.entropy, **close)
            np.testing.assert_allclose(state.log_temperature, expected.log_alpha, **close)
            for ours, theirs in (
                (layers(state.actor), expected.actor),
                (critics_of(state.critic), expected.critics),
                (critics_of(state.target_critic), expected.targets),
            ):
                np.testing.assert_allclose(ref.flat(ours), ref.flat(theirs), **close)
        assert int(state.updates) == 3


@pytest.mark.parametrize("name", CONFIGS)
def test_losses_and_gradients_match_in_float32(name):
    config = CONFIGS[name]
    state, batch, key = make(config), batch_of(), jax.random.key(7)
    expected, c = reference_of(state, config), constants(config)
    rows = jax.tree.map(jnp.asarray, batch)
    target_key, actor_key = jax.random.split(key)
    target_noise, actor_noise = noises(key, jnp.float32)
    alpha = np.exp(expected.log_alpha)

    y = sac.critic_target(state, rows, target_key, config)
    wanted = ref.critic_target(
        expected.actor, expected.targets, alpha, as64(batch), target_noise, c
    )
    np.testing.assert_allclose(y, wanted, rtol=1e-4, atol=1e-5)

    (loss, _), grads = jax.value_and_grad(sac.critic_loss, has_aux=True)(
        state.critic, rows, y, config
    )

    def critic_loss(k):
        return ref.critic_loss(k, as64(batch), wanted, c)

    np.testing.assert_allclose(loss, critic_loss(expected.critics), rtol=1e-4)
    close_gradients(critics_of(grads), ref.gradient(critic_loss, expected.critics))

    (loss, entropy), grads = jax.value_and_grad(sac.actor_loss, has_aux=True)(
        state.actor, state, rows.obs, actor_key, config
    )

    def actor_loss(a):
        return ref.actor_loss(a, expected.critics, alpha, as64(batch).obs, actor_noise, c)

    np.testing.assert_allclose(loss, actor_loss(expected.actor)[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(entropy, actor_loss(expected.actor)[1], rtol=1e-4, atol=1e-5)
    close_gradients(layers(grads), ref.gradient(lambda a: actor_loss(a)[0], expected.actor))


def close_gradients(ours, theirs):
    a, b = ref.flat(ours), ref.flat(theirs)
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * np.abs(b).max())


def test_the_reference_gradient_agrees_with_central_differences():
    config = CONFIGS["layer-norm"]
    expected, c = reference_of(make(config), config), constants(config)
    batch = as64(batch_of())
    target = np.linspace(-1, 1, ROWS)
    exact = ref.gradient(lambda k: ref.critic_loss(k, batch, target, c), expected.critics)
    rough = ref.central_gradient(lambda k: ref.critic_loss(k, batch, target, c), expected.critics)
    np.testing.assert_allclose(ref.flat(exact), ref.flat(rough), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("form", ["alpha", "log_alpha"])
@pytest.mark.parametrize("entropy", [-4.0, 0.5])
def test_temperature_gradient(form, entropy):
    config = SacConfig(temperature_loss=form)
    log_alpha = jnp.float32(np.log(0.2))
    slope = jax.grad(sac.temperature_loss)(log_alpha, jnp.float32(entropy), -1.5, config)
    wanted = ref.temperature_gradient(np.log(0.2), entropy, -1.5, form)
    np.testing.assert_allclose(slope, wanted, rtol=1e-5)
    # Too little entropy: the gradient is negative, so a descent step raises the temperature.
    assert (slope < 0) == (entropy < -1.5)


@pytest.mark.parametrize(("mean", "log_std"), [(0.0, -0.5), (0.8, -1.0), (-1.5, 0.3), (0.2, -4.0)])
def test_tanh_normal_log_density_is_a_density(mean, log_std):
    """It integrates to one over (−1, 1), and its entropy is that of the numerical integral."""

    def density(action):
        noise = (np.arctanh(action) - mean) / np.exp(log_std)
        with jax.enable_x64(True):
            normal = TanhNormal(
                jnp.full((len(action), 1), mean), jnp.full((len(action), 1), log_std)
            )
            drawn, log_prob = normal.transform(jnp.asarray(noise)[:, None])
        np.testing.assert_allclose(drawn[:, 0], action, atol=1e-12)
        return np.asarray(log_prob)

    # Substitute a = tanh(u): the integrand is smooth on a grid of u.
    u = np.linspace(mean - 9 * np.exp(log_std), mean + 9 * np.exp(log_std), 4001)
    u = u[np.abs(u) < 12]
    action = np.tanh(u)
    log_prob = density(action)
    weight = np.exp(log_prob) * (1 - action**2)
    np.testing.assert_allclose(integrate.simpson(weight, x=u), 1.0, rtol=1e-6)
    probability = integrate.simpson(weight * (action < 0.3), x=u)
    from scipy.stats import norm

    wanted = norm.cdf((np.arctanh(0.3) - mean) / np.exp(log_std))
    np.testing.assert_allclose(probability, wanted, atol=1e-2)


def test_tanh_normal_keeps_its_digits_where_tanh_saturates():
    """At u = ±20, 1 − tanh² is 0 in float32, but its logarithm is 2 (log 2 − |u|)."""
    normal = TanhNormal(jnp.array([[20.0], [-20.0]]), jnp.zeros((2, 1)))
    action, log_prob = normal.transform(jnp.zeros((2, 1)))
    wanted = -0.5 * np.log(2 * np.pi) - 2 * (np.log(2) - 20.0)
    np.testing.assert_allclose(log_prob, wanted, rtol=1e-6)
    assert np.abs(action).max() <= 1
    slope = jax.grad(
        lambda m: TanhNormal(m, jnp.zeros((2, 1))).transform(jnp.zeros((2, 1)))[1].sum()
    )
    assert np.isfinite(slope(normal.mean)).all()


def test_sampling_has_the_moments_it_says():
    mean, log_std = jnp.full((20_000, 1), 0.4), jnp.full((20_000, 1), -1.0)
    action, log_prob = TanhNormal(mean, log_std).sample(jax.random.key(0))
    pre = np.arctanh(np.asarray(action, float))
    np.testing.assert_allclose(pre.mean(), 0.4, atol=0.01)
    np.testing.assert_allclose(pre.std(), np.exp(-1.0), rtol=0.02)
    assert log_prob.shape == (20_000,)


def test_termination_stops_the_bootstrap_and_truncation_does_not():
    config = CONFIGS["stfl"]
    state, batch = make(config), jax.tree.map(jnp.asarray, batch_of())
    y = sac.critic_target(state, batch, jax.random.key(0), config)
    ended = batch._replace(terminated=jnp.ones(ROWS, bool))
    going = batch._replace(terminated=jnp.zeros(ROWS, bool))
    np.testing.assert_array_equal(sac.critic_target(state, ended, jax.random.key(0), config),
                                  batch.reward)  # fmt: skip
    running = sac.critic_target(state, going, jax.random.key(0), config)
    np.testing.assert_array_equal(y, jnp.where(batch.terminated, batch.reward, running))
    assert (np.abs(running - batch.reward) > 1e-3).all()
