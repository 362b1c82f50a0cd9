"""What `ftfl speed` counts and measures, on networks small enough to count by hand."""

import contextlib
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs_for_tests
from ftfl.bench import flops
from ftfl.bench.speed import measure
from ftfl.cli import speed as verb
from ftfl.envs.make import make_env, make_task
from ftfl.errors import FtflError
from ftfl.training import memory
from ftfl.training import state as run_state
from ftfl.types import Transition
from helpers import tiny

TASK = "envs_for_tests:make_lqr"


def test_products_are_counted_as_by_hand():
    config = tiny(
        "ftfl", TASK, sac__hidden=(8,), sac__batch_size=10, dynamics__hidden=(4,),
        dynamics__weight_decay=(0.0, 0.0), dynamics__members=3, dynamics__batch_size=6,
    )  # fmt: skip
    actor, critic = 3 * 8 + 8 * 2, 4 * 8 + 8 * 1  # obs 3, act 1
    assert flops.act(config, 3, 1) == 2 * actor
    # Target: actor and two critics. Critics: forward, both gradients, none by their input. Actor:
    # the same of it, and the critics forward and by their input.
    products = actor + 2 * critic + 2 * (3 * critic - 4 * 8)
    products += 3 * actor - 3 * 8 + 2 * 2 * critic
    assert flops.sac_update(config, 3, 1) == 2 * 10 * products
    model = 4 * 4 + 4 * 8  # [obs, act] to mean and log-variance of [next_obs, reward]
    assert flops.ensemble_update(config, 3, 1) == 2 * 3 * 6 * (3 * model - 4 * 4)
    assert flops.rollouts(config, 3, 1, 2) == 2 * config.rollouts.per_step * 2 * (actor + 3 * model)


def test_a_paper_step_is_forty_gflop():
    from ftfl import presets

    config = presets.build("dmc/hopper-stand", "ftfl", "paper")
    step = 20 * (flops.sac_update(config, 15, 4) + flops.ensemble_update(config, 15, 4))
    step += flops.rollouts(config, 15, 4, 1)
    assert step == pytest.approx(40e9, rel=0.02)


def test_every_component_is_timed_and_shares_make_a_whole():
    config = tiny("ftfl", TASK, sac__precision="bf16", dynamics__precision="bf16")
    # Long enough that a model update, the difference of two timed refits, stands out of the noise.
    found = measure(config, seconds=0.3)
    names = {"act", "env_step", "insert", "sac_update", "checkpoint"}
    names |= {"ensemble_update", "refit_overhead", "rollouts"}
    assert set(found.components) == names
    assert sum(part.share for part in found.components.values()) == pytest.approx(1)
    assert found.steps_per_second == pytest.approx(
        1e3 / sum(part.ms_per_step for part in found.components.values())
    )
    for part in found.components.values():
        assert part.median_ms > 0 or part.calls_per_step < 1
        assert part.share_of_matmul_peak is None or 0 < part.share_of_matmul_peak < 1.5
    assert set(found.matmul_peak_gflops) == {"float32", "bf16"}
    for name, peak in (("ensemble_update", "bf16"), ("sac_update", "bf16"), ("act", "float32")):
        part = found.components[name]
        own = part.gflops / found.matmul_peak_gflops[peak]
        assert part.share_of_matmul_peak == pytest.approx(own)


def test_the_command_says_it_as_json(capsys, monkeypatch):
    monkeypatch.chdir(Path(envs_for_tests.__file__).parent)
    asked = f"{TASK} --algo sac --profile probe --precision bf16 --seconds 0.05 --json"
    assert verb.run(asked.split()) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found["components"]) == {"act", "env_step", "insert", "sac_update", "checkpoint"}
    assert sum(part["share"] for part in found["components"].values()) == pytest.approx(1)
    assert set(found["matmul_peak_gflops"]) == {"float32", "bf16"}
    update = found["components"]["sac_update"]
    assert update["share_of_matmul_peak"] == pytest.approx(
        update["gflops"] / found["matmul_peak_gflops"]["bf16"]
    )


def test_quadruped_at_a_million_rows_stays_under_its_memory_limit():
    """Both replays of 10⁶ and 10⁵ transitions: at most 1.2 GiB."""
    from ftfl import presets

    changes = {"steps": 1_000_000, "rollouts.per_step": 400, "rollouts.retention_steps": 250}
    config = presets.build("dmc/quadruped-walk", "ftfl", "paper", changes)
    with contextlib.closing(make_task(config.task)) as env:
        assert config.rollouts.capacity_rows == 100_000
        row = 4 * (78 + 12 + 1 + 78) + 1
        assert memory.replay_bytes(config, env.spec) == 1_100_000 * row < 1.2 * 2**30
        assert "1.7 GiB a run, 710 MiB of it replays" in memory.sentence(config, env.spec, 1)


def test_logged_rows_count_as_memory(tmp_path):
    from ftfl import presets

    file = tmp_path / "logged.npz"
    np.savez(file, reward=np.zeros(200_000, np.float32))
    changes = {"steps": 1_000, "init_replay": str(file)}
    config = presets.build(TASK, "sac", "probe", changes)
    with contextlib.closing(make_task(config.task)) as env:
        row = 4 * (2 * env.spec.obs_dim + env.spec.act_dim + 1) + 1
        rows = 210_000  # in blocks, so that runs of other lengths share compiled programs
        assert f"{rows * row / 2**20:.0f} MiB of it" in memory.sentence(config, env.spec, 1)


@pytest.mark.parametrize("name", ["learn", "observe"])
def test_no_step_looks_at_the_whole_replay(name):
    """A hundred times the rows: not one operation more, and no copy of them.

    What the clock says of it: benchmarks/speed/steady.py.
    """
    from ftfl.training.learn import functions

    spec, costs = make_env(TASK).spec, []
    width = 4 * (2 * spec.obs_dim + spec.act_dim + 1)
    for capacity in (10_000, 1_000_000):
        config = tiny("ftfl", TASK, replay_rows=capacity, steps=capacity)
        state = jax.eval_shape(lambda config=config: run_state.init(config, spec))
        given = [state]
        if name == "observe":
            parts = ("real", "env_steps", "mismatches", "alarms")
            obs, action = jnp.zeros(spec.obs_dim), jnp.zeros(spec.act_dim)
            row = Transition(obs, action, jnp.float32(0), obs, jnp.bool_(False))
            given = [{part: getattr(state, part) for part in parts}, row]
        written = functions(config, spec)[name]
        program = jax.jit(written, donate_argnums=0).lower(*given).compile()
        used = program.memory_analysis()
        costs.append((program.cost_analysis()["flops"], used.temp_size_in_bytes))
        assert used.alias_size_in_bytes > capacity * width, "rows stay in place"
    assert costs[0] == costs[1]
    assert costs[0][1] < 10_000 * width


def test_more_processes_than_cores_is_one_sentence():
    with pytest.raises(FtflError, match="--processes was given as 9999"):
        verb.run(["--processes", "9999"])
