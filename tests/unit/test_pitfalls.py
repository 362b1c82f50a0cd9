"""One test per known mistake of this family of algorithms that could be ours.

Numbers (§18 and so on) are those of the survey of reference codes this project started from.
"""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ftfl import presets, sac
from ftfl import replay as rings
from ftfl.config import DynamicsConfig
from ftfl.dynamics import ensemble as ens
from ftfl.dynamics import fit as fitting
from ftfl.dynamics import predict as dyn
from ftfl.dynamics.carry import carry
from ftfl.dynamics.targets import Scaler, Statistics, floor_shift, measure, training_scaler
from ftfl.replay import Split
from ftfl.rollouts.generate import Ends, generate, length_at
from ftfl.rollouts.memory import remember
from ftfl.termination import never
from ftfl.training import state as run_state
from ftfl.training.learn import make_learner
from ftfl.types import Transition
from helpers import equal_bits, filled, spec, tiny, transitions

pytestmark = pytest.mark.usefixtures("quick_compiles")
OBS, ACT = 3, 2
NET = {"hidden": (16, 16), "weight_decay": (2.5e-5, 5e-5, 1e-4), "batch_size": 32}


def config_of(**changes):
    return DynamicsConfig(**(NET | {"max_updates": 20, "check_every": 10} | changes))


def fit(config, rows, state=None, key=3, capacity=None):
    """One refit on these rows; the model before it is fresh unless given."""
    obs_dim, act_dim = rows.obs.shape[1], rows.action.shape[1]
    if state is None:
        state = dyn.init(jax.random.key(0), obs_dim, act_dim, config)
    ring, seed = filled(rows, capacity), jnp.uint32(1)
    return jax.jit(lambda s, r, k: fitting.fit(s, r, seed, k, config))(
        state, ring, jax.random.key(key)
    )


# --- the ensemble: its data, its start, its holdout (§18.1, §18.4, §3.6 #1, #3) ------------------


@pytest.mark.parametrize("data", ["bootstrap", "shared"])
def test_members_share_minibatches_only_when_asked_to(data):
    """§18.1: in STFL all members see identical minibatches, so that only their start differs."""
    config = config_of(member_data=data, members=3, elites=2)
    state = dyn.init(jax.random.key(0), OBS, ACT, config)
    # Equal members that see equal rows stay equal; with rows of their own they part.
    twins = jax.tree.map(lambda x: jnp.broadcast_to(x[:1], x.shape), state.ensemble.trunks)
    state = dataclasses.replace(
        state, ensemble=eqx.tree_at(lambda e: e.trunks, state.ensemble, twins)
    )
    fitted, _ = fit(config, transitions(200), state)
    weights = np.asarray(fitted.ensemble.trunks[0].layers[0].weight)
    apart = np.abs(weights - weights[:1]).max()
    assert (apart == 0) if data == "shared" else (apart > 1e-3)


def test_every_member_keeps_one_resample_of_its_own_for_a_whole_refit(monkeypatch):
    """Equal resamples under unequal minibatches hide well: the members part all the same."""
    seeds, draw = [], fitting.minibatch_rows

    def watched(key, member, member_seed, count, config):
        jax.debug.callback(
            lambda m, s: seeds.extend((int(i), int(s[i])) for i in m), member, member_seed
        )
        return draw(key, member, member_seed, count, config)

    monkeypatch.setattr(fitting, "minibatch_rows", watched)
    config = config_of(members=3, elites=2, max_updates=4, check_every=2)
    for key in (3, 4):
        jax.block_until_ready(fit(config, transitions(100), key=key))
        jax.effects_barrier()
    assert len(seeds) == 2 * 4 * 3  # refits, updates, members
    first, second = dict(seeds[:12]), dict(seeds[12:])
    assert set(seeds) == {*first.items(), *second.items()}
    assert len({*first.values(), *second.values()}) == 6


def test_only_the_stfl_preset_shares_minibatches():
    shared = {
        name
        for name in ("mbpo", "mbpo-unit", "mbpo-direct", "ftfl", "ftfl-tuned", "mbpo-2019",
                     "mbpo-stfl")
        if presets.build("gym/Hopper-v5", name).dynamics.member_data == "shared"
    }  # fmt: skip
    assert shared == {"mbpo-stfl"}


