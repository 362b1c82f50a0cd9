"""One thing poisoned in a learner that runs: exactly that is told, with its update and step."""

import dataclasses
import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ftfl import config as cfg
from ftfl import nets, replay, sac
from ftfl.envs.make import make_env
from ftfl.store.metrics_file import read_metrics, series
from ftfl.store.rundir import RunDir
from ftfl.training import alarms as memory
from ftfl.training import sentinels
from ftfl.training import state as run_state
from ftfl.training.learn import make_learner
from ftfl.training.loop import Loop
from ftfl.training.state import Stream, stream_key
from helpers import filled, spec, tiny, transitions

pytestmark = pytest.mark.usefixtures("quick_compiles")

ROWS, STEPS = 60, 100
UPDATES = 2  # per learn step
PATIENCE = 50  # updates: five memories of a target network with τ = 0.1
ACT = 2
NAN_AT, HUGE_AT = 10_002, 20_002


class Poisoned(nets.Optimiser):
    """Adam whose gradients are bad when its own count of steps says so."""

    def step(self, params, grads, state):
        leaves, structure = jax.tree.flatten(grads)
        count = state[0].count
        first = jnp.where(count == NAN_AT, jnp.nan, jnp.where(count == HUGE_AT, 1e30, leaves[0]))
        return super().step(params, jax.tree.unflatten(structure, [first, *leaves[1:]]), state)


@functools.cache
def prepared(algo):
    """A learner whose agent's optimisers can be poisoned, and its configuration."""
    config = tiny(algo, sac__target_update_rate=0.1)
    learner = make_learner(config, spec(act_dim=ACT))
    return learner, config


@pytest.fixture
def begin(monkeypatch):
    """A learner and its state after ``ROWS`` transitions, before the first refit and update."""
    monkeypatch.setattr(sac, "Optimiser", Poisoned)

    def make(algo):
        learner, config = prepared(algo)
        state = run_state.init(config, spec(act_dim=ACT))
        rows = transitions(ROWS, act_dim=ACT, terminated=0.0)
        state = dataclasses.replace(
            state,
            real=filled(rows, STEPS),
            env_steps=jnp.int32(ROWS),
            alarms=sentinels.see_rewards(state.alarms, jnp.asarray(rows.reward)),
        )
        return learner, state

    return make


def told(state):
    return [(f.name, f.first_update, f.first_env_step) for f in memory.report(state.alarms)]


def learn(learner, state, times=1):
    """Learn steps, each after one more environment step."""
    for _ in range(times):
        state, _ = learner.learn(state)
        state = dataclasses.replace(state, env_steps=state.env_steps + 1)
    return state


def first_update_that_samples(state, slot):
    """Of SAC on these rows, by the keys that it will use."""
    config = prepared("sac")[1]
    for step in range(20):
        _, update_key = jax.random.split(stream_key(state.key, Stream.LEARN, step))
        for i, key in enumerate(jax.random.split(update_key, UPDATES)):
            batch_key, _ = jax.random.split(key)
            slots = replay.sample_slots(state.real, batch_key, config.sac.batch_size)
            if slot in np.asarray(slots):
                return step * UPDATES + i + 1
    raise LookupError(slot)


# --- the agent -----------------------------------------------------------------------------------


def test_a_healthy_learner_is_told_nothing(begin):
    learner, state = begin("sac")
    state = learn(learner, state, PATIENCE)
    assert told(state) == []
    assert int(state.agent.updates) == PATIENCE * UPDATES


@pytest.mark.parametrize(
    ("field", "value", "name"),
    [
        ("obs", np.nan, "replay_rows"),
        ("next_obs", np.inf, "replay_rows"),
        ("action", np.nan, "replay_rows"),
        ("reward", np.nan, "rewards"),
        ("reward", -np.inf, "rewards"),
        ("reward", 1e25, "critic_loss"),  # finite, but not its square
    ],
)
def test_one_poisoned_row_is_told_at_the_first_update_that_samples_it(begin, field, value, name):
    learner, state = begin("sac")
    slot = 17
    rows = state.real.rows
    poisoned = getattr(rows, field).at[slot].set(value)
    real = dataclasses.replace(state.real, rows=rows._replace(**{field: poisoned}))
    state = dataclasses.replace(state, real=real)
    update = first_update_that_samples(state, slot)
    step = (update - 1) // UPDATES
    state = learn(learner, state, step)
    assert told(state) == []
    state = learn(learner, state, 3)
    assert told(state) == [(name, update, ROWS + step)]


