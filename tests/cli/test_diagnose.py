"""``ftfl diagnose`` as users meet it."""

import json

import numpy as np
import pytest
from calling import call

from ftfl.forensics import foresight_fit


def diagnose(*argv):
    status, out, err = call("diagnose", *argv, "--json")
    assert status == 0, err
    return json.loads(out)


def test_the_dial_is_foreseen_and_rest_is_not():
    rest = diagnose("gym/Pendulum-v1", "--steps", 1_000)
    assert {f["name"] for f in rest["findings"]} == set()
    assert rest["recommended"]["preset"] == "mbpo"
    assert rest["structure"]["dynamics_over_reward"]["value"] < 1
    turned = diagnose(
        "gym/Pendulum-v1", "--steps", 1_000, "--reward-unit", "2**-14", "--profile", "probe"
    )
    first = turned["findings"][0]
    assert (first["name"], first["severity"]) == ("reward-below-adam-step", "failure")
    assert first["advice"] == "--scale unit"
    assert first["evidence"]["predicted_step_over_std"]["value"] > 5
    assert turned["recommended"]["preset"] == "ftfl"


def test_a_task_without_reward_signal_cannot_be_told():
    found = diagnose("dmc/pendulum-swingup", "--steps", 300)
    assert "cannot-tell-yet" in {f["name"] for f in found["findings"]}
    assert found["recommended"]["preset"] is None
    assert "needs transitions" in found["findings"][0]["advice"]


def test_a_custom_environment_that_says_little():
    answer = diagnose("odd_envs:Plain", "--steps", 100)
    found = {f["name"]: f for f in answer["findings"]}
    assert answer["structure"]["dynamics_over_reward"]["value"] is None  # infinite
    assert found["termination-unknown"]["severity"] == "failure"
    assert {"cannot-tell-yet", "nothing-moves"} <= found.keys()


def test_logged_data_are_read_and_the_task_is_not_stepped(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    rows = {"obs": rng.normal(size=(500, 3)), "action": rng.uniform(-1, 1, (500, 1)),
            "reward": rng.normal(size=500), "next_obs": rng.normal(size=(500, 3)),
            "terminated": np.zeros(500, bool)}  # fmt: skip
    np.savez(tmp_path / "log.npz", **rows)
    monkeypatch.setattr(
        "ftfl.envs.guard.Guarded.step", lambda *_: pytest.fail("the task was stepped")
    )
    found = diagnose("gym/Pendulum-v1", "--data", tmp_path / "log.npz")
    assert found["structure"]["rows"] == 500
    assert "log.npz" in found["source"]
    np.savez(tmp_path / "less.npz", obs=rows["obs"])
    status, _, err = call("diagnose", "gym/Pendulum-v1", "--data", tmp_path / "less.npz")
    assert status == 2
    assert "--data" in err
    assert "lacks action, reward" in err


def test_a_runs_policy_acts(trained):
    found = diagnose("gym/Pendulum-v1", "--policy", trained, "--steps", 200)
    assert "the policy of" in found["source"]
    assert found["structure"]["rows"] == 200


def test_the_page_fits_80_columns(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    status, out, err = call("diagnose", "dmc/hopper-stand", "--steps", 500)
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert max(map(len, lines)) <= 80
    for head in ("FINDINGS", "START WITH"):
        assert head in lines
    assert any(line.startswith("CHANNELS, 12 of 15") for line in lines)
    assert "touch[0]" in out


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["gym/Pendulm-v1"], "did you mean gym/Pendulum-v1"),
        (["gym/Pendulum-v1", "--steps", "9"], "100 or more"),
        (["gym/Pendulum-v1", "--data", "a", "--policy", "b"], "transitions come from one of them"),
        (["gym/Pendulum-v1", "--profile", "lap"], "unknown profile 'lap'"),
        (["gym/Pendulum-v1", "--policy", "nowhere"], "no run directory nowhere"),
        (["gym/Pendulum-v1", "--policy", "x", "--reward-unit", "2"], "leave them out"),
        (["gym/Pendulum-v1", "--sped", "9"], "did you mean --seed"),
        (["gym/Pendulum-v1", "--data", "a", "--reward-unit", "2"], "--data steps nothing"),
        (["gym/Pendulum-v1", "--data", "a", "--steps", "200"], "--steps says how a task is"),
    ],
)
def test_misuse_is_one_sentence(argv, words):
    status, out, err = call("diagnose", *argv)
    assert (status, out) == (2, "")
    assert words in err
    assert err.count("\n") == 1


def test_a_policy_of_another_task_is_refused(trained):
    status, _, err = call("diagnose", "gym/MountainCarContinuous-v0", "--policy", trained)
    assert status == 2
    assert "was trained on gym/Pendulum-v1" in err


@pytest.mark.usefixtures("quick_compiles")
def test_the_command_fits_all_cells_and_says_so(monkeypatch):
    monkeypatch.setattr(foresight_fit, "UPDATES", 20)
    monkeypatch.setattr(foresight_fit, "SEEDS", (0,))
    asked = ("diagnose", "probe/rest", "--profile", "probe", "--steps", "1000", "--fit")
    status, out, err = call(*asked, "--json")
    assert status == 0, err
    told = json.loads(out)
    assert set(told["fit"]) == {"mbpo", "mbpo-unit", "mbpo-direct", "ftfl"}
    assert told["recommended"]["preset"] == "sac"  # 20 updates teach nothing
    assert "reward-not-learned" in {finding["name"] for finding in told["findings"]}
    status, out, err = call(*asked)
    assert "SHORT FIT (20 updates, 1 seeds)" in out
    assert "no agent was trained" in " ".join(out.split())
