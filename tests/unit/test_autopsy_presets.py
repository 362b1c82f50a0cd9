"""Every preset's run can be examined: trained in earnest, if briefly, and asked everything."""

import json

import pytest

from ftfl import config as cfg
from ftfl.envs.make import make_env
from ftfl.forensics import examination
from ftfl.forensics.audit import Plan
from ftfl.forensics.autopsy import examine
from ftfl.forensics.registry import INSTRUMENTS
from ftfl.forensics.subject import Subject
from ftfl.store.rundir import RunDir
from ftfl.training.loop import Loop
from helpers import every_preset, seldom, tiny

pytestmark = pytest.mark.usefixtures("quick_compiles")
TASK = "envs_for_tests:make_simulated_lqr"
SMALL = Plan(states=30, episodes=5, actions=6, horizon=12, nudged_states=5, nudged_steps=4)


# One that redraws outcomes and keeps a memory.
@pytest.mark.parametrize("algo", every_preset("infoprop-ftfl"))
def test_a_run_of_every_preset_is_examined_by_all_instruments_that_concern_it(
    algo, tmp_path, monkeypatch
):
    monkeypatch.setattr(examination, "plan", lambda subject, quick: SMALL)
    config = tiny(algo, TASK, **seldom(algo))
    run_dir = RunDir.create(tmp_path / "run", cfg.to_dict(config), {})
    Loop(config, make_env(TASK), make_env(TASK), run_dir).run()
    autopsy = examine(Subject.load(tmp_path / "run"), quick=True)
    concerned = {i.name for i in INSTRUMENTS if i.concerns(config) and not (i.refits or i.forks)}
    of_models = {"target_scales", "model_variance", "reward_fidelity", "rollout_error"}
    if config.dynamics is None:
        concerned -= of_models
        assert all("no dynamics model" in autopsy.unmeasured[name] for name in of_models)
    assert autopsy.results.keys() == concerned
    assert {"critic_account", "critic_health"} <= concerned
    screened = config.rollouts is not None and config.rollouts.screen != "keep-all"
    assert ("screen_sight" in concerned) == screened
    told = json.loads(json.dumps(autopsy.to_json()))
    assert told["algo"] == algo
    assert told["states"] == 30
