"""Each kind of agent learns a task whose optimum is known; fails if learning breaks anywhere."""

import json

import numpy as np
import pytest

import envs_for_tests
from ftfl import config as cfg
from ftfl import presets
from ftfl.envs.make import make_env
from ftfl.store.rundir import RunDir
from ftfl.training.evaluate import evaluate
from ftfl.training.loop import Loop

TASK = "envs_for_tests:make_lqr"
SMALL = {
    "steps": 600,
    "warmup_steps": 200,
    "eval_every": 10_000,
    "eval_episodes": 20,
    "log_every": 100,
    "checkpoint_every": 10_000,
    "sac.hidden": (32, 32),
    "sac.batch_size": 64,
    "sac.updates_per_step": 5,
    "sac.discount": 0.95,
    "sac.actor_learning_rate": 3e-3,
    "sac.critic_learning_rate": 3e-3,
    "sac.temperature_learning_rate": 3e-3,
    "sac.target_update_rate": 0.02,
    "sac.initial_temperature": 0.1,
    "sac.target_entropy": -2.0,
    "dynamics.members": 3,
    "dynamics.elites": 2,
    "dynamics.hidden": (32, 32),
    "dynamics.weight_decay": (2.5e-5, 5e-5, 1e-4),
    "dynamics.learning_rate": 3e-3,
    "dynamics.batch_size": 64,
    "dynamics.train_every": 100,
    "dynamics.max_updates": 300,
    "rollouts.per_step": 50,
    "rollouts.retention_steps": 100,
}


def returns(policy):
    """Mean return of a policy over the very episodes that a run is evaluated on."""
    return evaluate(make_env(TASK), policy, 0, SMALL["eval_episodes"]).returns.mean()


@pytest.fixture(scope="module")
def yardsticks():
    rng = np.random.default_rng(0)
    gain = envs_for_tests.best_gain()
    return (
        returns(lambda obs: rng.uniform(-1, 1, 1)),
        returns(lambda obs: np.zeros(1)),
        returns(lambda obs: -gain * obs),
    )


@pytest.mark.learn
@pytest.mark.parametrize("algo", ["sac", "mbpo", "ftfl"])
def test_agent_approaches_the_optimum(algo, yardsticks, tmp_path):
    changes = SMALL
    if algo == "sac":
        changes = {k: v for k, v in SMALL.items() if not k.startswith(("dynamics", "rollouts"))}
    config = presets.build(TASK, algo, "laptop", changes)
    run_dir = RunDir.create(tmp_path / "run", cfg.to_dict(config), {})
    Loop(config, make_env(TASK), make_env(TASK), run_dir).run()
    lines = [json.loads(line) for line in run_dir.metrics_path.read_text().splitlines()]
    (final,) = [x["eval/return_mean_reward"] for x in lines if "eval/return_mean_reward" in x]

    random, still, best = yardsticks
    assert random < still < best < -0.05
    # Nearly all of the way from doing nothing to the optimum, which random actions never reach.
    assert final > best - 0.1 * (best - still)
    assert final <= best + 1e-3
    last = {k: v for x in lines for k, v in x.items()}
    assert last["agent/updates_count"] == 401 * 5
    if algo != "sac":
        assert last["model/reward_r2"] > 0.95
        assert last["model/skill_over_persistence"] > 0.95
