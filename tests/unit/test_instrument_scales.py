"""Target scales on linear-Gaussian data whose scales were set."""

import dataclasses
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ftfl.dynamics import ensemble as ens
from ftfl.errors import FtflError
from ftfl.forensics.instruments.elites import elite_cost, elite_shares
from ftfl.forensics.instruments.scales import target_scales
from ftfl.forensics.instruments.shares import fresh, reward_shares
from ftfl.forensics.instruments.table import target_table
from ftfl.forensics.rows import episodes, held_apart, in_order, ring_of
from ftfl.nets import Optimiser
from ftfl.replay import Split, empty, insert
from known_cases import (
    HOLDOUT,
    autoregressive,
    fitted,
    likelihood,
    linear,
    model,
    trained_on,
    untrained,
)

pytestmark = pytest.mark.usefixtures("quick_compiles")
SPLIT = Split(5, jnp.uint32(HOLDOUT))


def shares_at_start(rows, config, keys=3):
    ring = ring_of(rows)
    found = [
        reward_shares(fresh(jax.random.key(k), ring, SPLIT, config), ring, SPLIT, config)
        for k in range(keys)
    ]
    return lambda name: float(np.mean([getattr(f, name).value for f in found]))


@pytest.mark.parametrize(
    ("scales", "reward"), [((10,) * 4, 10.0), ((10,) * 4, 1.0), ((1,) * 4, 1e-3)]
)
def test_the_rewards_signal_share_is_the_root_of_its_share_of_squares(scales, reward):
    """DESIGN's closed form √(E[r²]/ΣE[t²]), for the part of the gradient the data make."""
    share = shares_at_start(linear(1_000, scales, reward), model())
    closed = reward / np.sqrt(reward**2 + np.sum(np.square(scales)))
    assert share("signal_gradient") == pytest.approx(closed, rel=0.12)


def test_large_targets_share_the_loss_by_their_squares():
    share = shares_at_start(linear(1_000, (10,) * 4, 1.0), model())
    assert share("loss") == pytest.approx(1 / 401, rel=0.25)


def test_a_tiny_rewards_loss_is_the_networks_own_output():
    """Where DESIGN's closed form does not hold: the fresh network predicts more than the reward."""
    by_reward = [shares_at_start(linear(1_000, (1,) * 4, r), model()) for r in (1e-3, 1e-6)]
    closed = 1e-6 / 4
    for share in by_reward:
        assert share("loss") > 1_000 * closed
        # Of the whole gradient it keeps its part too: log-variances pull alike at any scale.
        assert share("gradient") > 100 * closed**0.5
    assert by_reward[0]("loss") == pytest.approx(by_reward[1]("loss"), rel=0.05)
    ratio = by_reward[1]("signal_gradient") / by_reward[0]("signal_gradient")
    assert ratio == pytest.approx(1e-3, rel=0.02)


def test_unit_scale_gives_every_output_an_equal_share():
    share = shares_at_start(linear(1_000, (10, 1, 1, 0.1), 1e-4), model("mbpo-unit"))
    assert share("loss") == pytest.approx(1 / 5, rel=0.15)
    for name in ("mean_gradient", "signal_gradient"):
        assert share(name) == pytest.approx(5**-0.5, rel=0.25)


def divided(net, own):
    """The same network, in which the first ``own`` units of both layers serve the reward alone."""
    _, second, last = net.trunks[0].layers
    of_reward = np.arange(second.bias.shape[1]) < own
    outputs = last.bias.shape[1] // 2  # means, then log-variances
    is_reward = np.arange(2 * outputs) % outputs == outputs - 1
    return eqx.tree_at(
        lambda n: (n.trunks[0].layers[1].weight, n.trunks[0].layers[2].weight),
        net,
        (
            second.weight * (of_reward[:, None] == of_reward).astype(np.float32)[None],
            last.weight * (of_reward[:, None] == is_reward).astype(np.float32)[None],
        ),
    )


@pytest.fixture(scope="module")
def apart(quick_compiles):
    """A quarter of the shared weights is the reward's, the rest the channels': model and ring."""
    rows = linear(1_000, (20, 1, 1, 1), 2.0**-14, noise=0.1)
    state, ring = untrained(rows, model())
    state = dataclasses.replace(state, ensemble=divided(state.ensemble, own=8))
    rows = trained_on(ring, SPLIT)
    x = jnp.concatenate([rows.obs, rows.action], axis=1)
    z = jnp.concatenate([rows.next_obs - rows.obs, rows.reward[:, None]], axis=1)
    grads = jax.jit(jax.grad(lambda net: likelihood(net, x, z).sum()))(state.ensemble)
    return state, ring, grads


