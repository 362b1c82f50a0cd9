"""``ftfl autopsy`` as users meet it: findings first, nothing written, all that is missing said."""

import fcntl
import hashlib
import io
import json
import os
import pty
import shutil
import struct
import termios

import numpy as np
import pytest
from calling import call

from ftfl.cli import autopsy as cli
from ftfl.forensics import autopsy, examination, registry
from ftfl.forensics.audit import Plan
from ftfl.forensics.instruments.forks import REAL_ALONE, ForkArm, PairedForks
from ftfl.store.rundir import RunDir
from helpers import tiny
from known import saved

SIMULATED = "envs_for_tests:make_simulated_lqr"
REFITS = {"unit_invariance", "residual_or_direct", "attribution"}
SMALL = Plan(states=30, episodes=5, actions=6, horizon=12, nudged_states=5, nudged_steps=4)


MEASURED = {"model_variance", "reward_fidelity", "rollout_error", "critic_account", "critic_health"}


@pytest.fixture(autouse=True)
def small(monkeypatch, request):
    """Few states, and without target scales, whose compiling takes longest."""
    monkeypatch.setattr(examination, "plan", lambda subject, quick: SMALL)
    if "long" not in request.keywords:
        quick = tuple(i for i in registry.INSTRUMENTS if i.name in MEASURED | REFITS)
        monkeypatch.setattr(autopsy, "INSTRUMENTS", quick)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """One run of each kind: with and without a model, and one that may not be replayed."""
    folder = tmp_path_factory.mktemp("runs")
    for name, algo, task in (
        ("ftfl", "ftfl", SIMULATED), ("sac", "sac", SIMULATED),
        ("robot", "mbpo", "envs_for_tests:make_lqr"),
    ):  # fmt: skip
        saved(folder / name / "seed_0", tiny(algo, task, steps=100), 60, 100)
    return folder


