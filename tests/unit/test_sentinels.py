"""Sentinels on numbers made by hand: what is raised, when, in which words, and what is not."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ftfl import sac
from ftfl.config import DynamicsConfig
from ftfl.store.segments import Stored
from ftfl.training import alarms as memory
from ftfl.training import sentinels
from ftfl.training import state as run_state
from ftfl.training.alarms import Quantity
from helpers import equal_bits, spec, tiny

pytestmark = pytest.mark.usefixtures("quick_compiles")

UPDATES = 4
PATIENCE = 50  # updates: five memories of a target network with τ = 0.1
CONFIG = tiny("sac", sac__target_update_rate=0.1, sac__updates_per_step=UPDATES)
GAMMA, TAU = CONFIG.sac.discount, CONFIG.sac.target_update_rate
QUIET = {
    "agent/critic_loss": 1.0, "agent/actor_loss": 1.0, "agent/temperature": 0.5,
    "agent/entropy_nats": -0.5, "agent/q_mean_scaled": 0.0, "agent/target_q_mean_scaled": 0.0,
    "agent/q_max_abs_scaled": 1.0,
}  # fmt: skip


@jax.jit
def look(alarms, before, after, bad_batch, per_update, env_steps):
    """``check_updates``, compiled once for all tests."""
    return sentinels.check_updates(
        alarms, before, after, bad_batch, per_update, env_steps, 1, CONFIG
    )


@functools.cache
def fresh():
    """The agent before its first update."""
    return sac.init(jax.random.key(0), 3, 1, CONFIG.sac)


class Agent:
    """Learn steps without learning: the agent's metrics are what a test says they are."""

    def __init__(self, reward=0.0):
        self.state = fresh()
        self.alarms = sentinels.see_rewards(memory.init(), jnp.float32(reward))
        self.env_steps = 100

    def step(self, bad_batch=None, **values):
        """One learn step; a value is for all its updates, or a list of one for each."""
        quiet = QUIET | {f"agent/{name}": value for name, value in values.items()}
        per_update = {k: jnp.broadcast_to(jnp.float32(v), UPDATES) for k, v in quiet.items()}
        bad = np.zeros((UPDATES, 2), bool) if bad_batch is None else bad_batch
        after = dataclasses.replace(self.state, updates=self.state.updates + UPDATES)
        self.alarms, metrics = look(
            self.alarms, self.state, after, jnp.asarray(bad), per_update,
            jnp.int32(self.env_steps),
        )  # fmt: skip
        self.bound = float(metrics["agent/q_bound_scaled"])
        self.state = after
        self.env_steps += 1

    @property
    def told(self):
        return [(f.name, f.first_update, f.first_env_step) for f in memory.report(self.alarms)]


def at(update, value=np.nan, quiet=1.0):
    """Per-update values of which one (from 1) is bad."""
    return [value if i == update else quiet for i in range(1, UPDATES + 1)]


# --- what is not finite --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "name", "update"),
    [
        ({"target_q_mean_scaled": at(3)}, "critic_target", 7),
        ({"critic_loss": at(2, np.inf)}, "critic_loss", 6),
        ({"q_mean_scaled": at(3)}, "critic_parameters", 6),  # update 2 of the step left them so
        ({"actor_loss": at(1, -np.inf)}, "actor_loss", 5),
        ({"entropy_nats": at(1)}, "actor_parameters", 4),  # they were so before the step
        ({"temperature": at(4)}, "temperature", 8),
    ],
)
def test_each_quantity_is_told_with_its_update_and_step(values, name, update):
    agent = Agent()
    agent.step()
    assert not memory.fatal(agent.alarms)
    agent.step(**values)
    assert agent.told == [(name, update, 101)]
    assert memory.fatal(agent.alarms)


@pytest.mark.parametrize(
    ("column", "name", "not_yet"),
    [(0, "replay_rows", ()), (1, "rewards", ("q_mean_scaled", "entropy_nats", "temperature"))],
)
def test_a_bad_batch_is_blamed_before_all_that_is_computed_from_it(column, name, not_yet):
    agent, bad = Agent(), np.zeros((UPDATES, 2), bool)
    bad[1, column] = True
    ruined = {k.removeprefix("agent/"): [1.0, np.nan, np.nan, np.nan] for k in QUIET}
    # A reward reaches the parameters, and with them these, in the next update.
    ruined |= {k: [1.0, 1.0, np.nan, np.nan] for k in not_yet}
    agent.step(bad, **ruined)
    assert agent.told == [(name, 2, 100)]
    agent.step(**dict.fromkeys(ruined, np.nan))
    assert agent.told == [(name, 2, 100)]  # the rest follows from it