def test_adams_first_step_is_shared_by_weights_whatever_the_rewards_size(apart):
    """It is ± the learning rate for each weight: a quarter of the weights is half of its length."""
    state, ring, grads = apart
    found = reward_shares(state, ring, SPLIT, model())
    np.testing.assert_allclose([found.adam_step.low, found.adam_step.high], 0.5, rtol=1e-3)
    assert found.gradient.value < 0.01
    # The optimiser itself moves them so.
    after, _ = Optimiser(model().learning_rate).step(state.ensemble, grads, state.optimiser)
    moved = jax.tree.map(lambda new, old: np.asarray(new - old), after, state.ensemble)
    steps = [leaf for layer in moved.trunks[0].layers[:2] for leaf in (layer.weight, layer.bias)]
    mine, whole = (sum((s[..., :end] ** 2).sum() for s in steps) for end in (8, None))
    assert np.sqrt(mine / whole) == pytest.approx(0.5, rel=1e-3)


def test_adams_step_divides_by_what_it_remembers(apart):
    state, ring, grads = apart

    def shares(nu):
        optimiser = optax.tree_utils.tree_set(state.optimiser, nu=nu)
        return reward_shares(dataclasses.replace(state, optimiser=optimiser), ring, SPLIT, model())

    # ν = 3 g²/999 at the reward's weights: 0.999 ν + 0.001 g² is 4 times 0.001 g², its step a half.
    def before(g):
        return jnp.where(jnp.broadcast_to(jnp.arange(g.shape[-1]) < 8, g.shape), 3 / 999 * g**2, 0)

    halved = shares(jax.tree.map(before, grads))
    assert halved.adam_step.value == pytest.approx((0.25 / 3.25) ** 0.5, rel=1e-3)
    # One memory for all, beside which this gradient is nothing, leaves the gradient's share.
    alike = shares(jax.tree.map(lambda g: jnp.full_like(g, 1e6), grads))
    assert alike.adam_step.value == pytest.approx(alike.gradient.value, rel=1e-3)


def test_one_update_moves_a_mean_by_the_signs_of_its_gradient():
    """Rows that are all alike: the first step is ± the learning rate in every weight."""
    config = model()
    rows = jax.tree.map(lambda x: np.repeat(x[:1], 1_000, axis=0), linear(1_000, (1,) * 4, 1.0))
    state, ring = untrained(rows, config)  # in units of 1
    found = reward_shares(state, ring, SPLIT, config)
    x = jnp.concatenate([rows.obs[:1], rows.action[:1]], axis=1)
    z = jnp.concatenate([rows.next_obs[:1] - rows.obs[:1], rows.reward[:1, None]], axis=1)

    def loss(net):
        layers = zip(config.weight_decay, net.trunks[0].layers, strict=True)
        decay = sum(0.5 * rate * jnp.sum(layer.weight**2) for rate, layer in layers)
        return likelihood(net, x, z).sum() + decay

    grads = jax.jit(jax.grad(loss))(state.ensemble)
    moved = jax.tree.map(lambda w, g: w - config.learning_rate * jnp.sign(g), state.ensemble, grads)
    before, after = (
        ens.forward(net, x, jnp.zeros(5)).mean[:, 0] for net in (state.ensemble, moved)
    )
    np.testing.assert_allclose(found.step_over_std, np.abs(after - before), rtol=1e-3)


def test_the_table_knows_sizes_and_autocorrelation():
    kappas = np.array([0.9, 0.0, -0.5])
    rows = autoregressive(episodes=40, steps=100, kappas=kappas, reward_scale=0.1)
    table = target_table(rows, model())
    assert table.names == ("obs[0]", "obs[1]", "obs[2]", "reward")
    for kappa, found, change in zip(kappas, table.autocorrelation, table.change_std, strict=False):
        assert found.n == 40
        assert found.low < kappa < found.high
        assert found.high - found.low < 0.1
        assert change.low < np.sqrt(2 * (1 - kappa)) < change.high
    # The reward is 0.1 × channel 0, and keeps its autocorrelation.
    assert table.autocorrelation[-1].low < 0.9 < table.autocorrelation[-1].high
    truth = np.sum(2 * (1 - kappas)) / 0.1**2
    v = table.dynamics_over_reward
    assert v.low < truth < v.high
    np.testing.assert_allclose(table.seen_rms[:3], np.sqrt(2 * (1 - kappas)), rtol=0.05)
    np.testing.assert_array_equal(target_table(rows, model("ftfl")).seen_rms, 1.0)