def digest(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return [(p.name, hashlib.sha256(p.read_bytes()).hexdigest(), p.stat().st_mtime_ns)
            for p in files]  # fmt: skip


def examined(*argv):
    status, out, err = call("autopsy", *argv, "--quick", "--json")
    assert status == 0, err
    return json.loads(out)["runs"]


def test_json_has_findings_and_numbers_with_their_intervals_and_the_run_stays_as_it_was(runs):
    before = digest(runs)
    (run,) = examined(runs / "ftfl" / "seed_0")
    assert digest(runs) == before
    assert (run["label"], run["step"], run["states"]) == ("ftfl", 100, 30)
    assert run["states_by"] == "copies of the simulator"
    assert set(run["numbers"]) == MEASURED
    slope = run["numbers"]["reward_fidelity"]["replay"]["slope"]
    assert slope["low"] <= slope["value"] <= slope["high"]
    assert slope["n"] == 5
    account = run["numbers"]["critic_account"]["smaller_twin"]
    parts = [account[k]["value"] for k in ("critic_fit", "reward_model", "next_state_model")]
    assert sum(parts) == pytest.approx(account["bias"]["value"])
    assert account["identity_gap_share"] < 1e-9
    for finding in run["findings"]:
        assert {"name", "severity", "sentence", "evidence", "threshold", "advice"} == set(finding)
    names = [finding["name"] for finding in run["findings"]]
    assert len(set(names)) == len(names)
    assert set(run["not_measured"]) == REFITS
    assert set(run["not_measured"].values()) == {"--quick trains no models anew"}


@pytest.mark.parametrize(
    ("task", "algo"), [("gym/Pendulum-v1", "sac"), ("dmc/cartpole-balance", "ftfl")]
)
def test_runs_of_gymnasium_and_dm_control_are_asked_about_in_their_simulators(tmp_path, task, algo):
    path = saved(tmp_path / algo / "seed_0", tiny(algo, task, steps=450), 420)
    (run,) = examined(path)
    assert run["task"] == task
    assert run["states_by"] == "copies of the simulator"
    assert (run["states"], sum(run["states_dropped"].values())) == (30, 0)
    concerned = MEASURED if algo == "ftfl" else {"critic_account", "critic_health"}
    assert set(run["numbers"]) == concerned
    assert run["numbers"]["critic_account"]["horizon_steps"] == SMALL.horizon


def test_the_same_run_gives_the_same_numbers_twice(runs):
    assert examined(runs / "ftfl" / "seed_0") == examined(runs / "ftfl" / "seed_0")


def test_runs_at_different_steps_are_said_to_be(runs, tmp_path):
    early = saved(tmp_path / "mbpo" / "seed_0", tiny("mbpo", SIMULATED, steps=100), 60)
    status, out, _ = call("autopsy", runs / "ftfl" / "seed_0", early, "--quick", "--json")
    assert status == 0
    assert json.loads(out)["notes"] == [
        f"runs of {SIMULATED} are compared after different numbers of steps: ftfl 100, mbpo 60"
    ]


def test_an_earlier_checkpoint_is_examined_on_request(runs):
    (run,) = examined(runs / "ftfl" / "seed_0", "--at", 60)
    assert (run["step"], run["real_rows"]) == (60, 60)


def test_runs_stand_side_by_side_in_80_columns_findings_first(runs, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    status, out, err = call("autopsy", runs / "sac", runs / "ftfl", "--quick")
    assert status == 0, err
    lines = out.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines.index("FINDINGS") < next(i for i, x in enumerate(lines) if "FIDELITY" in x)
    assert (
        "not measured (sac): model variance, reward fidelity, rollout error: the run has no"
        " dynamics model" in " ".join(out.split())
    )
    (head,) = [line for line in lines if line.startswith("CRITIC ACCOUNT")]
    assert head.split()[-2:] == ["sac", "ftfl"]
    (bias,) = [line for line in lines if "smaller twin: bias" in line]
    assert bias.count("±") == 2
    assert "No run without a model" not in out
    assert "reading" in err


def test_a_report_is_written_where_the_runs_are_or_where_it_is_asked_for(runs, tmp_path):
    status, out, err = call("autopsy", runs / "ftfl" / "seed_0", "--quick")
    assert status == 0, err
    default = runs / "ftfl" / "seed_0" / "autopsy.html"
    assert out.splitlines()[-1].startswith("report: ")
    page = default.read_text()
    assert "Where these numbers come from" in page
    assert page.index("What was found") < page.index("Reward fidelity")
    default.unlink()
    wanted = tmp_path / "deeper" / "a.html"
    status, out, err = call(
        "autopsy", runs / "sac" / "seed_0", "--quick", "--json", "--report", wanted
    )
    assert (status, json.loads(out)["report"]) == (0, str(wanted)), err
    assert wanted.is_file()
    assert not (runs / "sac" / "seed_0" / "autopsy.html").exists()


def test_a_place_that_takes_no_report_is_said_before_anything_is_measured(runs, tmp_path):
    status, out, err = call("autopsy", runs / "sac" / "seed_0", "--report", tmp_path)
    assert (status, out) == (2, "")
    assert err == f"ftfl: --report {tmp_path} is a folder: give the file that is to be written.\n"
    (tmp_path / "file").write_text("")
    status, out, err = call("autopsy", runs / "sac", "--report", tmp_path / "file" / "a.html")
    assert (status, out) == (2, "")
    assert "cannot write the report" in err
    assert "reading" not in err


def test_where_no_simulator_may_be_asked_the_rest_is_measured_and_said(runs):
    (run,) = examined(runs / "robot" / "seed_0")
    assert run["states"] is None
    assert set(run["numbers"]) == MEASURED - {"critic_account"}
    assert run["numbers"]["reward_fidelity"]["own_actions"] is None
    assert run["numbers"]["rollout_error"]["actions"] == "stored actions"
    assert "not declared replayable" in run["not_measured"]["critic_account"]
    assert any("stored actions" in note for note in run["notes"])
    status, out, _ = call("autopsy", runs / "robot" / "seed_0", "--quick")
    assert status == 0
    assert "not measured (robot): critic account" in out
    assert "No run without a model is shown beside these" in out


def test_without_the_environment_what_the_checkpoint_holds_is_measured(runs, tmp_path):
    """A run is looked at on another machine than it was trained on."""
    there = {run["label"]: run for run in examined(runs / "robot" / "seed_0")}
    copy = shutil.copytree(runs / "robot" / "seed_0", tmp_path / "robot" / "seed_0")
    config = json.loads((copy / "config.json").read_text())
    config["task"]["name"] = "not_installed_here:Robot"
    (copy / "config.json").write_text(json.dumps(config))
    (run,) = examined(copy)
    assert set(run["numbers"]) == MEASURED - {"critic_account"}
    assert "cannot be made here" in run["not_measured"]["critic_account"]
    assert any("not_installed_here" in note for note in run["notes"])
    known = there["robot"]["numbers"]
    assert run["numbers"]["critic_health"] == known["critic_health"]
    assert run["numbers"]["reward_fidelity"] == known["reward_fidelity"]
    assert run["numbers"]["rollout_error"]["channels"][0] == "obs[0]"
    status, out, _ = call("autopsy", copy, "--quick")
    assert status == 0
    assert "not_installed_here" in " ".join(out.split())
    config["dynamics"]["reward_model"] = "given"
    (copy / "config.json").write_text(json.dumps(config))
    status, _, err = call("autopsy", copy, "--quick")
    assert status == 2
    assert "not_installed_here" in err
    assert "takes its reward from it" in err


def test_a_damaged_run_is_named_and_the_others_are_examined(runs, tmp_path):
    bad = shutil.copytree(runs / "sac" / "seed_0", tmp_path / "bad" / "seed_0")
    for file in (bad / "checkpoints").rglob("*.safetensors"):
        file.write_bytes(b"nothing")
    status, out, _ = call("autopsy", runs / "sac" / "seed_0", bad, "--quick", "--json")
    assert status == 1
    content = json.loads(out)
    assert len(content["runs"]) == 1
    assert "none of the 2 checkpoints" in content["failed"][str(bad)]
    RunDir(bad).metrics_path.touch()
    status, out, err = call("autopsy", bad)
    assert (status, out) == (2, "")
    assert err.splitlines()[-1].startswith("ftfl: none of the 2 checkpoints")
    assert f"What training logged is there: `ftfl report {bad}`" in err


def test_too_few_episodes_is_a_sentence_and_what_can_be_measured_is(tmp_path):
    path = saved(tmp_path / "seed_0", tiny("ftfl", SIMULATED, steps=40), 15)
    (run,) = examined(path)
    assert "only 15 of 15 real states" in run["not_measured"]["critic_account"]
    assert "reward_fidelity" in run["numbers"]


def test_damage_of_the_newest_checkpoint_is_said_where_the_one_before_has_no_data(tmp_path):
    path = saved(tmp_path / "seed_0", tiny("sac", SIMULATED, steps=40), 0, 40)
    file = path / "checkpoints" / "step_000000040" / "agent.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    status, out, err = call("autopsy", path, "--quick")
    assert (status, out) == (2, "")
    assert "step_000000040" in err
    assert "the newest valid checkpoint" in err
    assert "wait" not in err


def test_quick_runs_share_the_seconds_that_are_left_and_say_how_long_all_will_take(
    runs, monkeypatch
):
    given, whole = [], autopsy.examine
    now, took = [0.0], iter([70.0, 95.0, 10.0, 0.0])

    def examine(subject, quick, seconds, told, forks):
        given.append((quick, seconds))
        now[0] += next(took)
        return whole(subject, quick, seconds, told, instruments=(), forks=forks)

    monkeypatch.setattr(autopsy, "examine", examine)
    monkeypatch.setattr(cli.time, "monotonic", lambda: now[0])
    three = runs / "sac", runs / "ftfl", runs / "sac"
    status, _, err = call("autopsy", *three, "--quick", "--json")
    assert status == 0
    assert cli.QUICK_SECONDS == 170 < 180
    # A third of all, the half of 100 s, and next to nothing of the 5 s left: enough for a verdict.
    assert given == [(True, pytest.approx(s)) for s in (34.0, 30.0, cli.LEAST_SECONDS)]
    assert "(1 of 3 runs)" in err
    assert "(3 of 3 runs, about 82 s left for all)" in err
    assert call("autopsy", runs / "sac", "--json")[0] == 0
    assert given[-1] == (False, None)


def test_the_time_left_is_told_as_work_is_done_and_a_line_on_a_terminal_replaces_itself(
    monkeypatch,
):
    clock = iter(np.arange(0.0, 1000.0, 5.0))
    monkeypatch.setattr(cli.time, "monotonic", lambda: next(clock))

    def told(live):
        out = io.StringIO()
        out.isatty = lambda: live
        eta = cli.Eta("run", out)
        eta.tell("states", 0, 0)
        for done in range(1, 5):
            eta.tell("states (now: b)", 10 * done, 100)
        eta.clear()
        return out.getvalue()

    # Ten states every five seconds: after forty of a hundred, sixty are left, half a second each.
    shown = told(live=True)
    assert shown.split("\r\033[K")[-2] == "run: 40 of 100 states (now: b), 30 s left …"
    assert shown.endswith("\r\033[K")
    elsewhere = told(live=False).splitlines()
    assert elsewhere[-1] == "run: 40 of 100 states (now: b), 30 s left …"
    assert len(elsewhere) < 5, "a line every ten seconds at most"


@pytest.mark.parametrize("columns", [40, 60, 100])
def test_the_line_on_a_terminal_never_wraps_and_keeps_its_end(columns):
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    with open(theirs, "w") as out:
        cli.Eta("/a/long/way/to/runs/dmc_cartpole-swingup/mbpo/seed_0", out).say("12 s left")
        shown = os.read(ours, 4096).decode()
    os.close(ours)
    line = shown.removeprefix("\r\033[K")
    assert len(line) < columns
    assert line.endswith("seed_0: 12 s left …")
    assert line.startswith("…" if columns < 65 else "/a/long")


def test_options_of_forks_need_full(runs):
    status, out, err = call("autopsy", runs / "sac" / "seed_0", "--fork-steps", 10)
    assert (status, out, err) == (2, "", "ftfl: --fork-steps was given without --full.\n")


def test_full_forks_beside_the_run_and_tells_what_they_return(runs, monkeypatch):
    folder = runs / "ftfl" / "seed_0"
    before = digest(folder)
    asked = []

    def forked(subject, plan, told):
        asked.append(plan)
        told("steps of paired forks", 0, 10)
        arms = tuple(
            ForkArm(name, "--x", np.array(values), {})
            for name, values in (("as it is", [1.0, 2.0, 3.0]), (REAL_ALONE, [91.0, 92.0, 94.0]))
        )
        return PairedForks(arms, (0, 1, 2), plan.steps, 4.0, str(plan.folder))

    only = tuple(i for i in registry.INSTRUMENTS if i.name == "paired_forks")
    monkeypatch.setattr(autopsy, "INSTRUMENTS", only)
    monkeypatch.setattr(registry, "train_forks", forked)
    status, out, err = call("autopsy", folder, "--full", "--fork-steps", 10, "--json")
    assert status == 0, err
    content = json.loads(out)
    assert [f["name"] for f in content["findings"]] == [
        "synthetic-data-hurt-the-agent", "no-change-saves-the-agent",
    ]  # fmt: skip
    assert content["findings"][0]["run"] == str(folder)
    (plan,) = asked
    assert (plan.folder, plan.steps, plan.seeds) == (folder.parent / "autopsy-forks", 10, 3)
    assert digest(folder) == before
    status, out, _ = call("autopsy", folder, "--json")
    assert "paired_forks" not in json.loads(out)["runs"][0]["not_measured"]


def test_a_missing_checkpoint_and_a_missing_run_are_named(runs, tmp_path):
    status, _, err = call("autopsy", runs / "sac" / "seed_0", "--at", 70)
    assert status == 2
    assert "no checkpoint at step 70; it has: 60, 100." in err
    status, _, err = call("autopsy", tmp_path / "nothing")
    assert (status, err) == (2, f"ftfl: there is no run directory {tmp_path / 'nothing'}.\n")


@pytest.mark.long
def test_without_quick_models_are_trained_anew_and_the_time_left_is_told(runs, monkeypatch):
    monkeypatch.setattr(registry, "_UPDATES", 20)
    status, out, err = call("autopsy", runs / "ftfl" / "seed_0", "--json")
    assert status == 0, err
    (run,) = json.loads(out)["runs"]
    assert set(run["numbers"]) == MEASURED | REFITS | {"target_scales"}
    assert run["not_measured"] == {}
    assert "models trained anew" in err