@pytest.mark.parametrize(("init", "wanted"), [("per_member", 1.0), ("stacked", 7**-0.5),
                                              ("truncated", 0.5 * 0.8796)])  # fmt: skip
def test_init_scale(init, wanted):
    """§18.1: a fan-in that counts the member axis makes kernels √7 too small."""
    net = ens.init(jax.random.key(0), 200, 0, config_of(hidden=(200, 200), init=init), False)
    for layer in net.trunks[0].layers[:2]:
        assert layer.weight.shape == (7, 200, 200)
        assert layer.bias.shape == (7, 200)
        np.testing.assert_allclose(np.std(layer.weight) * 200**0.5, wanted, rtol=0.02)
        assert not layer.bias.any()
        flat = np.asarray(layer.weight).reshape(7, -1)
        assert np.abs(np.corrcoef(flat) - np.eye(7)).max() < 0.05  # members differ


@pytest.mark.parametrize("holdout", ["persistent", "per_refit", "redrawn"])
def test_persistent_holdout_is_never_trained_on(holdout):
    """§18.4: rows whose target nobody could guess are predicted only by who trained on them."""
    rows = transitions(40, seed=1)
    split = Split(5, jnp.uint32(1))
    held = np.asarray(split.holdout_slot(jnp.arange(8, dtype=jnp.int32)))
    secret = rows.reward.copy()
    secret[held] += 5.0  # the held-out rows of the persistent split pay more, for no reason
    rows = rows._replace(reward=secret)
    config = config_of(holdout=holdout, members=2, elites=2, max_updates=600, check_every=20,
                       learning_rate=3e-3, hidden=(32, 32))  # fmt: skip
    fitted, _ = fit(config, rows)
    assert int(fitted.updates) == 600
    said = dyn.predict(fitted, jnp.asarray(rows.obs[held]), jnp.asarray(rows.action[held]), config)
    leaked = np.asarray(said.mean[..., -1]).mean() - np.asarray(rows.reward[held]).mean()
    if holdout == "persistent":
        assert leaked < -4  # no idea of the extra pay
    if holdout == "redrawn":
        assert leaked > -3  # 30 redraws: every row was trained on


def test_nan_member_sorts_last_and_keeps_nobody_from_stopping():
    """A diverged member is no elite, and its NaN is no progress that keeps a refit running."""
    config = config_of(
        members=4, elites=3, early_stopping=True, patience=2, max_updates=2_000, check_every=5,
        best_weights=True, min_improvement=0.5,
    )  # fmt: skip
    state = dyn.init(jax.random.key(0), OBS, ACT, config)
    sick = state.ensemble.trunks[0].layers[1].weight.at[1].set(jnp.nan)
    state = eqx.tree_at(lambda s: s.ensemble.trunks[0].layers[1].weight, state, sick)
    fitted, metrics = fit(config, transitions(100), state)
    assert 1 not in np.asarray(fitted.elites)
    assert int(fitted.updates) < 2_000
    assert np.isfinite(float(metrics["model/holdout_mse_raw"]))
    healthy = [m for m in range(4) if m != 1]
    for leaf in jax.tree.leaves(fitted.ensemble.trunks):
        assert np.isfinite(np.asarray(leaf)[healthy]).all()


def test_best_weights_are_each_members_own():
    """§18.11, §5: not the whole ensemble's snapshot, and nothing of another network's."""
    net = ens.init(jax.random.key(0), 7, 1, config_of(members=7), learn_termination=True)
    old = jax.tree.map(jnp.zeros_like, net)
    better = jnp.arange(7) % 2 == 0
    mixed = fitting._per_member(better, net, old)
    for new, got in zip(jax.tree.leaves(net.trunks), jax.tree.leaves(mixed.trunks), strict=True):
        np.testing.assert_array_equal(got[::2], new[::2])
        assert not got[1::2].any()
    # The classifier has seven inputs here, as many as there are members, and stays whole.
    assert equal_bits(mixed.termination, net.termination)
    assert equal_bits(mixed.logvar_max, net.logvar_max)


# --- targets and units (§18.5, §18.6, §1.4) ------------------------------------------------------


