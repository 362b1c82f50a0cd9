"""The dynamics ensemble, its targets and its schedules against the float64 reference."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference as ref

from ftfl import replay as rings
from ftfl.config import DynamicsConfig
from ftfl.dynamics import ensemble as ens
from ftfl.dynamics import fit as fitting
from ftfl.dynamics import predict as dyn
from ftfl.dynamics.holdout import holdout_report
from ftfl.dynamics.targets import (
    measure,
    measure_reversion,
    model_input,
    model_target,
    next_obs_of,
)
from ftfl.nets import Optimiser
from ftfl.replay import Split
from ftfl.rollouts.generate import kept_rows, length_at
from helpers import filled, tiny, to64, transitions

pytestmark = pytest.mark.usefixtures("quick_compiles")
OBS, ACT, MEMBERS, ROWS = 3, 1, 3, 6
CELLS = [("residual", "raw"), ("residual", "unit"), ("direct", "raw"), ("direct", "unit")]
SMALL = {
    "members": MEMBERS, "elites": 2, "hidden": (4, 3), "weight_decay": (1e-2, 2e-2, 3e-2),
    "batch_size": ROWS,
}  # fmt: skip


def config_of(**changes):
    return DynamicsConfig(**(SMALL | changes))


def make(config, seed=0):
    """An ensemble without zero weights."""
    net = ens.init(jax.random.key(seed), OBS, ACT, config, False)
    rng = np.random.default_rng(seed)
    trunks = jax.tree.map(
        lambda x: x + jnp.asarray(0.2 * rng.normal(size=x.shape), x.dtype), net.trunks
    )
    return eqx.tree_at(lambda n: n.trunks, net, trunks)


def members_of(net, trunk=0):
    return [
        [
            [np.array(layer.weight[e], float), np.array(layer.bias[e], float)]
            for layer in net.trunks[trunk].layers
        ]
        for e in range(MEMBERS)
    ]


def bounds_of(net):
    return np.array(net.logvar_min, float), np.array(net.logvar_max, float)


def data(seed=0, scale=1.0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(MEMBERS, ROWS, OBS + ACT)), scale * rng.normal(
        size=(MEMBERS, ROWS, OBS + 1)
    )


def reference_loss(config, shift):
    penalty = config.logvar_penalty if config.logvar_learned else None

    def loss(parameters, x, z):
        members, low, high = parameters
        return ref.ensemble_loss(members, low + shift, high, x, z, config.weight_decay, penalty)

    return loss


@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize("precision", [64, 32])
def test_loss_gradient_and_adam_step(learned, precision):
    config = config_of(logvar_learned=learned)
    net = make(config)
    x, z = data()
    shift = np.array([0.0, -1.0, 0.0, -2.0])
    low, high = bounds_of(net)
    loss = reference_loss(config, shift)
    parameters = [members_of(net), low, high]
    wanted = loss(parameters, x, z)
    if learned:
        # The penalty is on the learned bounds; the reference was handed the shifted floor.
        wanted += config.logvar_penalty * shift.sum()
    slopes = ref.gradient(lambda p: loss(p, x, z), parameters)
    tolerance = {"rtol": 1e-10, "atol": 1e-12} if precision == 64 else {"rtol": 1e-4, "atol": 1e-5}
    with jax.enable_x64(precision == 64):
        net = to64(net) if precision == 64 else net
        args = [jnp.asarray(v, net.logvar_min.dtype) for v in (x, z, shift)]
        value, grads = jax.jit(jax.value_and_grad(lambda n: ens.loss(n, *args, config)))(net)
        np.testing.assert_allclose(value, wanted, **tolerance)
        np.testing.assert_allclose(ref.flat(members_of(grads)), ref.flat(slopes[0]), **tolerance)
        if learned:
            np.testing.assert_allclose(grads.logvar_min, slopes[1], **tolerance)
            np.testing.assert_allclose(grads.logvar_max, slopes[2], **tolerance)
        else:
            assert not grads.logvar_min.any()
            assert not grads.logvar_max.any()
        if precision == 64:
            optimiser = Optimiser(1e-2)
            moved, _ = optimiser.step(net, grads, optimiser.init(net))
            wanted = ref.Adam(1e-2)(members_of(net), slopes[0])
            np.testing.assert_allclose(ref.flat(members_of(moved)), ref.flat(wanted), **tolerance)


def test_the_reference_gradient_agrees_with_central_differences():
    config = config_of(logvar_learned=True)
    net = make(config)
    x, z = data()
    loss = reference_loss(config, 0.0)
    parameters = [members_of(net), *bounds_of(net)]
    exact = ref.gradient(lambda p: loss(p, x, z), parameters)
    rough = ref.central_gradient(lambda p: loss(p, x, z), parameters)
    np.testing.assert_allclose(ref.flat(exact), ref.flat(rough), rtol=1e-5, atol=1e-7)


def test_separate_reward_network_is_two_losses():
    """The state network's loss is that of a joint model without a reward, the reward's its own."""
    config = config_of(reward_model="separate")
    net = make(config)
    x, z = data()
    low, high = bounds_of(net)
    wanted = ref.ensemble_loss(
        members_of(net, 0), low[:-1], high[:-1], x, z[..., :-1], config.weight_decay
    ) + ref.ensemble_loss(
        members_of(net, 1), low[-1:], high[-1:], x, z[..., -1:], config.weight_decay
    )
    args = [jnp.asarray(v, jnp.float32) for v in (x, z, np.zeros(OBS + 1))]
    np.testing.assert_allclose(ens.loss(net, *args, config), wanted, rtol=1e-4)


def test_soft_bounds():
    raw = np.linspace(-40, 40, 81)
    with jax.enable_x64(True):
        ours = ens.bound(jnp.asarray(raw), jnp.full(81, -10.0), jnp.full(81, 0.5))
        back = np.asarray(ens.unbound(ours[25:45], -10.0, 0.5))
        ours = np.asarray(ours)
    np.testing.assert_allclose(ours, ref.bounded_logvar(raw, -10.0, 0.5), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(back, raw[25:45], atol=1e-8)
    assert (np.diff(ours) >= 0).all()
    assert ours.min() >= -10
    assert ours.max() <= 0.5 + 1e-4  # the lower bound's softplus lifts the cap by e^−10.5
    np.testing.assert_allclose(ens.bound(jnp.zeros(1), jnp.full(1, -10.0), jnp.full(1, 0.5)),
                               -0.474, atol=1e-3)  # fmt: skip


@pytest.mark.parametrize(("cell", "scale"), CELLS)
@pytest.mark.parametrize(("stored", "capacity"), [(203, 400), (90, 90), (2_500, 4_000)])
def test_statistics_and_targets_of_the_four_cells(cell, scale, stored, capacity):
    config = config_of(target=cell, scale=scale)
    rows = transitions(stored, OBS, ACT, seed=3)
    rows.obs[:, 1] = rows.next_obs[:, 1] = 0.7  # a constant channel
    ring, seed = filled(rows, capacity), 0xDEADBEEF
    got = measure(ring, Split(5, jnp.uint32(seed)), config)
    train, held = ref.training_rows(stored, 5, seed)
    assert len(train) == 4 * len(held) == stored // 5 * 4

    target = ref.targets(cell, *(np.float64(v) for v in (rows.obs, rows.next_obs, rows.reward)))
    mean, std = ref.statistics(target[train])
    np.testing.assert_allclose(got.target.mean, mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(got.target.std, std, rtol=1e-5)
    assert std[1] == 0
    assert bool(got.target.constant[1])
    mean_in, std_in = ref.statistics(np.float64(np.hstack([rows.obs, rows.action]))[train])
    np.testing.assert_allclose(got.input.mean, mean_in, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(got.input.std, std_in, rtol=1e-5)
    change = ref.statistics(ref.targets("residual", rows.obs, rows.next_obs, rows.reward)[train])[1]
    np.testing.assert_allclose(got.change, change, rtol=1e-4)
    assert int(got.rows) == len(train)

    ours = model_target(cell, True, rows)
    np.testing.assert_allclose(ours, target, rtol=1e-5, atol=1e-6)
    z = got.target.to_unit(ours)
    np.testing.assert_allclose(z, ref.standardise(target, mean, std), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(got.target.from_unit(z), target, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(
        next_obs_of(cell, jnp.asarray(rows.obs), jnp.asarray(ours[:, :OBS])), rows.next_obs,
        atol=1e-5,
    )  # fmt: skip


def test_an_innovation_is_what_a_channels_own_last_value_does_not_say():
    """Slopes by least squares in float64: slow and far from 0, fading, noise, turning, growing."""
    rng, slopes = np.random.default_rng(0), np.array([0.9999, 0.5, 0.0, -0.6, 1.3, 1.0])
    obs = rng.normal(size=(2_000, 6)) * [3, 1, 1e4, 1e-4, 1, 0] + [500, 0, 0, 0, 0, 0.7]
    noise = rng.normal(size=obs.shape) * [0.03, 1, 1e4, 1e-4, 0.1, 0]
    rows = transitions(2_000, 6)._replace(
        obs=obs.astype(np.float32), next_obs=(slopes * obs + noise).astype(np.float32)
    )
    config = config_of(target="innovation", scale="unit", holdout_every=5)
    ring, split = filled(rows), Split(5, jnp.uint32(3))
    got = np.float64(measure_reversion(ring, split, config))
    train, _ = ref.training_rows(2_000, 5, 3)
    s, change = (np.float64(x[train]) for x in (rows.obs, rows.next_obs - rows.obs))
    s, change = s - s.mean(axis=0), change - change.mean(axis=0)
    square = (s**2).sum(axis=0)
    want = -(s * change).sum(axis=0) / np.where(square > 0, square, 1.0)
    np.testing.assert_allclose(got[:4], want[:4], rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(1 - got[:4], slopes[:4], atol=0.06)
    assert want[4] < 0 == got[4], "a slope above 1 would make branches grow by themselves"
    assert got[5] == 0, "a constant channel is a residual"

    statistics = measure(ring, split, config)
    np.testing.assert_array_equal(statistics.reversion, np.float32(got))
    target = model_target("innovation", True, rows, statistics.reversion)
    direct = np.float64(rows.next_obs) - (1 - got) * np.float64(rows.obs)
    size = np.abs(rows.next_obs).max(axis=0)  # of each channel: eight orders of magnitude
    assert (np.abs(target[:, :6] - direct) <= 1e-6 * size).all()
    # Never larger than the smaller of the two it stands between.
    least = np.minimum((rows.next_obs - rows.obs)[train].std(axis=0), rows.next_obs[train].std(0))
    assert (np.asarray(statistics.target.std[:6]) <= 1.001 * least).all()
    back = next_obs_of("innovation", jnp.asarray(rows.obs), target[:, :6], statistics.reversion)
    assert (np.abs(back - rows.next_obs) <= 1e-6 * size).all()


@pytest.mark.parametrize(("cell", "scale"), CELLS)
def test_predictions_in_physical_units(cell, scale):
    config = config_of(target=cell, scale=scale)
    rows = transitions(60, OBS, ACT, seed=4)
    state = dyn.init(jax.random.key(0), OBS, ACT, config)
    statistics = measure(filled(rows), Split(5, jnp.uint32(1)), config)
    state = dataclasses.replace(state, ensemble=make(config), statistics=statistics)
    got = dyn.predict(state, jnp.asarray(rows.obs), jnp.asarray(rows.action), config)

    s = statistics
    x = ref.standardise(np.float64(model_input(rows)), np.float64(s.input.mean),
                        np.float64(s.input.std))  # fmt: skip
    low, high = bounds_of(state.ensemble)
    mean, logvar = ref.gaussians(members_of(state.ensemble), [x] * MEMBERS, low, high)
    std = np.exp(logvar / 2)
    if scale == "unit":
        mean = ref.physical(mean, np.float64(s.target.mean), np.float64(s.target.std))
        std = std * np.float64(s.target.std)
    if cell == "residual":
        mean[..., :OBS] += rows.obs
    np.testing.assert_allclose(got.mean, mean, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(got.std, std, rtol=1e-4)


@pytest.mark.parametrize(("cell", "scale"), [("residual", "raw"), ("direct", "unit")])
def test_one_fit_update(cell, scale):
    """Rows, units, loss and Adam together: the update that a refit of one step makes."""
    config = config_of(target=cell, scale=scale, max_updates=1, check_every=1, member_data="shared")
    rows = transitions(50, OBS, ACT, seed=5)
    ring, seed, key = filled(rows), jnp.uint32(9), jax.random.key(3)
    state = dyn.init(jax.random.key(1), OBS, ACT, config)
    state = dataclasses.replace(state, ensemble=make(config))
    fitted, metrics = jax.jit(lambda s: fitting.fit(s, ring, seed, key, config))(state)

    train, held = ref.training_rows(50, 5, 9)
    # Which training rows the update drew is data here; that they are the drawn ones is not.
    _, loop_key = jax.random.split(key)
    drawn = jax.random.randint(jax.random.fold_in(loop_key, 0), (ROWS,), 0, len(train))
    target = ref.targets(cell, *(np.float64(v) for v in (rows.obs, rows.next_obs, rows.reward)))
    inputs = np.float64(np.hstack([rows.obs, rows.action]))
    mean_in, std_in = ref.statistics(inputs[train])
    mean, std = ref.statistics(target[train])
    if scale == "raw":
        mean, std = np.zeros_like(mean), np.ones_like(std)
    x, z = ref.standardise(inputs, mean_in, std_in), ref.standardise(target, mean, std)
    batch = train[np.asarray(drawn)]
    low, high = bounds_of(state.ensemble)
    xs, zs = [x[batch]] * MEMBERS, [z[batch]] * MEMBERS

    def loss(members):
        return ref.ensemble_loss(members, low, high, xs, zs, config.weight_decay)

    start = members_of(state.ensemble)
    np.testing.assert_allclose(metrics["model/train_loss_nats"], loss(start), rtol=1e-4)
    slopes = ref.gradient(loss, start)
    wanted = ref.Adam(config.learning_rate)(start, slopes)
    # Adam's first step is the gradient's sign: compare where that is not rounding.
    clear = np.abs(ref.flat(slopes)) > 1e-5
    assert clear.mean() > 0.9
    ours = ref.flat(members_of(fitted.ensemble))
    np.testing.assert_allclose(ours[clear], ref.flat(wanted)[clear], atol=1e-6)

    # Elites: lowest holdout error in the units of training, mean over rows and outputs.
    guess, _ = ref.gaussians(members_of(fitted.ensemble), [x[held]] * MEMBERS, low, high)
    score = ((guess - z[held]) ** 2).mean(axis=(1, 2))
    np.testing.assert_array_equal(fitted.elites, np.argsort(score)[: config.elites])


def test_holdout_scores_raw_unit_and_likelihood():
    for name in ("raw", "unit", "nll"):
        config = config_of(target="direct", scale="unit", holdout_score=name)
        rows = transitions(100, OBS, ACT, seed=6)
        ring, split = filled(rows), Split(5, jnp.uint32(2))
        net, unit = make(config), measure(ring, split, config)
        got = fitting.holdout_score(net, ring, split, unit, config)
        _, held = ref.training_rows(100, 5, 2)
        target = ref.targets("direct", *(np.float64(v[held]) for v in
                                         (rows.obs, rows.next_obs, rows.reward)))  # fmt: skip
        mean, std = np.float64(unit.target.mean), np.float64(unit.target.std)
        x = ref.standardise(np.float64(model_input(rows))[held], np.float64(unit.input.mean),
                            np.float64(unit.input.std))  # fmt: skip
        guess, logvar = ref.gaussians(members_of(net), [x] * MEMBERS, *bounds_of(net))
        z = ref.standardise(target, mean, std)
        wanted = {
            "raw": ((ref.physical(guess, mean, std) - target) ** 2).mean(axis=(1, 2)),
            "unit": ((guess - z) ** 2).mean(axis=(1, 2)),
            "nll": ((guess - z) ** 2 * np.exp(-logvar) + logvar).mean(axis=(1, 2)),
        }[name]
        np.testing.assert_allclose(got, wanted, rtol=1e-4)


@pytest.mark.parametrize(("cell", "scale"), [("residual", "raw"), ("direct", "unit")])
def test_the_report_on_held_out_rows(cell, scale):
    """What is said of the reward and of the next state, from the elites' predictions alone."""
    config = config_of(target=cell, scale=scale)
    rows = transitions(100, OBS, ACT, seed=7)
    ring, split = filled(rows), Split(5, jnp.uint32(4))
    state = dyn.init(jax.random.key(0), OBS, ACT, config)
    elites = np.array([2, 0])
    state = dataclasses.replace(
        state, ensemble=make(config), statistics=measure(ring, split, config),
        elites=jnp.asarray(elites, jnp.int32),
    )  # fmt: skip
    report = jax.jit(lambda s: holdout_report(s, ring, split, config))(state)
    got = {name: float(value) for name, value in report.items()}

    _, held = ref.training_rows(100, 5, 4)
    obs, action, reward, next_obs = (np.float64(v[held]) for v in rows[:4])
    said = dyn.predict(state, jnp.float32(obs), jnp.float32(action), config)
    said = np.float64(said.mean)[elites]
    variance = ((reward - reward.mean()) ** 2).mean()
    each, mean = said[..., -1], said[..., -1].mean(axis=0)
    error = (said[..., :OBS].mean(axis=0) - next_obs) ** 2
    still = (obs - next_obs) ** 2
    std = np.float64(state.statistics.target.std)
    wanted = {
        "model/reward_r2": 1 - ((each - reward) ** 2).mean() / variance,
        "model/reward_r2_averaged": 1 - ((mean - reward) ** 2).mean() / variance,
        "model/reward_bias_reward": mean.mean() - reward.mean(),
        "model/skill_over_persistence": np.median(1 - error.sum(axis=0) / still.sum(axis=0)),
        "model/disagreement_unit": (said.std(axis=0) / std).mean(),
    }
    assert wanted["model/reward_r2"] < wanted["model/reward_r2_averaged"]
    for name, value in wanted.items():
        np.testing.assert_allclose(got[name], value, rtol=1e-3, err_msg=name)


