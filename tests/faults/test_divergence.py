"""Learning that stops being finite: noticed at once, never saved, and dealt with as asked."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from runs import SIMULATED, StopAt, create, go_on, learner, records

from ftfl.envs.make import make_env
from ftfl.errors import FtflError
from ftfl.store.checkpoint import latest_valid
from ftfl.training.alarms import Quantity
from ftfl.training.loop import Loop
from helpers import tiny

pytestmark = pytest.mark.usefixtures("quick_compiles")


def run(path, poisoned_learn_steps, **changes):
    """A run whose temperature becomes NaN before the learn steps of these numbers, counted on."""
    config = tiny("sac", SIMULATED, checkpoint_every=25, log_every=10, **changes)
    run_dir = create(path, config)
    loop = Loop(config, make_env(SIMULATED), make_env(SIMULATED), run_dir)
    healthy, calls = learner(config, loop.env.spec), []

    def learn(state):
        calls.append(None)
        if len(calls) in poisoned_learn_steps:
            agent = dataclasses.replace(state.agent, log_temperature=jnp.float32(np.nan))
            state = dataclasses.replace(state, agent=agent)
        return healthy.learn(state)

    loop.seat.learner = dataclasses.replace(healthy, learn=learn)
    return loop


def finite(tree):
    return all(np.isfinite(x).all() for x in jax.tree.leaves(tree) if x.dtype == jnp.float32)


def test_by_default_the_run_stops_at_once_and_nothing_bad_is_saved(tmp_path):
    loop = run(tmp_path / "run", {20})
    with pytest.raises(FtflError, match=r"diverged: .*env step 59.*checkpoint is at step 50"):
        loop.run()
    assert loop.progress.env_steps == 59
    assert latest_valid(loop.run_dir.checkpoints_path)[0].step == 50
    # With its cause removed the run goes on from there.
    again = go_on(tmp_path / "run")
    assert finite(again.state.agent)
    assert again.progress.env_steps == 100


def test_rolling_back_goes_on_from_the_last_good_checkpoint_with_other_randomness(tmp_path):
    loop = run(tmp_path / "run", {20}, on_divergence="roll_back")
    loop.run()
    assert finite(loop.state.agent)
    assert loop.progress.env_steps == 100
    (event,) = loop.run_dir.read_history()
    assert (event["event"], event["from"], event["to"]) == ("rolled back", 59, 50)
    steps = [r["env_steps"] for r in records(tmp_path / "run") if "agent/updates_count" in r]
    assert steps == list(range(10, 101, 10)), "records are doubled or lost"
    healthy = go_on_healthy(tmp_path)
    assert np.array_equal(loop.state.real.rows.obs[:50], healthy.state.real.rows.obs[:50])
    assert not np.array_equal(loop.state.real.rows.obs[51:], healthy.state.real.rows.obs[51:])


def go_on_healthy(tmp_path):
    create(tmp_path / "healthy", tiny("sac", SIMULATED))
    return go_on(tmp_path / "healthy")


def test_rolling_back_again_and_again_ends(tmp_path):
    loop = run(tmp_path / "run", range(20, 1000), on_divergence="roll_back")
    with pytest.raises(FtflError, match=r"It came back 3 times after rolling back; .*at step 50"):
        loop.run()
    assert len(loop.run_dir.read_history()) == 3


def test_where_asked_the_run_goes_on_and_says_so(tmp_path):
    loop = run(tmp_path / "run", (), on_divergence="continue")
    alarms = loop.state.alarms
    record = alarms.record.at[Quantity.MODEL_LOSS].set(jnp.array([1, 40, 1], jnp.int32))
    alarms = dataclasses.replace(alarms, record=record)
    loop.seat.state = dataclasses.replace(loop.state, alarms=alarms)
    loop.run()
    assert loop.progress.env_steps == 100
    assert "training loss was not finite" in loop.run_dir.read_status()["message"]


def test_no_run_goes_on_with_actions_that_are_not_finite(tmp_path):
    loop = run(tmp_path / "run", {20}, on_divergence="continue")
    with pytest.raises(FtflError, match=r"the action is not finite.*checkpoint is at step 50"):
        loop.run()
    assert loop.run_dir.read_faults() == [], "it was not the environment's doing"


def test_what_diverged_is_not_saved_when_a_signal_asks_at_that_moment(tmp_path):
    loop = run(tmp_path / "run", {20})
    loop.stop = StopAt(59)
    loop.stop.loop = loop
    with pytest.raises(FtflError, match="diverged"):
        loop.run()
    assert latest_valid(loop.run_dir.checkpoints_path)[0].step == 50