@pytest.mark.parametrize("target", ["residual", "direct"])
@pytest.mark.parametrize("constant", [0.0, 1.0, 0.1])
def test_constant_reward_is_predicted_exactly_and_without_spread(target, constant):
    """§18.5: zero-variance targets; pendulum-swingup pays 0, InvertedPendulum 1."""
    rows = transitions(200)
    rows = rows._replace(reward=np.full(200, constant, np.float32))
    config = config_of(target=target, scale="unit", members=2, elites=1)
    fitted, metrics = fit(config, rows)
    said = dyn.predict(fitted, jnp.asarray(rows.obs), jnp.asarray(rows.action), config)
    np.testing.assert_array_equal(said.mean[..., -1], np.float32(constant))
    np.testing.assert_array_equal(said.std[..., -1], 0.0)
    assert float(metrics["model/constant_targets_count"]) == 1
    # The first reward that differs is one more reward, not a target of a million.
    z = fitted.statistics.target.to_unit(jnp.asarray(rows.next_obs[:1] * 0)[:, :1].repeat(4, 1) + 2)
    assert np.abs(z[:, -1]).max() == 0


@pytest.mark.parametrize("value", [1.1, 0.7, 1234.567, -3.3e-4])
def test_a_constant_is_a_constant_among_a_million_rows(value):
    """Summing a constant in float32 drifts by more than the floor that recognises constants."""
    count = 1_000_000
    column = jnp.full((count, 1), value, jnp.float32)
    rows = Transition(column, column, column[:, 0], column, jnp.zeros(count, bool))
    ring = rings.Replay(rows, jnp.int32(0), jnp.int32(count))
    config = config_of(scale="unit", target="direct")
    got = jax.jit(lambda r: measure(r, Split(5, jnp.uint32(3)), config))(ring)
    assert got.target.constant.all()
    assert got.input.constant.all()
    np.testing.assert_array_equal(got.target.mean, np.float32(value))


def test_a_reward_that_wakes_up_does_not_blow_up():
    """Constant in the first refit and not in the second: finite, and the states stay learned."""
    rows = transitions(600)
    asleep = rows._replace(reward=np.zeros(300, np.float32),
                           **{k: getattr(rows, k)[:300] for k in
                              ("obs", "action", "next_obs", "terminated")})  # fmt: skip
    awake = rows._replace(reward=np.where(np.arange(600) == 450, 1, 0).astype(np.float32))
    config = config_of(target="direct", scale="unit", members=2, elites=1, max_updates=900,
                       check_every=100, learning_rate=1e-3)  # fmt: skip
    first, _ = fit(config, asleep, capacity=600)
    second, metrics = fit(config, awake, first, key=4)
    assert all(np.isfinite(v).all() for v in jax.tree.leaves(second.ensemble))
    assert float(metrics["model/skill_over_persistence"]) > 0.5
    assert float(metrics["model/train_loss_nats"]) < 1e3


def slow_channel():
    """A channel that moves by a thousandth of its range a step."""
    rng = np.random.default_rng(0)
    rows = transitions(300)
    place = rng.uniform(-1, 1, 300)
    rows.obs[:, 0] = place
    rows.next_obs[:, 0] = place + 1e-3 * rng.normal(size=300)
    return rows


def test_the_floor_of_a_slow_channel_is_counted_and_can_be_lowered():
    """§18.6: a floor of e^−5 target stds drowns a channel that moves by less."""
    rows = slow_channel()
    stds = {}
    for floor in ("target", "change"):
        config = config_of(target="direct", scale="unit", logvar_floor=floor, members=2, elites=1)
        fitted, metrics = fit(config, rows)
        counted = float(metrics["model/floor_exceeds_change_channels_count"])
        assert counted == (1 if floor == "target" else 0)
        s = fitted.statistics
        shift = floor_shift(s, training_scaler(s, config), config)
        low = np.asarray(fitted.ensemble.logvar_min + shift)
        stds[floor] = np.exp(low / 2) * np.asarray(s.target.std)
        # Nothing below that floor is ever predicted.
        said = dyn.predict(fitted, jnp.asarray(rows.obs), jnp.asarray(rows.action), config)
        assert (np.asarray(said.std) >= stds[floor] * (1 - 1e-5)).all()
    s = np.asarray(fitted.statistics.change)
    assert stds["target"][0] > 1e-3 > stds["change"][0]
    np.testing.assert_allclose(stds["change"][0], np.exp(-5) * s[0], rtol=1e-4)
    np.testing.assert_allclose(stds["change"][-1], stds["target"][-1], rtol=1e-6)  # reward's own