@pytest.mark.parametrize("schedule", [(20, 150, 1, 15), (0, 7, 1, 2), (5, 9, 4, 1), (3, 4, 2, 2)])
def test_length_schedule_and_retention(schedule):
    schedule = (schedule[0] * 100, schedule[1] * 100, *schedule[2:])
    config = tiny("mbpo", rollouts__length=schedule)
    steps = jnp.arange(0, schedule[1] + 300, 7, dtype=jnp.int32)
    wanted = [ref.rollout_length(int(t), *schedule) for t in steps]
    got = jax.vmap(lambda t: length_at(t, config))(steps)
    # The small allowance for rounding may move a switch forward by one part in ten thousand.
    assert np.mean(np.asarray(got) == wanted) > 0.99
    assert set(np.unique(got)) == set(np.unique(wanted))
    assert config.rollouts is not None
    kept = jax.vmap(lambda t: kept_rows(t, config))(steps)
    rows = [
        ref.kept_rows(int(t), schedule, config.rollouts.per_step, config.rollouts.retention_steps)
        for t in steps
    ]
    assert np.mean(np.asarray(kept) == rows) > 0.99
    assert max(rows) <= config.rollouts.capacity_rows
    assert rings.empty(config.rollouts.capacity_rows, 1, 1).capacity == max(rows)
