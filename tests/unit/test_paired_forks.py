"""Paired forks: what they say of known returns, what they train, and what they refuse."""

import numpy as np
import pytest

from ftfl.errors import FtflError
from ftfl.forensics import forking
from ftfl.forensics.doors import AS_IS
from ftfl.forensics.forking import Change, ForkPlan, changes, train_forks
from ftfl.forensics.instruments.forks import REAL_ALONE, ForkArm, PairedForks
from ftfl.forensics.subject import Subject
from ftfl.store.metrics_file import read_metrics
from ftfl.store.rundir import RunDir
from ftfl.training import workers
from helpers import tiny
from known import saved


def forks(**returns):
    arms = tuple(
        ForkArm(name.replace("_", " "), f"--{name}", np.array(values, float), {})
        for name, values in returns.items()
    )
    return PairedForks(arms, tuple(range(len(arms[0].returns))), 1_000, 5.0, "forks")


def names(found):
    return {finding.name: finding.severity for finding in found.findings()}


def test_an_agent_that_real_rows_alone_would_have_kept_is_a_failure_and_the_repair_is_named():
    found = forks(as_it_is=[1, 2, 3], real_rows_alone=[91, 90, 95], scale=[80, 84, 85],
                  target=[1, 3, 2])  # fmt: skip
    assert names(found) == {"synthetic-data-hurt-the-agent": "failure",
                            "agent-gains-by-scale": "warning"}  # fmt: skip
    gain = found.gains()[REAL_ALONE]
    assert gain.value == pytest.approx(90.0)
    # Paired differences 90, 88, 92: half-width t(0.975, 2) · 2/√3 = 4.303 · 1.1547.
    assert gain.high - gain.value == pytest.approx(4.303 * 2 / np.sqrt(3), rel=1e-3)
    assert {f.name: f.advice for f in found.findings()}["agent-gains-by-scale"] == "--scale"


def test_a_clear_gain_is_named_although_a_noisy_one_has_the_larger_mean():
    found = forks(as_it_is=[1, 2, 3], real_rows_alone=[1, 2, 3], scale=[0, 200, 40],
                  target=[31, 32, 34])  # fmt: skip
    assert names(found) == {"agent-gains-by-target": "warning"}


def test_where_no_repair_helps_that_is_said():
    found = forks(as_it_is=[1, 2, 3], real_rows_alone=[91, 90, 95], scale=[2, 1, 4])
    assert names(found) == {"synthetic-data-hurt-the-agent": "failure",
                            "no-change-saves-the-agent": "warning"}  # fmt: skip


def test_synthetic_data_that_help_are_told_as_info():
    found = forks(as_it_is=[91, 90, 95], real_rows_alone=[1, 2, 3], scale=[91, 95, 91])
    assert names(found) == {"synthetic-data-helped-the-agent": "info"}


def test_differences_within_the_noise_and_single_seeds_say_nothing():
    assert names(forks(as_it_is=[1, 50, 3], real_rows_alone=[40, 2, 30], scale=[9, 1, 4])) == {}
    alone = forks(as_it_is=[1], real_rows_alone=[91], scale=[92])
    assert names(alone) == {}
    assert np.isinf(alone.gains()["scale"].high)


def test_arms_of_runs_with_and_without_a_model():
    ours = changes(tiny("ftfl"))
    assert list(ours) == [AS_IS, REAL_ALONE, "scale", "target", "scale and target", "half real"]
    assert ours["scale and target"].advice == "--scale raw --target residual"
    assert ours["half real"].advice == "--rollouts.real-ratio 0.5"
    assert "half real" not in changes(tiny("ftfl", rollouts__real_ratio=0.6))
    plain = changes(tiny("sac"))
    assert list(plain) == [AS_IS, "mbpo", "mbpo-unit", "mbpo-direct", "ftfl"]
    assert plain["ftfl"].advice == "--algo ftfl"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of 60 steps that was really trained."""
    path = tmp_path_factory.mktemp("runs") / "ftfl" / "seed_0"
    (made,) = workers.prepare([tiny("ftfl", eval_episodes=1, steps=60)], [path], ["test"])
    workers.train_in_process(made)
    return path


@pytest.mark.slow
def test_forks_train_from_the_checkpoint_and_are_taken_as_they_are_when_asked_again(
    run, tmp_path, monkeypatch
):
    few = {AS_IS: Change(), REAL_ALONE: Change("sac")}
    monkeypatch.setattr(forking, "changes", lambda config: few)
    plan, told = ForkPlan(tmp_path, steps=20, seeds=1), []
    found = train_forks(Subject.load(run), plan, lambda *what: told.append(what))
    base, real = found.arms
    assert (base.name, real.name, found.seeds) == (AS_IS, REAL_ALONE, (0,))
    assert told[-1][0] == "steps of paired forks"
    assert {what[2] for what in told} == {40}
    assert "reward_r2" in base.looks
    assert "reward_r2" not in real.looks
    for name, arm in (("as-it-is", base), ("real-rows-alone", real)):
        path = tmp_path / "ftfl-seed_0@60+20" / name / "seed_0"
        (made,) = [e for e in RunDir.open(path).read_history() if e["event"] == "forked"]
        assert (made["parent"], made["env_steps"]) == (str(run), 60)
        assert "dynamics" in made["fresh"]
        records = read_metrics(RunDir.open(path).metrics_path)
        played = [r["eval/return_mean_reward"] for r in records if "eval/return_mean_reward" in r]
        assert [r["env_steps"] for r in records if "eval/return_mean_reward" in r] == [70, 80]
        assert arm.returns == pytest.approx([np.mean(played)])
    monkeypatch.setattr(forking.workers, "Pool", None)  # nothing is trained again
    again = train_forks(Subject.load(run), plan, lambda *what: None)
    np.testing.assert_array_equal(again.arms[0].returns, base.returns)
    few[REAL_ALONE] = Change("mbpo")
    with pytest.raises(FtflError, match="holds another fork than the one asked for"):
        train_forks(Subject.load(run), plan, lambda *what: None)


def test_an_environment_that_may_not_be_replayed_is_not_forked(tmp_path):
    run = saved(tmp_path / "mbpo" / "seed_0", tiny("mbpo", "envs_for_tests:make_lqr"), 60)
    with pytest.raises(FtflError, match="not declared replayable"):
        train_forks(Subject.load(run), ForkPlan(tmp_path / "forks"), lambda *what: None)
    assert not (tmp_path / "forks").exists()