def rare_rewards(count, seed):
    """A reward of 1 in a corner that one row in eighty lies in."""
    rng = np.random.default_rng(seed)
    obs = rng.uniform(-1, 1, (count, OBS)).astype(np.float32)
    action = rng.uniform(-1, 1, (count, ACT)).astype(np.float32)
    corner = (obs[:, 0] > 0.6) & (obs[:, 1] > 0.6) & (action[:, 0] > 0.4)
    return Transition(obs, action, corner.astype(np.float32), obs, np.zeros(count, bool))


def test_the_likelihood_gives_up_on_rare_rewards_and_beta_does_not():
    """A Gaussian calls what is rare noise and then no longer learns it (arXiv 2203.09168)."""
    rows, fresh = rare_rewards(8_000, 0), rare_rewards(4_000, 1)
    explained = {}
    for beta in (0.0, 0.5):
        config = config_of(scale="unit", nll_beta=beta, members=2, elites=2, hidden=(64, 64),
                           batch_size=64, max_updates=1_500, check_every=1_500)  # fmt: skip
        fitted, _ = fit(config, rows)
        said = dyn.predict(fitted, jnp.asarray(fresh.obs), jnp.asarray(fresh.action), config)
        error = np.square(np.asarray(said.mean)[..., -1] - fresh.reward).mean()
        explained[beta] = 1.0 - error / fresh.reward.var()
    assert explained[0.5] > 0.2, explained
    assert explained[0.5] > 2 * explained[0.0], explained


def moved(statistics):
    """All statistics moved, inputs and targets together, as a refit moves them."""
    factor, offset = jnp.array([0.5, 3.0, 1.0, 1.7]), jnp.array([1.0, -2.0, 0.0, 0.3])
    target = Scaler(statistics.target.mean + offset, statistics.target.std * factor)
    stretch = jnp.array([0.5, 3.0, 1.0, 0.8, 1.2])
    shift = jnp.array([1.0, -2.0, 0.0, 0.1, 0.0])
    inputs = Scaler(statistics.input.mean + shift, statistics.input.std * stretch)
    return dataclasses.replace(statistics, input=inputs, target=target)


@pytest.mark.parametrize("scale", ["raw", "unit"])
@pytest.mark.parametrize("reward_model", ["joint", "separate"])
def test_predictions_survive_moving_statistics(scale, reward_model):
    """§1.4: every refit re-labels inputs and targets; first and last layer are rewritten to match.

    Carrying the targets alone made FTFL's model worse at every refit than carrying nothing.
    """
    rows = transitions(300)
    config = config_of(target="direct", scale=scale, members=3, elites=2, logvar_min=-30.0,
                       logvar_max=20.0, reward_model=reward_model)  # fmt: skip
    fitted, _ = fit(config, rows)
    old = fitted.statistics
    new = moved(old)
    carried = carry(fitted.ensemble, old, new, config)
    args = (jnp.asarray(rows.obs), jnp.asarray(rows.action), config)
    before = dyn.predict(fitted, *args)
    after = dyn.predict(dataclasses.replace(fitted, ensemble=carried, statistics=new), *args)
    forgot = dyn.predict(dataclasses.replace(fitted, statistics=new), *args)
    np.testing.assert_allclose(after.mean, before.mean, atol=5e-5, rtol=1e-4)
    # Exact away from the bounds, which lie far off here.
    np.testing.assert_allclose(after.std, before.std, rtol=1e-3)
    assert np.abs(forgot.mean - before.mean).max() > 0.5