@pytest.mark.parametrize(
    ("place", "name", "update"),
    [
        (lambda a: a.actor.layers[1].weight, "actor_parameters", 4),
        (lambda a: a.critic.layers[0].weight, "critic_parameters", 4),
        (lambda a: a.target_critic.layers[2].bias, "critic_target", 5),
        (lambda a: a.log_temperature, "temperature", 4),
    ],
)
def test_one_poisoned_parameter_is_told_before_what_it_spoils(begin, place, name, update):
    learner, state = begin("sac")
    state = learn(learner, state, 2)
    leaf = place(state.agent)
    agent = eqx.tree_at(place, state.agent, leaf.at[(0,) * leaf.ndim].set(jnp.nan))
    state = learn(learner, dataclasses.replace(state, agent=agent), 2)
    assert told(state) == [(name, update, ROWS + 2)]
    assert memory.fatal(state.alarms)


@pytest.mark.parametrize("update", [3, 4])  # the first and the last of the second learn step
@pytest.mark.parametrize(
    ("optimiser", "name"),
    [
        ("critic_optimiser", "critic_parameters"),
        ("actor_optimiser", "actor_parameters"),
        ("temperature_optimiser", "temperature"),
    ],
)
def test_one_poisoned_gradient_is_told_at_its_update(begin, optimiser, name, update):
    learner, state = begin("sac")
    state = counting(state, optimiser, NAN_AT + 1 - update)
    state = learn(learner, state)
    assert told(state) == []
    state = learn(learner, state)
    assert told(state) == [(name, update, ROWS + 1)]
    state = learn(learner, state, 2)
    assert told(state) == [(name, update, ROWS + 1)]


@pytest.mark.parametrize(
    ("optimiser", "name"),
    [("critic_optimiser", "critic_parameters"), ("actor_optimiser", "actor_parameters")],
)
def test_a_gradient_whose_square_overflows_is_told_although_nothing_shows(begin, optimiser, name):
    """The parameters stay finite and never move again; other codes train on in silence."""
    learner, state = begin("sac")
    state = learn(learner, counting(state, optimiser, HUGE_AT - 2), 2)
    assert told(state) == [(name, 4, ROWS + 1)]
    networks = (state.agent.actor, state.agent.critic)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(networks))


def counting(state, optimiser, count):
    """The state with one optimiser's count of steps moved."""
    place = lambda a: getattr(a, optimiser)[0].count  # noqa: E731
    return dataclasses.replace(state, agent=eqx.tree_at(place, state.agent, jnp.int32(count)))


