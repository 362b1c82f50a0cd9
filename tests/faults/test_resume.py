"""A run that was left and gone on with ends as if it never was."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from runs import SIMULATED, create, digest, go_on, records

from ftfl import config as cfg
from ftfl.errors import FtflError
from ftfl.store.checkpoint import latest_valid, list_checkpoints
from ftfl.store.rundir import RunDir
from ftfl.training import resume as resuming
from helpers import equal_bits, every_preset, seldom, tiny

pytestmark = pytest.mark.usefixtures("quick_compiles")
GOLDEN = Path(__file__).parent / "golden"
# In the warm-up, in mid-episode between two refits, at a refit, one step before the end.
STOPS = (13, 57, 60, 99)


def odd(algo):
    """Changes that make a short run meet what the preset can do."""
    changes = {"eval_every": 30, "log_every": 10, "checkpoint_every": 25, "eval_episodes": 1}
    return changes | seldom(algo)


# The others differ from these in numbers only.
@pytest.mark.parametrize(
    "algo", every_preset("sac", "mbpo", "ftfl", "mbpo-2019", "infoprop-ftfl", "macura-own")
)
def test_stopped_anywhere_a_run_ends_with_the_same_bits(algo, tmp_path):
    config = tiny(algo, SIMULATED, **odd(algo))
    create(tmp_path / "whole", config)
    whole = go_on(tmp_path / "whole")
    create(tmp_path / "parts", config)
    for stop in STOPS:
        go_on(tmp_path / "parts", stop)
    last = go_on(tmp_path / "parts")
    assert equal_bits(last.state, whole.state)
    assert digest(tmp_path / "parts") == digest(tmp_path / "whole")
    assert records(tmp_path / "parts") == records(tmp_path / "whole")
    assert last.progress.updates == whole.progress.updates == int(whole.state.agent.updates)


def test_killed_between_two_checkpoints_a_run_repeats_what_was_lost(tmp_path):
    config = tiny("ftfl", SIMULATED, **odd("ftfl"))
    create(tmp_path / "whole", config)
    go_on(tmp_path / "whole")
    create(tmp_path / "killed", config)
    loop = go_on(tmp_path / "killed", 40)
    # As kill -9 at step 40 would have it: metrics up to there, the last checkpoint at 25.
    (newest,) = [p for p in list_checkpoints(loop.run_dir.checkpoints_path) if p.name[-2:] == "40"]
    newest.rename(newest.with_name("gone"))
    assert any(r["env_steps"] > 25 for r in records(tmp_path / "killed"))
    go_on(tmp_path / "killed")
    assert digest(tmp_path / "killed") == digest(tmp_path / "whole")
    assert records(tmp_path / "killed") == records(tmp_path / "whole")


def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_it_used(tmp_path):
    config = tiny("sac", SIMULATED, checkpoint_every=30)
    create(tmp_path / "whole", config)
    go_on(tmp_path / "whole")
    create(tmp_path / "damaged", config)
    loop = go_on(tmp_path / "damaged", 65)
    newest = list_checkpoints(loop.run_dir.checkpoints_path)[-1] / "agent.safetensors"
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    again = go_on(tmp_path / "damaged")
    assert again.keeper.found.checkpoint.step == 60
    assert "agent.safetensors" in again.keeper.found.damage[0]
    assert "agent.safetensors" in loop.run_dir.read_status()["message"]
    assert digest(tmp_path / "damaged") == digest(tmp_path / "whole")


def test_a_longer_run_is_the_short_one_gone_on_with(tmp_path):
    create(tmp_path / "long", tiny("ftfl", SIMULATED, steps=130))
    long = go_on(tmp_path / "long")
    short = create(tmp_path / "short", tiny("ftfl", SIMULATED, steps=70))
    go_on(tmp_path / "short")
    plan = resuming.plan(short, {"steps": 130}, ["test"])
    assert (plan.env_steps, plan.finished) == (70, False)
    resuming.begin(plan)
    assert equal_bits(go_on(tmp_path / "short").state, long.state)
    (entry,) = short.read_history()
    assert entry["event"] == "resumed"
    assert entry["changes"] == {"steps": [70, 130]}


def test_resets_of_the_agent_survive_stopping_where_they_are_due(tmp_path):
    changes = {"sac__reset_every_updates": 20, "sac__updates_per_step": 2}
    config = tiny("sac", SIMULATED, **changes)
    create(tmp_path / "whole", config)
    whole = go_on(tmp_path / "whole")
    assert int(whole.state.resets) == 61 * 2 // 20
    create(tmp_path / "parts", config)
    for stop in (49, 50, 69):
        go_on(tmp_path / "parts", stop)
    assert equal_bits(go_on(tmp_path / "parts").state, whole.state)


def test_a_full_ring_comes_back_in_its_order(tmp_path):
    config = tiny("ftfl", SIMULATED, replay_rows=37)
    create(tmp_path / "whole", config)
    whole = go_on(tmp_path / "whole")
    create(tmp_path / "parts", config)
    for stop in (36, 37, 80):
        go_on(tmp_path / "parts", stop)
    assert equal_bits(go_on(tmp_path / "parts").state, whole.state)


def test_learning_between_episodes_is_still_owed_after_a_stop(tmp_path):
    config = tiny("ftfl", SIMULATED, update_between_episodes=True, log_every=10, steps=110)
    create(tmp_path / "whole", config)
    whole = go_on(tmp_path / "whole")
    create(tmp_path / "parts", config)
    for stop in (51, 75):
        go_on(tmp_path / "parts", stop)
    assert equal_bits(go_on(tmp_path / "parts").state, whole.state)
    assert records(tmp_path / "parts") == records(tmp_path / "whole")


def test_logged_data_need_not_be_there_any_more(tmp_path):
    rng = np.random.default_rng(0)
    rows = {
        "obs": rng.normal(size=(30, 1)), "action": rng.uniform(-1, 1, (30, 1)),
        "reward": rng.normal(size=30), "next_obs": rng.normal(size=(30, 1)),
        "terminated": np.zeros(30, bool),
    }  # fmt: skip
    np.savez(tmp_path / "logged.npz", **rows)
    config = tiny("ftfl", SIMULATED, init_replay=str(tmp_path / "logged.npz"))
    create(tmp_path / "whole", config)
    whole = go_on(tmp_path / "whole")
    create(tmp_path / "parts", config)
    go_on(tmp_path / "parts", 20)
    (tmp_path / "logged.npz").unlink()
    assert equal_bits(go_on(tmp_path / "parts").state, whole.state)


class Hardware:
    """Notes what it was told to do; not replayable."""

    def __init__(self):
        from ftfl.envs.make import make_env

        self.inner = make_env("envs_for_tests:make_lqr")
        self.spec, self.told = self.inner.spec, []

    def reset(self, seed):
        self.told.append("reset")
        return self.inner.reset(seed)

    def step(self, action):
        self.told.append(action)
        return self.inner.step(action)

    def render(self):
        return self.inner.render()

    def close(self):
        self.inner.close()

    def restart(self):
        self.inner.restart()


def test_stored_actions_are_never_sent_to_a_machine(tmp_path):
    task = "envs_for_tests:make_lqr"
    create(tmp_path / "run", tiny("sac", task))
    before = go_on(tmp_path / "run", 57, task, Hardware())
    sent = [a for a in before.env.told if not isinstance(a, str)][-17:]
    machine = Hardware()
    after = go_on(tmp_path / "run", None, task, machine)
    assert machine.told[0] == "reset"
    assert len([a for a in machine.told if not isinstance(a, str)]) == 43
    assert not np.array_equal(machine.told[1], sent[0])
    assert after.progress.env_steps == 100
    message = RunDir.open(tmp_path / "run").read_status()["message"]
    assert (
        "a new episode was begun at step 57: the environment is not declared replayable" in message
    )


def test_an_environment_that_does_not_repeat_itself_is_noticed(tmp_path):
    class Changed(Hardware):
        def __init__(self):
            super().__init__()
            from ftfl.envs.make import make_env

            self.inner = make_env(SIMULATED)
            self.spec = self.inner.spec

        def reset(self, seed):
            return super().reset(seed + 1)

    create(tmp_path / "run", tiny("sac", SIMULATED))
    go_on(tmp_path / "run", 57)
    go_on(tmp_path / "run", None, SIMULATED, Changed())
    message = RunDir.open(tmp_path / "run").read_status()["message"]
    assert "did not lead to the same observation" in message


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sac.discount": 0.9}, r"sac\.discount: 0\.99 → 0\.9.*ftfl fork RUN_DIR --set"),
        ({"dynamics.target": "residual"}, r"dynamics\.target: direct → residual"),
        ({"seed": 3}, "seed: 0 → 3"),
        ({"steps": 50}, "steps was given as 50, but the run has already done 100"),
    ],
)
def test_what_is_frozen_is_refused_with_the_difference(changes, said, tmp_path):
    run_dir = create(tmp_path / "run", tiny("ftfl", SIMULATED))
    (run_dir.checkpoints_path / "step_000000100").mkdir()
    with pytest.raises(FtflError, match=said):
        resuming.plan(run_dir, changes, ["test"])


def test_what_is_free_may_change_and_changes_nothing_learned(tmp_path):
    create(tmp_path / "whole", tiny("sac", SIMULATED))
    whole = go_on(tmp_path / "whole")
    run_dir = create(tmp_path / "run", tiny("sac", SIMULATED))
    go_on(tmp_path / "run", 57)
    free = {"eval_every": 20, "eval_episodes": 2, "log_every": 7, "checkpoint_every": 11,
            "faults_allowed": 0, "on_divergence": "continue", "on_full_disk": "stop"}  # fmt: skip
    resuming.begin(resuming.plan(run_dir, free, ["test"]))
    assert equal_bits(go_on(tmp_path / "run").state, whole.state)
    assert cfg.flatten(cfg.from_dict(run_dir.config()))["eval_every"] == 20


def test_no_valid_checkpoint_is_never_taken_for_a_fresh_start(tmp_path):
    create(tmp_path / "run", tiny("sac", SIMULATED))
    loop = go_on(tmp_path / "run", 57)
    for path in list_checkpoints(loop.run_dir.checkpoints_path):
        (path / "manifest.json").write_text("{}")
    with pytest.raises(FtflError, match="none of the 2 checkpoints"):
        go_on(tmp_path / "run")


@pytest.mark.parametrize(
    ("package", "old", "refused"),
    [("mujoco", "2.3.0", True), ("jax", "0.9.1", True), ("numpy", "1.0.0", False)],
)
def test_changed_versions_get_a_verdict(package, old, refused, tmp_path):
    from ftfl.store.provenance import collect

    provenance = collect(["test"])
    provenance["packages"][package] = old
    config = tiny("sac", SIMULATED)
    run_dir = RunDir.create(tmp_path / "run", cfg.to_dict(config), provenance)
    if refused:
        with pytest.raises(FtflError, match=rf"{package} {old} → .*--allow-version-change"):
            resuming.plan(run_dir, {}, ["test"])
    plan = resuming.plan(run_dir, {}, ["test"], allow_version_change=True)
    assert any(note.startswith(f"{package} {old}") for note in plan.notes)
    resuming.begin(plan)
    # Accepted once, it is what the next resume compares with.
    assert resuming.plan(run_dir, {}, ["test"]).notes == ()
    assert json.loads(run_dir.history_path.read_text())["notes"]


def test_a_run_of_checkpoint_format_1_goes_on_with_its_ring_in_order(tmp_path):
    # 57 steps in a ring of 37 rows, written by the code of format 1.
    shutil.copytree(GOLDEN / "run_v1", tmp_path / "run")
    run_dir = RunDir.open(tmp_path / "run")
    before = latest_valid(run_dir.checkpoints_path)[0].components["real"]
    assert (int(before["size"]), int(before["cursor"])) == (37, 20)
    resuming.begin(resuming.plan(run_dir, {"steps": 90}, ["test"]))
    stopped = go_on(tmp_path / "run", 60)
    untouched = np.arange(37) >= 23  # 57 to 59 went into slots 20 to 22
    for name, old in before.items():
        if name.startswith("rows/"):
            new = np.asarray(getattr(stopped.state.real.rows, name.removeprefix("rows/")))
            assert np.array_equal(new[untouched], old[untouched])
            assert np.array_equal(new[:20], old[:20])
    assert (int(stopped.state.real.cursor), stopped.progress.rows) == (23, 60)
    assert stopped.progress.updates == 21 * 2
    assert go_on(tmp_path / "run").progress.env_steps == 90


def test_every_field_has_one_class():
    names = cfg.flatten(cfg.Config()).keys()
    assert names >= cfg.FREE | cfg.EXTENDABLE, "a field was renamed"
    assert not cfg.FREE & cfg.EXTENDABLE
    assert cfg.resume_class("sac.discount") == "frozen"


def test_the_guide_lists_what_may_change():
    guide = (Path(__file__).parents[2] / "docs" / "resuming.md").read_text()
    rows = dict(re.findall(r"^\| (extendable|free) \| (.*?) \|", guide, re.MULTILINE))
    listed = {kind: set(re.findall(r"`([\w.]+)`", names)) for kind, names in rows.items()}
    assert listed == {"extendable": set(cfg.EXTENDABLE), "free": set(cfg.FREE)}


def test_results_without_a_checkpoint_are_never_overwritten(tmp_path):
    create(tmp_path / "run", tiny("sac", SIMULATED, log_every=10))
    loop = go_on(tmp_path / "run")
    before = loop.run_dir.metrics_path.read_bytes()
    shutil.rmtree(loop.run_dir.checkpoints_path)
    with pytest.raises(FtflError, match="has begun but has no checkpoint to go on from"):
        go_on(tmp_path / "run")
    assert loop.run_dir.metrics_path.read_bytes() == before


def test_a_run_killed_just_before_it_said_done_is_finished_by_resuming(tmp_path):
    run_dir = create(tmp_path / "run", tiny("sac", SIMULATED))
    go_on(tmp_path / "run")
    assert resuming.plan(run_dir, {}, ["test"]).finished
    run_dir.write_status({"state": "evaluating"})
    assert not resuming.plan(run_dir, {}, ["test"]).finished
    go_on(tmp_path / "run")
    assert run_dir.read_status()["state"] == "done"


def test_an_empty_status_after_a_power_cut_stops_nobody(tmp_path):
    from ftfl.training.workers import Pool

    config = tiny("sac", SIMULATED)
    run_dir = create(tmp_path / "run", config)
    run_dir.status_path.write_text("")
    Pool().submit((run_dir, config))
    assert run_dir.read_status()["state"] == "starting"