def test_slopes_of_innovation_targets_are_chosen_once():
    """No weights give the same predictions for another κ: moved at a refit they would jump."""
    config = config_of(target="innovation", scale="unit", members=3, elites=2, logvar_min=-30.0,
                       logvar_max=20.0)  # fmt: skip
    rows = transitions(300)
    fitted, _ = fit(config, rows)
    np.testing.assert_allclose(1 - fitted.statistics.reversion, 0.9, atol=0.05)
    later = rows._replace(next_obs=rows.next_obs - 0.5 * rows.obs)
    again, _ = fit(config, later, fitted)
    np.testing.assert_array_equal(again.statistics.reversion, fitted.statistics.reversion)
    fresh, _ = fit(config, later)
    np.testing.assert_allclose(1 - fresh.statistics.reversion, 0.4, atol=0.05)
    # All else moves, and is carried.
    new = moved(fitted.statistics)
    args = (jnp.asarray(rows.obs), jnp.asarray(rows.action), config)
    carried = carry(fitted.ensemble, fitted.statistics, new, config)
    after = dyn.predict(dataclasses.replace(fitted, ensemble=carried, statistics=new), *args)
    np.testing.assert_allclose(after.mean, dyn.predict(fitted, *args).mean, atol=5e-5, rtol=1e-4)


def test_carrying_leaves_targets_alone_that_were_or_became_constant():
    config = config_of(target="direct", scale="unit", members=2, elites=1)
    net = ens.init(jax.random.key(0), OBS, ACT, config, False)
    inputs = Scaler.identity(OBS + ACT)
    old = Scaler(jnp.zeros(4), jnp.array([1.0, 0.0, 2.0, 1.0]))
    new = Scaler(jnp.zeros(4), jnp.array([1.0, 5.0, 0.0, 2.0]))
    none = jnp.zeros(4), jnp.float32(0)
    carried = carry(net, Statistics(inputs, old, *none), Statistics(inputs, new, *none), config)
    a, b = net.trunks[0].layers[-1].weight, carried.trunks[0].layers[-1].weight
    np.testing.assert_array_equal(a[..., 1:3], b[..., 1:3])
    np.testing.assert_allclose(b[..., 3], a[..., 3] / 2)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(carried))


def test_carrying_an_input_that_was_or_became_constant_changes_no_prediction():
    config = config_of(target="residual", scale="raw", members=2, elites=1)
    fitted, _ = fit(config, transitions(300))
    rows = transitions(50, seed=1)
    target = fitted.statistics.target

    def predictions(state, inputs, obs):
        state = dataclasses.replace(
            state, statistics=dataclasses.replace(state.statistics, input=inputs)
        )
        return dyn.predict(state, jnp.asarray(obs), jnp.asarray(rows.action), config).mean

    varied = fitted.statistics.input
    # Input 1 stands still at 0.7 from now on, or did until now.
    still = Scaler(varied.mean.at[1].set(0.7), varied.std.at[1].set(0.0))
    obs = np.array(rows.obs)
    obs[:, 1] = 0.7
    for old, new in ((varied, still), (still, varied)):
        a, b = (Statistics(x, target, jnp.ones(4), jnp.float32(1)) for x in (old, new))
        after = dataclasses.replace(fitted, ensemble=carry(fitted.ensemble, a, b, config))
        np.testing.assert_allclose(
            predictions(after, new, obs), predictions(fitted, old, obs), rtol=1e-4, atol=1e-4
        )


# --- rollouts (§18.10, §18.12, §18.17, §3.6 #8, #9) ----------------------------------------------

HALF = 0.5


def above_half(obs, action, next_obs):
    """Terminal when the first entry exceeds ½."""
    return next_obs[..., 0] > HALF