def test_the_earliest_moment_wins_and_then_the_order_of_computation():
    """Against every pair of the agent's quantities, at every pair of moments."""
    first, size = Quantity.REPLAY_ROWS, 8
    note = jax.jit(memory.note_first, static_argnums=1)
    for (a, m), (b, n) in itertools.product(itertools.product((0, 3, 7), (0, 2)), repeat=2):
        bad = np.zeros((size, 3), bool)
        bad[a, m] = bad[b, n] = True
        alarms = note(memory.init(), first, jnp.asarray(bad), jnp.int32(10), jnp.int32(7))
        _, place = min((m, a), (n, b))
        (finding,) = memory.report(alarms)
        assert finding.name == Quantity(first + place).name.lower()
        assert (finding.first_update, finding.first_env_step) == (10 + min(m, n), 7)
        assert finding.count == bad[place].sum()


def test_an_overflown_square_is_told_although_all_values_are_finite():
    """Adam's step is then g/∞ = 0: finite parameters that never move again."""
    agent = Agent()
    bias = agent.state.critic_optimiser[0].nu.layers[0].bias
    nu = jax.tree.map(
        lambda x: x.at[0, 1].set(jnp.inf) if x is bias else x, agent.state.critic_optimiser[0].nu
    )
    head = agent.state.critic_optimiser[0]._replace(nu=nu)
    agent.state = dataclasses.replace(
        agent.state, critic_optimiser=(head, *agent.state.critic_optimiser[1:])
    )
    agent.step()
    assert agent.told == [("critic_parameters", UPDATES, 100)]


# --- the bound of Q ------------------------------------------------------------------------------


def test_the_bound_is_the_recursion_in_its_docstring():
    agent = Agent(reward=-3.0)
    agent.state = dataclasses.replace(agent.state, log_temperature=jnp.log(jnp.float32(0.5)))
    value = 7.0
    for entropy, first in ((-2.0, value), (0.3, 90.0)):
        agent.step(q_max_abs_scaled=[first, 90.0, 90.0, 90.0], entropy_nats=entropy)
        bonus = 0.5 * max(np.log(2), -entropy)
        for _ in range(UPDATES):
            value = (1 - TAU) * value + TAU * GAMMA * (value + bonus)
        wanted = 3.0 / (1 - GAMMA) + GAMMA * (value + bonus)
        np.testing.assert_allclose(agent.bound, wanted, rtol=1e-5)


def test_the_bound_holds_for_the_best_and_the_worst_soft_values():
    """One state, reward ±1 for ever, the uniform policy or a saturated one, at temperature 1."""
    for reward, entropy in ((1.0, np.log(2)), (-1.0, -5.0)):
        value = target = 0.0
        agent = Agent(reward)
        agent.state = dataclasses.replace(agent.state, log_temperature=jnp.float32(0))
        for _ in range(300):
            for _ in range(UPDATES):
                value = reward + GAMMA * (target + entropy)
                target = (1 - TAU) * target + TAU * value
            agent.step(temperature=1.0, entropy_nats=entropy, q_max_abs_scaled=abs(value))
            assert abs(value) <= agent.bound * (1 + 1e-5)
        assert abs(value) > 0.6 * agent.bound  # and it is not empty
        assert agent.told == []


def test_a_saturated_start_explains_values_below_all_rewards():
    """As on dmc/walker-run: the first targets are r + γ (Q̄ − 41), with rewards of 0.1."""
    agent = Agent(reward=0.1)
    agent.step(entropy_nats=-41.0, temperature=1.0, q_max_abs_scaled=[5.0, 20.0, 30.0, 41.0])
    assert agent.bound > 41.0


