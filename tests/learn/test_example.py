"""The example of the documentation runs, and learns."""

import importlib.util
from pathlib import Path

import numpy as np

EXAMPLE = Path(__file__).parents[2] / "examples" / "own_env.py"


def test_the_example_trains_on_its_own_environment(tmp_path, monkeypatch):
    monkeypatch.chdir(EXAMPLE.parents[1])
    spec = importlib.util.spec_from_file_location("examples.own_env", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    run = example.main(out=str(tmp_path / "run"), steps=1_200)
    steps, returns = run.series("eval/return_mean_reward")
    assert steps[-1] == 1_200
    assert run.config.algo == "ftfl"
    # Doing nothing from these starts brings -121 on average, random actions -160.
    assert returns[-1] > -20
    action = run.policy(np.array([1.0, 0.0], np.float32))
    assert action.shape == (1,)
    assert action[0] < 0, "the mass is to the right of the goal: push left"