class World:
    """A hand-made model: member e adds (e + 1)/10 to entry 0, keeps entry 1, pays e."""

    def __init__(self, elites=(0, 1, 2), members=4, spread=1e-9, **changes):
        self.config = tiny(
            "mbpo", dynamics__members=members, dynamics__elites=len(elites),
            rollouts__per_step=24, rollouts__retention_steps=10, dynamics__logvar_min=-60.0,
            **changes,
        )  # fmt: skip
        state = dyn.init(jax.random.key(0), 2, 1, self.config.dynamics)
        zero = jax.tree.map(jnp.zeros_like, state.ensemble.trunks)
        e = jnp.arange(members, dtype=jnp.float32)
        mean = jnp.stack([(e + 1) / 10, 0 * e, e], axis=1)
        logvar = jnp.full((members, 3), 2 * np.log(spread), jnp.float32)
        zero[0] = eqx.tree_at(
            lambda t: t.layers[-1].bias, zero[0], jnp.concatenate([mean, logvar], axis=1)
        )
        ensemble = eqx.tree_at(lambda n: n.trunks, state.ensemble, zero)
        self.dynamics = dataclasses.replace(
            state, ensemble=ensemble, elites=jnp.array(elites, jnp.int32)
        )
        self.actor = sac.init(jax.random.key(1), 2, 1, self.config.sac).actor
        # Every start has a name of its own in entry 1.
        names = np.arange(1, 41, dtype=np.float32)
        obs = np.stack([np.zeros(40, np.float32), names], axis=1)
        self.real = filled(Transition(obs, np.zeros((40, 1), np.float32), names, obs,
                                      np.zeros(40, bool)))  # fmt: skip

    def roll(self, step=0, termination=never, key=0):
        empty = rings.empty(self.config.rollouts.capacity_rows, 2, 1)
        ring, _, metrics = generate(
            jax.random.key(key), self.actor, self.dynamics, self.real, empty,
            remember(self.config, 2), jnp.int32(step), Ends(termination, None), self.config,
        )  # fmt: skip
        kept = int(ring.size)
        return Transition(*(np.asarray(x)[:kept] for x in ring.rows)), metrics


def test_every_row_draws_its_own_elite_and_only_elites_are_used():
    rows, _ = World(elites=(3, 0, 2)).roll()
    used = np.round(rows.reward).astype(int)
    assert set(used) == {0, 2, 3}
    np.testing.assert_allclose(rows.next_obs[:, 0] - rows.obs[:, 0], (used + 1) / 10, atol=1e-5)
    assert np.bincount(used).max() < len(used) * 0.8


def test_elites_are_drawn_afresh_at_every_step_of_a_branch():
    world = World(rollouts__length=(0, 1, 4, 4))
    rows, _ = world.roll()
    by_step = np.round(rows.reward).astype(int).reshape(4, 24)
    assert (by_step != by_step[:1]).any(axis=0).mean() > 0.5


def test_long_branches_stop_at_terminals_and_never_mix_rows():
    """§18.17, §18.12: STFL would roll through terminals and mix rows; masks come from each step."""
    rows, metrics = World(rollouts__length=(0, 1, 8, 8)).roll(termination=above_half)
    np.testing.assert_array_equal(rows.obs[:, 1], rows.next_obs[:, 1])  # a branch keeps its name
    np.testing.assert_array_equal(rows.terminated, rows.next_obs[:, 0] > HALF)
    assert (rows.obs[:, 0] <= HALF).all()  # nothing starts beyond the end
    assert rows.terminated.sum() == 24  # every branch ended, and was stored until it did
    assert float(metrics["rollout/rows_count"]) == len(rows.reward) < 8 * 24
    np.testing.assert_allclose(
        metrics["rollout/terminated_share"], 24 / len(rows.reward), rtol=1e-5
    )
    # Each row goes on where one of the same name ended, or starts a branch at zero.
    ends = {(n, round(float(x), 4)) for x, n in rows.next_obs}
    for x, n in rows.obs:
        assert x == 0 or (n, round(float(x), 4)) in ends


def test_rollout_length_follows_its_schedule():
    """§18.10: in a port the length variable was never updated."""
    world = World(rollouts__length=(100, 300, 1, 5))
    counts = [float(world.roll(step)[1]["rollout/rows_count"]) / 24 for step in (0, 200, 900)]
    assert counts == [1, 3, 5]
    lengths = jax.vmap(lambda t: length_at(t, world.config))(jnp.array([0, 100, 149, 150, 300]))
    assert lengths.tolist() == [1, 1, 1, 2, 5]


def test_rollouts_sample_the_policy():
    """§18.10: the other bug of that port, a deterministic policy in rollouts."""
    world = World(sac__log_std_min=-1.0, sac__log_std_max=0.0)
    rows, _ = world.roll()
    mode = sac.policy(world.actor, jnp.asarray(rows.obs), world.config.sac).mode()
    assert np.std(rows.action - np.asarray(mode)) > 0.1
    assert len(np.unique(rows.action)) == len(rows.action)