def test_values_that_no_reward_explains_are_told(begin):
    learner, state = begin("sac")
    state = learn(learner, state)
    places = [lambda a: a.critic.layers[-1].bias, lambda a: a.target_critic.layers[-1].bias]
    agent = state.agent
    for place in places:
        agent = eqx.tree_at(place, agent, place(agent) + 1e5)
    state = learn(learner, dataclasses.replace(state, agent=agent), PATIENCE // UPDATES - 1)
    assert told(state) == []
    state = learn(learner, state)
    assert told(state) == [("q_values", UPDATES + 1, ROWS + 1)]
    assert not memory.fatal(state.alarms)


def test_an_agent_that_explores_no_more_is_told(begin):
    learner, state = begin("sac")
    head = state.agent.actor.layers[-1]
    still = jnp.zeros_like(head.weight), head.bias.at[ACT:].set(-20.0)  # e⁻¹⁰, whatever it sees
    agent = eqx.tree_at(
        lambda a: (a.actor.layers[-1].weight, a.actor.layers[-1].bias), state.agent, still
    )
    state = learn(learner, dataclasses.replace(state, agent=agent), PATIENCE // UPDATES)
    assert told(state) == [("entropy", 1, ROWS)]


# --- the model -----------------------------------------------------------------------------------


def spoil(dynamics, member, value=jnp.nan, moments=False):
    """One value of one member's second layer, or of its second moments."""
    if moments:
        place = lambda d: d.optimiser[0].nu.trunks[0].layers[1].weight  # noqa: E731
    else:
        place = lambda d: d.ensemble.trunks[0].layers[1].weight  # noqa: E731
    return eqx.tree_at(place, dynamics, place(dynamics).at[member, 0, 0].set(value))


@pytest.mark.parametrize("moments", [False, True])
@pytest.mark.parametrize("member", [0, 2])
def test_a_dead_member_is_told_is_no_elite_and_lives_again(begin, member, moments):
    learner, state = begin("ftfl")
    state, _ = learner.fit(state)
    assert told(state) == []
    state = dataclasses.replace(
        state, dynamics=spoil(state.dynamics, member, jnp.inf if moments else jnp.nan, moments)
    )
    state, metrics = learner.fit(state)
    assert told(state) == [("dead_member", 2, ROWS)]
    assert float(metrics["model/dead_members_count"]) == 1
    assert float(metrics["model/renewed_members_count"]) == 1
    assert member not in np.asarray(state.dynamics.elites)
    trained = (state.dynamics.ensemble, state.dynamics.optimiser)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(trained))
    for leaf in jax.tree.leaves(state.dynamics.optimiser[0].nu.trunks):
        assert not np.asarray(leaf)[member].any()
    before = np.asarray(state.dynamics.ensemble.trunks[0].layers[1].weight)[member]
    state, metrics = learner.fit(state)
    assert float(metrics["model/dead_members_count"]) == 0
    after = np.asarray(state.dynamics.ensemble.trunks[0].layers[1].weight)[member]
    assert np.abs(after - before).max() > 1e-4  # it learns
    assert memory.report(state.alarms)[0].count == 1


def test_a_model_without_a_living_member_is_fatal(begin):
    learner, state = begin("ftfl")
    for member in range(3):
        state = dataclasses.replace(state, dynamics=spoil(state.dynamics, member))
    state, _ = learner.fit(state)
    assert told(state) == [("model_loss", 1, ROWS)]
    assert memory.fatal(state.alarms)


@pytest.mark.parametrize(
    ("value", "name", "metric"),
    [
        (np.nan, "nonfinite_rows", "rollout/nonfinite_rows_count"),
        (1e8, "absurd_rows", "rollout/absurd_rows_count"),
    ],
)
def test_an_elite_that_raves_is_told_by_its_rows(begin, value, name, metric):
    learner, state = begin("ftfl")
    state, _ = learner.fit(state)
    state = learn(learner, state)
    assert told(state) == []
    place = lambda d: d.ensemble.trunks[0].layers[-1].bias  # noqa: E731
    elite = int(state.dynamics.elites[0])
    raving = eqx.tree_at(place, state.dynamics, place(state.dynamics).at[elite, 0].set(value))
    state, metrics = learner.learn(dataclasses.replace(state, dynamics=raving))
    assert told(state)[0] == (name, UPDATES, ROWS + 1)
    assert memory.report(state.alarms)[0].count == float(metrics[metric]) > 0


# --- whole runs ----------------------------------------------------------------------------------


@pytest.mark.parametrize("algo", ["sac", "mbpo", "ftfl"])
def test_a_healthy_run_raises_nothing(algo, tmp_path):
    task = "envs_for_tests:make_lqr"
    config = tiny(algo, task, steps=300, sac__target_update_rate=0.05)
    run_dir = RunDir.create(tmp_path / "run", cfg.to_dict(config), {})
    loop = Loop(config, make_env(task), make_env(task), run_dir)
    loop.run()
    assert told(loop.state) == []
    records = read_metrics(run_dir.metrics_path)
    for name in ("sentinel/fatal_count", "sentinel/warnings_count"):
        assert series(records, name)[1].tolist() == [0] * len(series(records, name)[1])
    ratio = (
        series(records, "agent/q_max_abs_scaled")[1] / series(records, "agent/q_bound_scaled")[1]
    )
    assert 0 < ratio.max() < 1.5
    assert float(loop.state.alarms.largest_reward) == np.abs(loop.state.real.rows.reward).max()
    if algo != "sac":
        assert series(records, "model/dead_members_count")[1].sum() == 0
