"""The screens on cases worked out by hand, and what a batch of branches does with their answers."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ftfl import config as cfg
from ftfl import presets, sac
from ftfl import replay as rings
from ftfl.dynamics import predict as dyn
from ftfl.dynamics.predict import Prediction
from ftfl.dynamics.targets import Scaler, measure
from ftfl.errors import FtflError
from ftfl.rollouts import infoprop, m2ac, macura, registry
from ftfl.rollouts.generate import Ends, generate, mixed_batch, usable_rows
from ftfl.rollouts.memory import Memory, channel_scale, remember
from ftfl.rollouts.screens import Predictions
from ftfl.termination import never
from ftfl.training.updates import allowed
from helpers import equal_bits, filled, tiny, transitions

pytestmark = pytest.mark.usefixtures("quick_compiles")
KEY = jax.random.key(0)


def shown(mean, std, member=None, scale=None, length=5, obs_dim=None):
    """Predictions of these (E, B, D) means and stds; the drawn outcome is the member's mean."""
    mean, std = np.asarray(mean, np.float32), np.asarray(std, np.float32)
    _, rows, outputs = mean.shape
    member = np.zeros(rows, np.int32) if member is None else np.asarray(member, np.int32)
    size = outputs - 1 if obs_dim is None else obs_dim
    drawn = mean[member, np.arange(rows)]
    scale = np.ones(outputs) if scale is None else scale
    return Predictions(
        obs=jnp.zeros((rows, size)),
        action=jnp.zeros((rows, 1)),
        members=Prediction(jnp.asarray(mean), jnp.asarray(std)),
        member=jnp.asarray(member),
        next_obs=jnp.asarray(drawn[:, :size]),
        reward=jnp.asarray(drawn[:, -1]),
        scale=jnp.asarray(scale, jnp.float32),
        length=jnp.int32(length),
    )


def apart(distances):
    """Two members of std 1 that differ by these distances in the one channel and agree on 0 reward.

    KL is d²/2 and the divergence of MACURA d²/8.
    """
    mean = np.zeros((2, len(distances), 2))
    mean[1, :, 0] = distances
    return shown(mean, np.ones_like(mean))


def rule_of(algo, outputs=2, **changes):
    config = tiny(algo, **changes)
    return registry.SCREENS[config.rollouts.screen].make(config, outputs)


# --- M2AC ---------------------------------------------------------------------------------------


def test_m2ac_keeps_a_share_that_falls_with_the_horizon():
    """w_h = (H − h)/(2(H + 1)): ¼ of all rows over a branch, ½ if it has one step only."""
    kept = [int(m2ac.stored_rows(120, jnp.int32(h), jnp.int32(5))) for h in range(5)]
    assert kept == [50, 40, 30, 20, 10]
    assert sum(kept) == 120 * 5 / 4
    assert int(m2ac.stored_rows(120, jnp.int32(0), jnp.int32(1))) == 60
    assert int(m2ac.stored_rows(7, jnp.int32(0), jnp.int32(1))) == 3
    for rows, length in ((400, 10), (77, 3)):
        for h in range(length):
            wanted = int(rows * (length - h) / (2 * (length + 1)))
            assert int(m2ac.stored_rows(rows, jnp.int32(h), jnp.int32(length))) == wanted


def test_m2ac_stores_the_most_certain_rows_and_stops_nobody():
    distances = np.array([3.0, 0.5, 2.0, 0.1, 4.0, 1.0, 5.0, 0.2, 6.0, 7.0, 8.0, 9.0])
    rule = rule_of("m2ac", rollouts__screening__kl_penalty=0.25)
    said = apart(distances)
    answer = rule.screen(KEY, said, jnp.int32(1), jnp.ones(12, bool), ())
    # ⌊12 · 4/12⌋ rows, those of the smallest distance.
    assert set(np.flatnonzero(answer.store)) == {1, 3, 7, 5}
    assert np.asarray(answer.proceed).all()
    np.testing.assert_allclose(answer.uncertainty, distances**2 / 2, rtol=1e-5)
    np.testing.assert_allclose(answer.reward, -0.25 * distances**2 / 2, rtol=1e-5)
    np.testing.assert_array_equal(answer.next_obs, said.next_obs)