def test_synthetic_rows_are_sampled_not_means():
    rows, _ = World(elites=(0,), spread=0.05).roll()
    noise = rows.next_obs[:, 0] - 0.1
    assert 0.02 < noise.std() < 0.1
    assert abs(np.corrcoef(noise, rows.reward)[0, 1]) < 0.7  # a draw of its own per output


@pytest.mark.parametrize("draw", ["sample", "mean"])
def test_only_the_reward_can_be_the_mean(draw):
    rows, _ = World(elites=(2,), spread=0.05, dynamics__reward_draw=draw).roll()
    assert 0.02 < (rows.next_obs - rows.obs)[:, 0].std() < 0.1
    np.testing.assert_allclose(rows.reward, 2.0, atol=0.3 if draw == "sample" else 1e-6)
    assert (rows.reward.std() > 0.02) == (draw == "sample")


def test_non_finite_predictions_are_neither_stored_nor_continued():
    world = World(elites=(0, 1), rollouts__length=(0, 1, 3, 3))
    head = world.dynamics.ensemble.trunks[0].layers[-1].bias.at[1, 0].set(jnp.nan)
    world.dynamics = eqx.tree_at(
        lambda d: d.ensemble.trunks[0].layers[-1].bias, world.dynamics, head
    )
    rows, metrics = world.roll()
    assert np.isfinite(rows.next_obs).all()
    assert (np.round(rows.reward) == 0).all()
    assert float(metrics["rollout/nonfinite_rows_count"]) > 0
    # A branch that met member 1 ended there: 24, 12, 6 rows more or less.
    assert len(rows.reward) < 24 + 12


def test_a_batch_larger_than_one_chunk_has_every_row_once():
    world = World(rollouts__every=1)
    config = dataclasses.replace(
        world.config,
        rollouts=dataclasses.replace(world.config.rollouts, per_step=67, every=100,
                                     retention_steps=100),
    )  # fmt: skip
    world.config = config
    rows, metrics = world.roll()
    assert len(rows.reward) == 6_700  # two chunks of 3,350
    assert float(metrics["rollout/rows_count"]) == 6_700
    # Chunks draw different starts.
    assert (rows.obs[:3_350, 1] != rows.obs[3_350:, 1]).mean() > 0.9


# --- agent and loop (§18.9, §18.15, §3.6 #4, #11, #12) -------------------------------------------


def prepared(algo="ftfl", seed=0, rows=60, **changes):
    config = tiny(algo, seed=seed, steps=rows + 40, **changes)
    task = spec(OBS, ACT)
    learner, state = make_learner(config, task), run_state.init(config, task)
    for i in range(rows):
        row = jax.tree.map(lambda x, i=i: x[i], transitions(rows))
        state = learner.observe(state, row)
    return learner, state


def test_resets_use_fresh_keys():
    """§18.15: STFL's resets return to the same weights; replay and model must stay."""
    learner, state = prepared()
    start = jax.tree.map(np.asarray, state.agent)
    model = jax.tree.map(np.asarray, state.dynamics)
    seen = [start.actor.layers[0].weight]
    for count in (1, 2):
        state = learner.reset_agent(state)
        seen.append(np.asarray(state.agent.actor.layers[0].weight))
        assert int(state.resets) == count
    assert all((a != b).mean() > 0.9 for i, a in enumerate(seen) for b in seen[:i])
    assert equal_bits(model, state.dynamics)
    assert int(state.real.size) == 60
    assert equal_bits(state.agent.target_critic, state.agent.critic)
    assert not any(np.any(x) for x in jax.tree.leaves(state.agent.actor_optimiser))


def test_truncation_bootstraps():
    """§3.6 #12, §14.5: a step that the clock cut is stored as any other, with its bootstrap."""
    config = tiny("sac").sac
    rows = jax.tree.map(jnp.asarray, transitions(8))
    state = sac.init(jax.random.key(0), OBS, ACT, config)
    cut = rows._replace(terminated=jnp.zeros(8, bool))
    assert "truncated" not in Transition._fields
    target = sac.critic_target(state, cut, jax.random.key(0), config)
    assert (np.abs(target - rows.reward) > 1e-4).all()