def test_a_constant_reward_has_no_scale():
    rows = linear(200, (1, 1), 1.0)
    rows = rows._replace(reward=np.full(200, 0.1, np.float32))
    table = target_table(rows, model("mbpo-unit"))
    assert table.dynamics_over_reward.value == np.inf
    assert table.std[-1].value == 0
    assert table.seen_rms[-1] == 0
    config = model("mbpo")
    ring = ring_of(rows)
    state = fresh(jax.random.key(1), ring, SPLIT, config)
    scales = target_scales(state, ring, HOLDOUT, jax.random.key(0), config)
    step = scales.numbers()["trained"]["reward_step_over_std"]
    assert math.isnan(step.value)
    assert not any(f.name.startswith("reward") for f in scales.findings())


@pytest.fixture(scope="module")
def dialled(quick_compiles):
    """Linear data with one large channel and a tiny reward, fitted raw."""
    rows = linear(1_000, (20, 1, 1, 1), 2.0**-14, noise=0.1)
    config = model()
    state, ring = fitted(rows, config)
    return target_scales(state, ring, HOLDOUT, jax.random.key(0), config)


def test_a_tiny_reward_is_found_by_its_step_its_share_and_its_floor(dialled):
    found = {f.name: f for f in dialled.findings()}
    assert {"reward-below-adam-step", "reward-starved", "reward-below-floor"} <= found.keys()
    assert found["reward-below-adam-step"].severity == "failure"
    assert dialled.floor_std[-1] == pytest.approx(np.exp(-5), rel=1e-3)
    assert dialled.numbers()["names"][-1] == "reward"


def test_a_large_reward_drowns_the_states_and_meets_the_cap(quick_compiles):
    rows = linear(1_000, (1, 1, 1), 2.0**14, noise=0.1)
    for preset, starved in (("mbpo", True), ("mbpo-unit", False)):
        config = model(preset)
        state, ring = fitted(rows, config)
        scales = target_scales(state, ring, HOLDOUT, jax.random.key(0), config)
        found = {f.name: f for f in scales.findings()}
        assert ("states-starved" in found) == starved
        assert ("uncertainty-capped" in found) == starved
        if starved:
            assert found["states-starved"].severity == "failure"
            assert "(reward)" in found["uncertainty-capped"].sentence


def test_states_are_starved_by_what_the_trunk_is_taught_not_by_how_much_they_move():
    """Slow channels beside a reward of std 1: small changes, but not small next states."""
    rows = autoregressive(episodes=10, steps=50, kappas=[0.999999, 0.999999])
    shrunk = (rows.obs * np.float32(0.1), rows.next_obs * np.float32(0.1))
    rows = rows._replace(obs=shrunk[0], next_obs=shrunk[1], reward=rows.reward * 1.0)
    for preset, starved in (("mbpo", True), ("mbpo-direct", False)):
        config = model(preset)
        state, ring = untrained(rows, config)
        scales = target_scales(state, ring, HOLDOUT, jax.random.key(0), config)
        assert ("states-starved" in {f.name for f in scales.findings()}) == starved


def test_the_largest_channel_decides_elites_and_meets_the_cap(dialled):
    assert np.sum(dialled.elite_share) == pytest.approx(1)
    assert np.argmax(dialled.elite_share) == 0
    assert dialled.near_cap[0] > 0.9
    assert dialled.held_out_rms[0] > dialled.cap_std[0]
    assert "uncertainty-capped" in {f.name for f in dialled.findings()}


def test_nearness_to_a_bound_is_counted_output_by_output_over_members(quick_compiles):
    """Log-variances set a hundredth of a nat on either side of ln 2 from floor and cap."""
    config = model()
    state, ring = untrained(linear(1_000, (20, 1, 1, 1), 2.0**-14, noise=0.1), config)
    low, high, inside, outside = -10.0, 0.5, math.log(2) - 0.01, math.log(2) + 0.01
    logvar = np.tile([low + inside, 0.0, low + outside, high - inside, low + inside], (4, 1))
    logvar[:, 1] = [low + inside, low + outside, high - inside, high - outside]
    raw = ens.unbound(jnp.asarray(logvar, jnp.float32), low, high)
    head = state.ensemble.trunks[0].layers[-1]
    told = eqx.tree_at(
        lambda e: (e.trunks[0].layers[-1].weight, e.trunks[0].layers[-1].bias),
        state.ensemble,
        (head.weight.at[..., 5:].set(0.0), head.bias.at[:, 5:].set(raw)),
    )
    state = dataclasses.replace(state, ensemble=told)
    found = target_scales(state, ring, HOLDOUT, jax.random.key(0), config)
    np.testing.assert_array_equal(found.near_floor, [1, 0.25, 0, 0, 1])
    np.testing.assert_array_equal(found.near_cap, [0, 0.25, 0, 1, 0])
    (floored,) = [f for f in found.findings() if f.name == "reward-below-floor"]
    assert floored.evidence["near_floor_share"] == 1