def test_m2ac_ranks_rows_that_have_ended_too():
    """As the code it follows: they hold places and are not stored, so fewer rows are kept."""
    distances = np.arange(12.0)
    active = np.arange(12) >= 3  # the three most certain rows have ended
    answer = rule_of("m2ac").screen(KEY, apart(distances), jnp.int32(1), jnp.asarray(active), ())
    assert set(np.flatnonzero(np.asarray(answer.store) & active)) == {3}


def test_m2ac_puts_rows_without_a_number_last():
    distances = np.array([np.nan, 1.0, 2.0, 3.0, np.nan, 4.0])
    answer = rule_of("m2ac").screen(KEY, apart(distances), jnp.int32(0), jnp.ones(6, bool), ())
    assert set(np.flatnonzero(answer.store)) == {1, 2}


# --- MACURA -------------------------------------------------------------------------------------


def divergences(*nats):
    return apart(np.sqrt(8 * np.array(nats)))


def test_macura_recalibrates_at_the_first_step_and_averages_over_batches():
    rule = rule_of("macura", rollouts__screening__threshold_percentile=50.0,
                   rollouts__screening__threshold_factor=2.0)  # fmt: skip
    everyone = jnp.ones(5, bool)
    first = rule.screen(KEY, divergences(1, 2, 3, 4, 20), jnp.int32(0), everyone, rule.initial)
    assert float(first.state.value) == pytest.approx(6.0, rel=1e-5)  # 2 × median 3
    np.testing.assert_array_equal(first.store, [True, True, True, True, False])
    np.testing.assert_array_equal(first.proceed, first.store)
    # Later steps of the batch are held to the same threshold, strictly.
    later = rule.screen(
        KEY, divergences(0.1, 5.9, 6.1, 100, 100), jnp.int32(1), everyone, first.state
    )
    assert equal_bits(later.state, first.state)
    np.testing.assert_array_equal(later.store, [True, True, False, False, False])
    # The second batch's 2 × 1 joins the average with equal weight, the third's with a third.
    second = rule.screen(KEY, divergences(1, 1, 1, 1, 1), jnp.int32(0), everyone, later.state)
    assert float(second.state.value) == pytest.approx((6 + 2) / 2, rel=1e-5)
    third = rule.screen(KEY, divergences(5, 5, 5, 5, 5), jnp.int32(0), everyone, second.state)
    assert float(third.state.value) == pytest.approx((6 + 2 + 10) / 3, rel=1e-5)


def test_macura_percentile_is_numpys_over_living_rows():
    nats = np.random.default_rng(0).exponential(size=40).astype(np.float32)
    active = np.arange(40) < 33
    got = macura.recalibrate(
        macura.Threshold(jnp.int32(0), jnp.float32(0)), jnp.asarray(nats), jnp.asarray(active),
        95.0, 2.0,
    )  # fmt: skip
    assert float(got.value) == pytest.approx(2 * np.percentile(nats[active], 95), rel=1e-6)
    assert int(got.batches) == 1


def test_a_batch_without_numbers_leaves_macuras_threshold_alone():
    before = macura.Threshold(jnp.int32(3), jnp.float32(1.5))
    bad = jnp.full(4, jnp.nan)
    after = macura.recalibrate(before, bad, jnp.ones(4, bool), 95.0, 2.0)
    assert equal_bits(before, after)
    # One row without a number does not spoil the others' percentile.
    mixed = jnp.float32([jnp.nan, 1.0, 1.0, jnp.inf])
    after = macura.recalibrate(before, mixed, jnp.ones(4, bool), 95.0, 2.0)
    assert float(after.value) == pytest.approx((3 * 1.5 + 2) / 4)


@pytest.mark.parametrize(("filled_rows", "wanted"), [(0, 1), (1, 1), (500, 10), (725, 14),
                                                     (1_000, 20)])  # fmt: skip
def test_macuras_updates_follow_the_data(filled_rows, wanted):
    """⌊2 G · filled/capacity⌋ with G = 10: G at half, 2G at full; at least one."""
    assert int(allowed(jnp.int32(filled_rows), 1_000, 10)) == wanted