def test_seeds_are_independent():
    """§3.6 #4, #5: starts, warm-up actions, model, holdout and learning differ between seeds."""
    (a, one), (b, two) = prepared(seed=0), prepared(seed=1)
    assert (np.asarray(a.explore(one)) != np.asarray(b.explore(two))).all()
    for part in (lambda s: s.agent.actor, lambda s: s.agent.critic, lambda s: s.dynamics.ensemble):
        for x, y in zip(jax.tree.leaves(part(one)), jax.tree.leaves(part(two)), strict=True):
            if x.ndim >= 2 and np.any(x):
                assert (np.asarray(x) != np.asarray(y)).mean() > 0.9
    keys = [run_state.stream_key(s.key, run_state.Stream.HOLDOUT) for s in (one, two)]
    held = [jax.random.bits(k, (), jnp.uint32) for k in keys]
    assert held[0] != held[1]


def test_streams_never_share_a_key():
    root = jax.random.key(0)
    data = {
        tuple(np.asarray(jax.random.key_data(run_state.stream_key(root, stream, counter))))
        for stream in run_state.Stream
        for counter in range(20)
    }
    assert len(data) == len(run_state.Stream) * 20


def copy(state):
    """The compiled steps take their state away."""
    return jax.tree.map(lambda x: x.copy(), state)


@pytest.fixture(scope="module")
def at_work():
    """A learner and a state that has seen a refit."""
    learner, state = prepared()
    return learner, learner.fit(state)[0]


COUNTERS = {
    "explore": lambda s: s.env_steps,
    "act": lambda s: s.env_steps,
    "fit": lambda s: s.dynamics.refits,
    "learn": lambda s: s.learn_steps,
}


@pytest.mark.parametrize("step", COUNTERS)
def test_no_moment_uses_the_key_of_another(at_work, step):
    """The same state one count later draws differently; at the same count it draws the same."""
    learner, state = at_work
    later = eqx.tree_at(COUNTERS[step], state, COUNTERS[step](state) + 1)

    def drawn(state):
        given = (copy(state), np.ones(OBS, np.float32)) if step == "act" else (copy(state),)
        result = getattr(learner, step)(*given)
        return (
            (result[0].agent, result[0].dynamics.ensemble) if step in ("fit", "learn") else result
        )

    assert equal_bits(drawn(state), drawn(state))
    assert not equal_bits(drawn(state), drawn(later))


def test_every_update_of_a_step_has_rows_and_noise_of_its_own(monkeypatch):
    rows, keys, update = [], [], sac.update

    def watched(agent, batch, key, config):
        jax.debug.callback(lambda x: rows.append(np.asarray(x).tobytes()), batch.obs)
        jax.debug.callback(lambda x: keys.append(np.asarray(x).tobytes()), jax.random.key_data(key))
        return update(agent, batch, key, config)

    monkeypatch.setattr(sac, "update", watched)
    learner, state = prepared("sac", sac__updates_per_step=3)
    for _ in range(2):
        state, metrics = learner.learn(state)
        jax.block_until_ready(metrics)
    jax.effects_barrier()
    assert len(set(rows)) == len(rows) == 6
    assert len(set(keys)) == len(keys) == 6


def test_observing_counts_ends_that_the_termination_function_missed():
    config, task = tiny("mbpo"), spec(OBS, ACT, termination=above_half)
    learner, state = make_learner(config, task), run_state.init(config, task)
    row = jax.tree.map(lambda x: x[0], transitions(1))
    for first, said in ((1.0, True), (1.0, False), (0.0, True), (0.0, False)):
        next_obs = np.array([first, 0, 0], np.float32)
        state = learner.observe(state, row._replace(next_obs=next_obs, terminated=np.bool_(said)))
    assert int(state.mismatches) == 2
    assert int(state.env_steps) == int(state.real.size) == 4


def test_the_unit_dial_reaches_the_agent_multiplied_back():
    config = tiny("mbpo", task__reward_unit=2.0**-10, sac__reward_scale=3.0)
    assert config.agent_reward_scale == 3.0 * 2**10