@pytest.mark.parametrize(("cost", "found"), [(0.2, True), (0.05, False), (-0.1, False)])
def test_one_output_may_decide_elites_where_that_costs_the_others_nothing(dialled, cost, found):
    told = dataclasses.replace(dialled, elite_cost=cost).findings()
    assert ("elites-by-one-dimension" in {f.name for f in told}) == found


def test_elite_cost_is_what_the_other_outputs_pay():
    squared = np.array([[1.0, 4.0, 0.0], [2.0, 2.0, 0.0], [3.0, 0.0, 0.0]])
    # chosen by the first output; in the second, elites have 3 where a member has 2 on average
    assert elite_cost(squared, np.array([0, 1]), 0) == pytest.approx(0.5)
    assert elite_cost(squared, np.array([0, 1, 2]), 0) == 0
    assert elite_cost(squared[:, [0, 2]], np.array([0]), 0) == 0


def test_equal_scales_are_found_innocent():
    rows = linear(1_000, (1, 1, 1, 1), 1.0, noise=0.1)
    config = model("mbpo-unit")
    state, ring = fitted(rows, config)
    scales = target_scales(state, ring, HOLDOUT, jax.random.key(0), config)
    assert scales.findings() == []
    assert scales.trained.reward_step_over_std.value < 0.2


def test_elite_shares_are_shares_of_the_spread():
    score = np.array([[1.0, 5.0, 0.0], [2.0, 5.0, 0.1], [3.0, 5.0, 0.2]])
    np.testing.assert_allclose(elite_shares(score), [1 / 1.1, 0, 0.1 / 1.1])


def test_a_separate_reward_shares_no_trunk():
    rows = linear(100, (1, 1), 1.0)
    config = model(reward_model="separate")
    state, ring = untrained(rows, config)
    scales = target_scales(state, ring, HOLDOUT, jax.random.key(0), config)
    assert scales.at_start is None
    # Its floor needs no shared trunk, and no noise is drawn where rewards are drawn as means.
    tiny = rows._replace(reward=(rows.reward * 1e-6).astype(np.float32))
    for draw, found in (("sample", True), ("mean", False)):
        config = model(reward_model="separate", reward_draw=draw)
        state, ring = untrained(tiny, config)
        told = target_scales(state, ring, HOLDOUT, jax.random.key(0), config)
        assert ("reward-below-floor" in {f.name for f in told.findings()}) == found
        assert told.tested_on == "held-out"
    config = model(reward_model="separate")
    with pytest.raises(FtflError, match="reward_model=separate"):
        reward_shares(state, ring, SPLIT, config)


def test_too_few_rows_are_refused():
    config = model()
    state, ring = untrained(linear(20, (1,), 1.0), config)
    short = dataclasses.replace(ring, size=jnp.int32(9))
    with pytest.raises(FtflError, match="9 rows, but target scales need at least 10"):
        target_scales(state, short, HOLDOUT, jax.random.key(0), config)


def test_rows_come_back_in_their_order():
    rows = autoregressive(episodes=3, steps=5, kappas=[0.5])
    ring = insert(empty(10, 1, 1), jax.tree.map(lambda x: jnp.asarray(x[:8]), rows))
    ring = insert(ring, jax.tree.map(lambda x: jnp.asarray(x[8:]), rows))
    found = in_order(ring)
    np.testing.assert_array_equal(found.reward, rows.reward[5:])
    np.testing.assert_array_equal(episodes(rows), np.repeat([0, 1, 2], 5))
    train, test = held_apart(rows, every=5, blocks=5)
    np.testing.assert_array_equal(test.reward, rows.reward[-3:])
    assert len(train.reward) == 12
    with pytest.raises(FtflError, match="15 transitions cannot be divided"):
        held_apart(rows)