# --- Infoprop -----------------------------------------------------------------------------------


def test_infoprop_draws_with_the_fused_moments():
    """Equal stds: the mixture has variance v_f + v_ep, and x′ has mean μ_f and variance v_f."""
    rows = 40_000
    rng = np.random.default_rng(1)
    centres = np.array([-1.0, 0.0, 2.5])
    mean = np.broadcast_to(centres[:, None, None], (3, rows, 2)).astype(np.float32)
    std = np.full_like(mean, 0.7)
    said = shown(mean, std, member=rng.integers(0, 3, rows))
    noise = rng.normal(size=(rows, 2)) * 0.7
    said = said._replace(
        next_obs=said.next_obs + jnp.asarray(noise[:, :1], jnp.float32),
        reward=said.reward + jnp.asarray(noise[:, 1], jnp.float32),
    )
    rule = rule_of("infoprop", rollouts__per_step=rows, rollouts__retention_steps=1)
    state = rule.initial._replace(
        lost=jnp.zeros((rows, 2)), step=jnp.full(2, 99.0), path=jnp.full(2, 99.0)
    )
    answer = rule.screen(KEY, said, jnp.int32(0), jnp.ones(rows, bool), state)
    for drawn in (answer.next_obs[:, 0], answer.reward):
        assert float(jnp.mean(drawn)) == pytest.approx(0.5, abs=0.02)
        assert float(jnp.std(drawn)) == pytest.approx(0.7, rel=0.02)
    assert np.asarray(answer.store).all()


def infoprop_case(**changes):
    """Rows whose members lie 0, 1 or 10 stds apart in the channel, and agree on the reward."""
    rule = rule_of("infoprop", rollouts__per_step=3, rollouts__screening__units="raw",
                   rollouts__screening__quantum=2.0**-10, **changes)  # fmt: skip
    said = apart([0.0, 2.0, 20.0])
    epistemic = np.array([1.0, 10.0])
    left = epistemic / np.sqrt(1 + epistemic**2)  # (1 − K) v_f with v_f = 1
    bits = np.log2(left) + 0.5 * np.log2(2 * np.pi * np.e) + 10
    return rule, said, [0.0, *bits]


def test_infoprop_counts_the_bits_that_disagreement_made_up():
    rule, said, bits = infoprop_case()
    state = rule.initial._replace(step=jnp.full(2, 99.0), path=jnp.full(2, 99.0))
    answer = rule.screen(KEY, said, jnp.int32(0), jnp.ones(3, bool), state)
    np.testing.assert_allclose(answer.state.lost[:, 0], bits, rtol=1e-5)
    np.testing.assert_allclose(answer.state.lost[:, 1], 0.0)  # the reward is agreed on
    again = rule.screen(KEY, said, jnp.int32(1), jnp.ones(3, bool), answer.state)
    np.testing.assert_allclose(again.state.lost[:, 0], 2 * np.array(bits), rtol=1e-5)
    # A new batch of branches begins at nothing.
    fresh = rule.screen(KEY, said, jnp.int32(0), jnp.ones(3, bool), again.state)
    np.testing.assert_allclose(fresh.state.lost[:, 0], bits, rtol=1e-5)


def test_infoprop_ends_what_loses_too_much_at_once_or_in_sum():
    rule, said, bits = infoprop_case()
    between = (bits[1] + bits[2]) / 2

    def stored(step, path, t=0, lost=0.0):
        limits = infoprop.Limits(jnp.full(2, step), jnp.full(2, path), jnp.full((3, 2), lost))
        answer = rule.screen(KEY, said, jnp.int32(t), jnp.ones(3, bool), limits)
        np.testing.assert_array_equal(answer.store, answer.proceed)
        return np.asarray(answer.store).tolist()

    assert stored(99.0, 99.0) == [True, True, True]
    assert stored(between, 99.0) == [True, True, False]
    assert stored(99.0, between) == [True, True, False]
    assert stored(99.0, 30.0, t=1, lost=19.0) == [True, False, False]
    assert stored(99.0, 30.0, t=0, lost=19.0) == [True, True, True]
    assert stored(np.nan, 99.0) == [False, False, False]