def test_q_far_above_its_bound_is_told_only_if_it_lasts_and_is_dated_back():
    agent = Agent(reward=1.0)
    agent.step()
    wild = 3.0 * agent.bound
    for _ in range(PATIENCE // UPDATES):
        agent.step(q_max_abs_scaled=wild)
    agent.step()  # back in time: no alarm
    assert agent.told == []
    began = int(agent.state.updates)
    for _ in range(-(-PATIENCE // UPDATES) - 1):
        agent.step(q_max_abs_scaled=wild)
        assert agent.told == []
    agent.step(q_max_abs_scaled=wild)
    assert agent.told == [("q_values", began + 1, 100 + began // UPDATES)]
    assert memory.report(agent.alarms)[0].count == int(agent.state.updates) - began
    assert not memory.fatal(agent.alarms)
    agent.step(q_max_abs_scaled=wild)
    assert memory.report(agent.alarms)[0].count == int(agent.state.updates) - began


def test_q_below_twice_its_bound_is_never_told():
    agent = Agent(reward=1.0)
    for _ in range(PATIENCE):
        agent.step(q_max_abs_scaled=1.9 / (1 - GAMMA))
    assert agent.told == []


def test_what_fresh_networks_say_is_no_alarm_also_after_a_reset():
    agent = Agent(reward=1e-3)
    for _ in range(2):
        for _ in range(PATIENCE):
            agent.step(q_max_abs_scaled=50.0, temperature=1e-3)
        assert agent.told == []
        agent.alarms = sentinels.forget_agent(agent.alarms)


def test_a_bound_survives_what_is_not_finite():
    agent = Agent(reward=2.0)
    agent.step()
    before = agent.bound
    agent.alarms = sentinels.see_rewards(agent.alarms, jnp.array([np.nan, np.inf, 1.0]))
    agent.step(entropy_nats=np.nan, temperature=np.inf, q_max_abs_scaled=np.nan)
    agent.step()
    np.testing.assert_allclose(agent.bound, before, rtol=0.01)


def test_another_unit_of_reward_changes_no_bit_of_the_bound():
    reward = np.float32(-1.37)
    bounds = []
    for unit in (1.0, 2.0**-10):
        config = tiny("sac", task__reward_unit=unit)
        alarms = sentinels.see_rewards(memory.init(), jnp.float32(reward * np.float32(unit)))
        bounds.append(np.asarray(sentinels.q_bound(alarms, jnp.float32(0.1), config)))
    assert bounds[0].tobytes() == bounds[1].tobytes()
    np.testing.assert_allclose(bounds[0], 1.37 / (1 - GAMMA) + 0.1 * GAMMA, rtol=1e-6)


# --- entropy -------------------------------------------------------------------------------------


def test_entropy_far_below_its_target_is_told_only_if_it_lasts():
    agent = Agent(reward=1.0)
    for _ in range(PATIENCE // UPDATES):
        agent.step(entropy_nats=-5.6)
    assert agent.told == []  # a saturated start
    agent.step(entropy_nats=-5.6)
    assert agent.told == [("entropy", 1, 100)]


def test_entropy_below_its_target_by_less_is_never_told():
    agent = Agent(reward=1.0)
    for _ in range(PATIENCE):
        agent.step(entropy_nats=-5.4)
    assert agent.told == []


# --- the model and its rows ----------------------------------------------------------------------

MEMBERS = 3
HEALTHY = {
    "model/train_loss_nats": 1.0, "model/dead_members_count": 0.0,
    "model/renewed_members_count": 0.0, "model/renewed_shared_count": 0.0,
}  # fmt: skip


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({}, []),
        ({"dead_members_count": 1, "train_loss_nats": np.nan}, [("dead_member", "warning", 1)]),
        ({"dead_members_count": 2, "renewed_members_count": 2}, [("dead_member", "warning", 2)]),
        ({"dead_members_count": 3, "renewed_members_count": 3, "train_loss_nats": np.inf},
         [("model_loss", "fatal", 1)]),
        ({"dead_members_count": 3, "renewed_members_count": 3}, [("model_parameters", "fatal", 1)]),
        ({"dead_members_count": 3}, [("model_holdout", "fatal", 1)]),
        ({"renewed_shared_count": 1}, [("model_parameters", "fatal", 1)]),
    ],
)  # fmt: skip
def test_a_refit_is_fatal_only_if_no_member_or_no_shared_part_survives(values, told):
    metrics = HEALTHY | {f"model/{name}": value for name, value in values.items()}
    alarms = sentinels.check_refit(
        memory.init(), {k: jnp.float32(v) for k, v in metrics.items()}, jnp.int32(5),
        jnp.int32(1_250), DynamicsConfig(members=MEMBERS, elites=2),
    )  # fmt: skip
    found = memory.report(alarms)
    assert [(f.name, f.severity, f.count) for f in found] == told
    assert all((f.first_update, f.first_env_step) == (5, 1_250) for f in found)


def test_bad_synthetic_rows_are_counted_and_batches_that_were_not_due_are_not():
    alarms = memory.init()
    for step, (broken, absurd) in enumerate([(0, 0), (np.nan, np.nan), (3, 0), (2, 7)]):
        metrics = {"rollout/nonfinite_rows_count": jnp.float32(broken),
                   "rollout/absurd_rows_count": jnp.float32(absurd)}  # fmt: skip
        alarms = sentinels.check_rollouts(alarms, metrics, jnp.int32(20 * step), jnp.int32(step))
    assert [(f.name, f.first_env_step, f.count) for f in memory.report(alarms)] == [
        ("nonfinite_rows", 2, 5),
        ("absurd_rows", 3, 7),
    ]
    assert not memory.fatal(alarms)


# --- telling -------------------------------------------------------------------------------------


def raise_(alarms, quantity, update, step):
    one = jnp.ones(1, jnp.int32)
    return memory.note(alarms, quantity, one, update * one, step * one)


def test_findings_come_in_the_order_in_which_things_went_wrong():
    alarms = memory.init()
    for quantity, update, step in (
        (Quantity.CRITIC_LOSS, 12_345, 1_234),
        (Quantity.Q_VALUES, 9_000, 900),
        (Quantity.DEAD_MEMBER, 4, 1_234),  # a refit comes before the updates of its step
        (Quantity.NONFINITE_ROWS, 12_340, 1_234),
    ):
        alarms = raise_(alarms, quantity, update, step)
    found = memory.report(alarms)
    assert [f.name for f in found] == ["q_values", "dead_member", "nonfinite_rows", "critic_loss"]
    assert [f.severity for f in found] == ["warning"] * 3 + ["fatal"]
    assert found[-1].sentence.startswith(
        "the critic loss was not finite at agent update 12,345 (env step 1,234): "
    )
    assert "at refit 4 (env step 1,234): " in found[1].sentence
    assert [int(n) for n in memory.raised(alarms)] == [1, 3]


@pytest.mark.parametrize("quantity", list(Quantity), ids=lambda q: q.name)
def test_every_quantity_has_a_sentence_that_says_what_to_do(quantity):
    (finding,) = memory.report(raise_(memory.init(), quantity, 1, 2))
    what, _, advice = finding.sentence.partition(" (env step 2): ")
    assert len(what) > 30
    assert len(advice) > 20
    assert finding.sentence.endswith(".")
    assert finding.sentence.count(".  ") == 0
    assert memory.fatal(raise_(memory.init(), quantity, 1, 2)) == (finding.severity == "fatal")


def test_nothing_is_told_of_nothing():
    assert memory.report(memory.init()) == []
    assert not memory.fatal(memory.init())
    assert [int(n) for n in memory.raised(memory.init())] == [0, 0]


# --- checkpoints ---------------------------------------------------------------------------------


def restore(template, state, components, rows):
    table = run_state.real_rows(state, rows)
    stored = Stored(rows, table.read(0, rows))
    return run_state.from_components(template, components, stored)


def test_alarms_go_through_a_checkpoint_unchanged():
    template = run_state.init(CONFIG, spec(act_dim=1))
    alarms = raise_(template.alarms, Quantity.ENTROPY, 30, 10)
    alarms = sentinels.see_rewards(alarms, jnp.float32(-8.0))
    state = dataclasses.replace(template, alarms=alarms)
    restored = restore(template, state, run_state.to_components(state), 0)
    assert equal_bits(restored, state)
    assert not equal_bits(restored.alarms, template.alarms)


def test_a_checkpoint_without_alarms_gets_fresh_ones_that_know_its_rewards():
    template = run_state.init(CONFIG, spec(act_dim=1))
    rewards = template.real.rows.reward.at[:3].set(jnp.array([1.0, -4.0, 2.0]))
    real = dataclasses.replace(
        template.real, rows=template.real.rows._replace(reward=rewards), size=jnp.int32(3)
    )
    state = dataclasses.replace(template, real=real)
    components = run_state.to_components(state)
    del components["alarms"]
    restored = restore(template, state, components, 3)
    assert float(restored.alarms.largest_reward) == 4.0
    assert memory.report(restored.alarms) == []