def test_infoprops_limits_are_quantiles_of_replayed_losses():
    rule = rule_of(
        "infoprop",
        rollouts__length=(0, 1, 7, 7),
        rollouts__screening__step_quantile=0.9,
        rollouts__screening__path_quantile=0.2,
    )
    values = np.random.default_rng(2).exponential(size=(500, 2)).astype(np.float32)
    values[7] = np.nan  # a row that diverged takes nothing from the others
    limits = rule.calibration.settle(jnp.asarray(values), rule.initial)
    np.testing.assert_allclose(limits.step, np.nanquantile(values, 0.9, axis=0), rtol=1e-5)
    np.testing.assert_allclose(limits.path, 7 * np.nanquantile(values, 0.2, axis=0), rtol=1e-5)
    # What is measured on replayed rows is what a rollout loses, whatever was drawn.
    rule, said, bits = infoprop_case()
    measured = rule.calibration.measure(said.members, said.scale)
    np.testing.assert_allclose(measured[:, 0], bits, rtol=1e-5)


# --- MOPO ---------------------------------------------------------------------------------------


def test_mopo_fines_the_widest_member():
    std = np.zeros((2, 2, 2))
    std[0] = [[3, 4], [1, 0]]
    std[1] = [[0, 1], [6, 8]]
    said = shown(np.ones((2, 2, 2)), std, scale=[2.0, 4.0])
    raw = rule_of("mopo", rollouts__screening__units="raw", rollouts__screening__std_penalty=0.5)
    answer = raw.screen(KEY, said, jnp.int32(0), jnp.ones(2, bool), ())
    np.testing.assert_allclose(answer.reward, [1 - 0.5 * 5, 1 - 0.5 * 10])
    assert np.asarray(answer.store & answer.proceed).all()
    # In units of the data: channel stds of 2, a reward std of 4 that also prices the fine.
    unit = rule_of("mopo", rollouts__screening__std_penalty=0.5)
    answer = unit.screen(KEY, said, jnp.int32(0), jnp.ones(2, bool), ())
    norms = [np.hypot(3 / 2, 4 / 4), np.hypot(6 / 2, 8 / 4)]
    np.testing.assert_allclose(answer.reward, [1 - 0.5 * 4 * n for n in norms], rtol=1e-6)


def test_a_channel_that_never_changed_costs_nothing_in_units_of_the_data():
    said = shown(np.ones((2, 1, 2)), np.full((2, 1, 2), 3.0), scale=[0.0, 3.0])
    answer = rule_of("mopo", rollouts__screening__std_penalty=1.0).screen(
        KEY, said, jnp.int32(0), jnp.ones(1, bool), ()
    )
    np.testing.assert_allclose(answer.reward, [1 - 3.0])


@pytest.mark.parametrize("algo", ["m2ac", "mopo"])
def test_a_fine_in_units_of_an_unknown_reward_is_refused(algo):
    config = tiny(algo, rollouts__screening__units="unit", dynamics__reward_model="given")
    with pytest.raises(FtflError, match="standard deviations of a learned reward"):
        registry.build(config, 3)
    registry.build(cfg.replace(config, {"rollouts.screening.units": "raw"}), 3)


@pytest.mark.parametrize("algo", ["m2ac", "macura", "infoprop"])
def test_one_member_cannot_disagree(algo):
    config = tiny(algo, dynamics__members=1, dynamics__elites=1)
    with pytest.raises(FtflError, match="needs 2 or more"):
        registry.build(config, 3)


# --- certainty ------------------------------------------------------------------------------------


def test_certainty_stores_in_proportion_to_its_weight():
    """Equal members, so the std is theirs: w = 1/(1 + mean std of channels + std of r)."""
    rows = 30_000
    std = np.zeros((2, rows, 3))
    std[:, : rows // 2] = [1.0, 3.0, 1.0]  # w = 1/4
    answer = rule_of("certainty", rollouts__screening__units="raw").screen(
        KEY, shown(np.zeros((2, rows, 3)), std), jnp.int32(0), jnp.ones(rows, bool), ()
    )
    kept = np.asarray(answer.store)
    assert kept[: rows // 2].mean() == pytest.approx(0.25, abs=0.01)
    assert kept[rows // 2 :].all()  # nothing to doubt
    assert np.asarray(answer.proceed).all()
    np.testing.assert_array_equal(answer.uncertainty[:2], 3.0)
    # In units of the data the same model is as doubtful in any unit of a channel.
    unit = rule_of("certainty")
    for factor in (1.0, 1024.0):
        scale = np.float32([2 * factor, 6 * factor, 4])
        said = shown(
            np.zeros((2, 2, 3)), np.broadcast_to([factor, 3 * factor, 1], (2, 2, 3)), scale=scale
        )
        answer = unit.screen(KEY, said, jnp.int32(0), jnp.ones(2, bool), ())
        np.testing.assert_allclose(answer.uncertainty, 0.5 + 0.25)


def test_a_screens_scale_is_the_same_in_every_target_cell():
    """Stds of the channels and of the reward, not of the target, which differs between cells."""
    rows = filled(transitions(200, 3, 2))
    split = rings.Split(5, jnp.uint32(1))
    slots = np.asarray(split.train_slot(jnp.arange(160, dtype=jnp.int32)))
    seen = [np.asarray(rows.rows.obs)[slots], np.asarray(rows.rows.reward)[slots, None]]
    for algo in ("m2ac", "m2ac-ftfl"):
        config = tiny(algo).dynamics
        model = dyn.init(jax.random.key(0), 3, 2, config)
        model = dataclasses.replace(model, statistics=measure(rows, split, config))
        wanted = np.concatenate(seen, axis=1).std(axis=0)
        np.testing.assert_allclose(channel_scale(model, 3), wanted, rtol=1e-5)


# --- in a batch of branches -----------------------------------------------------------------------

ALL = ("m2ac", "macura", "infoprop", "mopo", "certainty")
OBS, ACT = 3, 2


class World:
    """An untrained model on random rows: enough for a screen to have something to judge."""

    def __init__(self, algo, unit=1.0, **changes):
        changes = {"rollouts__per_step": 24, "rollouts__retention_steps": 20,
                   "rollouts__screening__calibration_rows": 64} | changes  # fmt: skip
        self.config = tiny(algo, task__reward_unit=unit, **changes)
        rows = transitions(60, OBS, ACT)
        self.real = filled(rows._replace(reward=rows.reward * np.float32(unit)))
        state = dyn.init(jax.random.key(0), OBS, ACT, self.config.dynamics)
        scale = np.float32([1, 2, 3, unit])
        scaler = Scaler(jnp.float32([0, 0, 0, unit / 8]), jnp.asarray(scale))
        state = dataclasses.replace(
            state,
            refits=jnp.int32(1),
            statistics=dataclasses.replace(
                state.statistics, target=scaler, change=jnp.asarray(scale),
                input=Scaler(jnp.zeros(OBS + ACT), jnp.float32([1, 2, 3, 1, 1])),
            ),
        )  # fmt: skip
        self.dynamics = state
        self.actor = sac.init(jax.random.key(1), OBS, ACT, self.config.sac).actor
        self.memory = remember(self.config, OBS)
        self.ring = rings.empty(self.config.rollouts.capacity_rows, OBS, ACT)
        self.step = jax.jit(self._roll, static_argnames="termination")

    def _roll(self, key, dynamics, ring, memory, termination):
        return generate(
            key, self.actor, dynamics, self.real, ring, memory, jnp.int32(100),
            Ends(termination, None), self.config,
        )  # fmt: skip

    def roll(self, key=0, termination=never):
        self.ring, self.memory, metrics = self.step(
            jax.random.key(key), self.dynamics, self.ring, self.memory, termination=termination
        )
        return {k: float(v) for k, v in metrics.items()}


@pytest.mark.parametrize("algo", ALL)
def test_a_batch_of_branches_with_each_screen(algo):
    world = World(f"{algo}-ftfl")
    metrics = [world.roll(i) for i in range(3)]
    assert all(np.isfinite(list(m.values())).all() for m in metrics)
    stored = sum(m["rollout/rows_count"] for m in metrics)
    assert int(world.ring.size) == stored > 0
    assert int(usable_rows(world.ring, world.memory, jnp.int32(100), world.config)) == stored
    share = metrics[-1]["rollout/kept_share"]
    if algo == "m2ac":
        assert share == sum(24 * (5 - h) // 12 for h in range(5)) / (24 * 5)
    elif algo == "mopo":
        assert share == 1.0
        assert metrics[-1]["rollout/penalty_mean_reward"] > 0
    else:
        assert 0 < share <= 1
    assert metrics[-1]["rollout/uncertainty_mean_screen"] > 0
    assert world.step._cache_size() == 1


@pytest.mark.parametrize("algo", ALL)
def test_with_unit_targets_another_unit_of_reward_changes_no_bit_of_a_screen(algo):
    """What is kept, what is paid (in the task's own unit) and what is remembered."""
    one, other = World(f"{algo}-ftfl"), World(f"{algo}-ftfl", unit=2.0**-10)
    for key in range(2):
        a, b = one.roll(key), other.roll(key)
        assert a["rollout/kept_share"] == b["rollout/kept_share"]
        assert a["rollout/uncertainty_mean_screen"] == b["rollout/uncertainty_mean_screen"]
    assert np.abs(one.ring.rows.reward).max() > 0
    np.testing.assert_array_equal(one.ring.rows.reward * 2.0**-10, other.ring.rows.reward)
    np.testing.assert_array_equal(one.ring.rows.next_obs, other.ring.rows.next_obs)
    assert equal_bits(one.memory, other.memory)


def above_zero(obs, action, next_obs):
    return next_obs[..., 0] > 0


def test_m2acs_effective_share_falls_where_branches_terminate():
    world = World("m2ac")
    metrics = world.roll(termination=above_zero)
    assert metrics["rollout/rows_count"] < sum(24 * (5 - h) // 12 for h in range(5))
    kept = int(world.ring.size)
    # Terminal rows are stored once, when they are among the certain ones.
    np.testing.assert_array_equal(
        world.ring.rows.terminated[:kept], world.ring.rows.next_obs[:kept, 0] > 0
    )


def test_infoprop_calibrates_once_per_refit_on_replayed_pairs():
    world = World("infoprop-ftfl")
    world.roll()
    first = world.memory.screen
    assert int(world.memory.calibrated) == 1
    assert (np.asarray(first.path) > 0).all()
    world.roll(1)
    np.testing.assert_array_equal(world.memory.screen.step, first.step)
    world.dynamics = dataclasses.replace(world.dynamics, refits=jnp.int32(2))
    world.roll(2)
    assert int(world.memory.calibrated) == 2
    assert not np.array_equal(world.memory.screen.step, first.step)
    assert world.step._cache_size() == 1


def test_rows_are_kept_by_age_whatever_a_screen_keeps_out():
    """Four steps of retention: after a fifth batch the first one's rows are used no more."""
    world = World("m2ac", rollouts__retention_steps=4)
    counts = [world.roll(i)["rollout/rows_count"] for i in range(7)]
    assert int(usable_rows(world.ring, world.memory, jnp.int32(0), world.config)) == sum(counts[3:])
    aged = dataclasses.replace(world.memory, stored=jnp.int32([5, 0, 0, 0]))
    config = cfg.replace(world.config, {"sac.batch_size": 400, "rollouts.real_ratio": 0.0})
    batch = mixed_batch(KEY, world.real, world.ring, aged, jnp.int32(0), config)
    newest = rings.take(world.ring, rings.newest(world.ring, jnp.arange(5)))
    assert set(np.asarray(batch.reward)) == set(np.asarray(newest.reward))


def test_nothing_usable_means_real_rows_and_is_counted():
    world = World("macura")
    nothing = dataclasses.replace(world.memory, stored=jnp.zeros(20, jnp.int32))
    world.roll()
    assert int(usable_rows(world.ring, nothing, jnp.int32(0), world.config)) == 0
    batch = mixed_batch(KEY, world.real, world.ring, nothing, jnp.int32(0), world.config)
    assert set(np.asarray(batch.reward)) <= set(np.asarray(world.real.rows.reward))


def test_a_coin_decides_for_whole_batches():
    world = World("macura", rollouts__real_draw="coin", rollouts__real_ratio=0.3)
    world.roll()
    real = set(np.asarray(world.real.rows.reward).tolist())

    @jax.jit
    def draw(key):
        return mixed_batch(key, world.real, world.ring, world.memory, jnp.int32(0), world.config)

    batches = jax.vmap(draw)(jax.random.split(KEY, 200)).reward
    kinds = [{r in real for r in batch} for batch in np.asarray(batches).tolist()]
    assert all(len(kind) == 1 for kind in kinds)
    assert np.mean([kind == {True} for kind in kinds]) == pytest.approx(0.3, abs=0.1)


@pytest.mark.parametrize("algo", ALL)
def test_a_model_that_diverged_fills_nothing_in(algo):
    """Values that are not numbers are masked and counted; MACURA and Infoprop let none through."""
    world = World(algo)
    sick = jax.tree.map(lambda x: x * jnp.nan, world.dynamics.ensemble.trunks)
    world.dynamics = dataclasses.replace(
        world.dynamics, ensemble=dataclasses.replace(world.dynamics.ensemble, trunks=sick)
    )
    metrics = world.roll()
    assert (metrics["rollout/rows_count"], int(world.ring.size)) == (0, 0)
    assert metrics["rollout/nonfinite_rows_count"] > 0
    assert metrics["rollout/kept_share"] == 0


@pytest.mark.parametrize("algo", [*ALL, "mbpo-h5", "mbpo"])
def test_memory_is_arrays_and_nothing_else(algo):
    memory = remember(tiny(algo), OBS)
    assert isinstance(memory, Memory)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(memory))
    if algo == "mbpo":
        assert jax.tree.leaves(memory) == []


# --- presets --------------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", sorted(presets.PROFILES))
@pytest.mark.parametrize("algo", ALL)
def test_a_screen_and_its_control_differ_in_the_screen_alone(algo, profile):
    control = presets.build("dmc/hopper-stand", "mbpo-h5", profile)
    found = cfg.difference(control, presets.build("dmc/hopper-stand", algo, profile))
    assert found.pop("algo")[1] == algo
    assert found.pop("rollouts.screen") == ("keep-all", algo)
    assert all(name.startswith("rollouts.screening.") for name in found)


@pytest.mark.parametrize("profile", sorted(presets.PROFILES))
@pytest.mark.parametrize("algo", [*ALL, "mbpo"])
def test_with_and_without_ftfl_differ_in_target_and_scale_alone(algo, profile):
    plain, repaired = ("mbpo-h5", "ftfl-h5") if algo == "mbpo" else (algo, f"{algo}-ftfl")
    found = cfg.difference(
        *(presets.build("dmc/quadruped-walk", name, profile) for name in (plain, repaired))
    )
    assert found == {
        "algo": (plain, repaired),
        "dynamics.target": ("residual", "direct"),
        "dynamics.scale": ("raw", "unit"),
    }


def test_the_control_makes_as_many_synthetic_rows_as_mbpo():
    control, plain = (presets.build("dmc/hopper-stand", a).rollouts for a in ("mbpo-h5", "mbpo"))
    assert control.retained_rows == plain.retained_rows


PUBLISHED = {
    # task: ξ, ζ, G, retained steps (macura at af4e0d8)
    "gym/Ant-v5": (5, 95, 20, 1_000), "gym/HalfCheetah-v5": (2, 95, 10, 1_000),
    "gym/Hopper-v5": (30, 90, 30, 1_000), "gym/Humanoid-v5": (5, 95, 20, 5_000),
    "gym/Walker2d-v5": (0.3, 95, 30, 3_000),
}  # fmt: skip


@pytest.mark.parametrize("task", PUBLISHED)
def test_macura_own_has_the_published_numbers(task):
    config = presets.build(task, "macura-own")
    screening, rollouts = config.rollouts.screening, config.rollouts
    assert PUBLISHED[task] == (
        screening.threshold_factor, screening.threshold_percentile, config.sac.updates_per_step,
        rollouts.retention_steps,
    )  # fmt: skip
    assert (rollouts.max_length, rollouts.every, rollouts.updates) == (10, 250, "stored")
    assert (rollouts.real_draw, config.sac.exploration) == ("coin", "pink")
