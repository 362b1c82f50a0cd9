"""Misuse is answered by one sentence on stderr, a non-zero exit and never a traceback."""

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from calling import call

from ftfl.store.checkpoint import list_checkpoints

PENDULUM = ["train", "gym/Pendulum-v1", "--dry-run"]
SAC = [*PENDULUM, "--algo", "sac"]


def refused(*argv):
    """The one sentence."""
    status, out, err = call(*argv)
    assert status not in (0, None)
    assert out == "", "a refusal belongs on stderr"
    assert err.count("\n") == 1, f"not one line: {err!r}"
    assert err.endswith("\n")
    assert err.startswith("ftfl: ")
    assert "Traceback" not in err
    return err


# (arguments, what the sentence must say); lists are joined to the command, strings are split.
COMMANDS = {
    "verb": ("trian gym/Pendulum-v1", r"unknown command 'trian': did you mean train"),
    "verb without likeness": ("xyzzy", r"unknown command 'xyzzy': allowed: .*doctor.*train"),
    "no task": ("train", r"train needs a task.*ftfl list tasks"),
    "task": ("train gym/Pendulm-v1 --dry-run", r"'gym/Pendulm-v1': did you mean gym/Pendulum-v1"),
    "task of dmc": ("train dmc/hoper-stand --dry-run", r"did you mean dmc/hopper-stand"),
    "suite": ("train atari/Pong --dry-run", r"unknown suite 'atari'.*dmc, gym"),
    "suite left out": ("train Hopper-v5 --dry-run", r"lacks its suite: did you mean gym/Hopper-v5"),
    "old version": ("train gym/Hopper-v2 --dry-run", r"use gym/Hopper-v5"),
    "discrete": ("train gym/CartPole-v1 --dry-run", r"Discrete action space; only continuous"),
    "unbounded": ("train dmc/lqr-lqr-2-1 --dry-run", r"unbounded actions.*point-mass"),
    "unbounded custom": ("train odd_envs:Unbounded --dry-run", r"bounds action 0 by \[-inf, inf\]"),
    "pixels": ("train odd_envs:Pixels --dry-run", r"observes pixels.*only vectors"),
    "no such module": ("train no_such:make --dry-run", r"importing no_such failed with ModuleNotF"),
    "no such function": ("train odd_envs:Plian --dry-run", r"'Plian': did you mean Plain"),
    "no function": ("train odd_envs:not_a_function --dry-run", r"is a int, not a function"),
    "termination": (
        "train odd_envs:Plain --algo mbpo --dry-run",
        r"does not say when an episode ends.*termination_fn",
    ),
    "reward not known": (
        "train gym/Hopper-v5 --dynamics.reward-model given --dry-run",
        r"names none: give its environment a reward_fn",
    ),
    "algorithm": ("train gym/Pendulum-v1 --algo mpbo", r"unknown algorithm 'mpbo': did you.*mbpo"),
    "profile": ("train gym/Pendulum-v1 --profile labtop", r"'labtop': did you mean laptop"),
    "option": ([*PENDULUM, "--stpes", "10"], r"unknown option '--stpes': did you mean --steps"),
    "option of a group": ([*PENDULUM, "--sac.discuont", "0.9"], r"did you mean --sac.discount"),
    "argument": ([*PENDULUM, "mbpo"], r"unknown argument 'mbpo'"),
    "no value": ([*PENDULUM, "--steps"], r"--steps: expected one argument"),
    "not a number": ([*PENDULUM, "--steps", "many"], r"invalid whole number value: 'many'"),
    "half a step": ([*PENDULUM, "--steps", "1.5"], r"invalid whole number value: '1.5'"),
    "discount": ([*PENDULUM, "--sac.discount", "1.2"], r"sac\.discount was given as 1\.2.*below 1"),
    "discount nan": ([*PENDULUM, "--sac.discount", "nan"], r"sac\.discount was given as nan"),
    "members": ([*PENDULUM, "--dynamics.members", "0"], r"members was given as 0.*above 0"),
    "elites": ([*PENDULUM, "--dynamics.elites", "9"], r"elites was given as 9.*members = 7"),
    "UTD": ([*PENDULUM, "--sac.updates-per-step", "0"], r"updates_per_step was given as 0.*above"),
    "steps 0": ([*PENDULUM, "--steps", "0"], r"steps was given as 0, but must be above 0"),
    "steps -5": ([*PENDULUM, "--steps", "-5"], r"steps was given as -5, but must be above 0"),
    "layers": ([*PENDULUM, "--sac.hidden", "0"], r"sac\.hidden.*at least one layer"),
    "choice": ([*PENDULUM, "--target", "sideways"], r"target was given as 'sideways'.*residual"),
    "ratio": ([*PENDULUM, "--rollouts.real-ratio", "1.5"], r"real_ratio.*between 0 and 1"),
    "action repeat": ([*PENDULUM, "--action-repeat", "0"], r"action_repeat.*above 0"),
    "reward unit": ([*PENDULUM, "--reward-unit", "-1"], r"reward_unit.*above 0"),
    "seed twice": ([*PENDULUM, "--seeds", "1", "2", "1"], r"--seeds 1 2 1 names a seed twice"),
    "seed negative": ([*PENDULUM, "--seeds", "-1"], r"seed was given as -1"),
    "seed huge": ([*PENDULUM, "--seeds", "4294967296"], r"seed was given.*below 2³²"),
    "jobs": (
        [*PENDULUM, "--jobs", "0"],
        r"--jobs: '0' was given, but it must be a whole number of 1 or more",
    ),
    "target on sac": ([*SAC, "--target", "direct"], r"--target.*'sac' has no dynamics model"),
    "members on sac": ([*SAC, "--dynamics.members=3"], r"--dynamics.members.*no dynamics model"),
    "warm-up": ([*PENDULUM, "--warmup-steps", "3"], r"warmup_steps.*at least 10 transitions"),
    "replay missing": ([*PENDULUM, "--init-replay", "no.npz"], r"--init-replay no\.npz: No such"),
    "list": ("list taks", r"unknown list 'taks': did you mean tasks"),
    "list of nothing": ("list", r"list needs one of tasks, algos, metrics"),
    "doctor's option": ("doctor --jsno", r"unknown option '--jsno': did you mean --json"),
    "eval of nothing": ("eval", r"required: RUN_DIR"),
    "eval of no run": ("eval no/such/run", r"there is no run directory no/such/run"),
    "export of no run": ("export no/such/run", r"there is no run directory no/such/run"),
    "report of no run": ("report no/such/run", r"there is no run directory no/such/run"),
    "report of nothing": ("report", r"report needs at least one run directory"),
    "episodes": ("eval x --episodes 0", r"--episodes: '0'.*whole number of 1 or more"),
    "episodes word": ("eval x --episodes few", r"--episodes: 'few'.*whole number of 1 or more"),
    "episodes endless": ("eval x --episodes inf", r"--episodes: 'inf'.*whole number of 1 or more"),
    "video size": ("eval x --video-size 100", r"--video-size: '100'.*WIDTHxHEIGHT"),
    "odd video size": ("eval x --video-size 101x50", r"--video-size: '101x50'.*two even numbers"),
}


@pytest.mark.parametrize(("argv", "says"), COMMANDS.values(), ids=COMMANDS)
def test_one_sentence(argv, says):
    sentence = refused(*(argv.split() if isinstance(argv, str) else argv))
    assert re.search(says, sentence), sentence


def test_no_verb_shows_the_overview_and_fails():
    status, out, _ = call()
    assert status == 2
    assert "usage: ftfl VERB" in out


# Places ------------------------------------------------------------------------------------------


def test_a_run_directory_is_never_overwritten(trained):
    out = trained.parents[2]
    before = sorted(trained.rglob("*"))
    status, _, err = call("train", "gym/Pendulum-v1", "--algo", "ftfl", "--out", out)
    assert status == 2
    assert re.fullmatch(
        r"ftfl: run directory .* already exists: choose another --out or --name\.\n", err
    )
    assert sorted(trained.rglob("*")) == before


def test_two_seeds_of_which_one_exists_leave_nothing_behind(trained):
    out = trained.parents[2]
    seeds = ["--seeds", 5, 0]
    status, _, err = call("train", "gym/Pendulum-v1", "--algo", "ftfl", "--out", out, *seeds)
    assert status == 2
    assert "seed_0 already exists" in err
    assert [path.name for path in trained.parent.iterdir()] == ["seed_0"]


@pytest.mark.parametrize("place", ["file", "proc"])
def test_a_place_that_cannot_be_written(place, tmp_path):
    (tmp_path / "file").write_text("")
    out = tmp_path / "file" if place == "file" else "/proc/ftfl"
    status, _, err = call("train", "gym/Pendulum-v1", "--out", out)
    assert status == 2
    assert re.fullmatch(r"ftfl: cannot create run directory .*choose another --out\.\n", err)


def test_export_and_report_to_places_that_cannot_be_written(trained, tmp_path):
    (tmp_path / "file").write_text("")
    nowhere = tmp_path / "file" / "below"
    assert "cannot write" in refused("export", trained, "--out", nowhere)
    assert "already exists" in refused("export", trained, "--out", tmp_path)
    assert "cannot write" in refused("report", trained, "--out", nowhere / "report.html")
    assert "is a folder" in refused("report", trained, "--out", tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]


def test_videos_that_cannot_be_written(trained, tmp_path, monkeypatch):
    assert "must end in .mp4" in refused("eval", trained, "--video", tmp_path / "walk.gif")
    (tmp_path / "file").write_text("")
    below = tmp_path / "file" / "walk.mp4"
    assert "cannot write --video" in refused("eval", trained, "--video", below)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    sentence = refused("eval", trained, "--video", tmp_path / "walk.mp4")
    assert 'pip install "ftfl[video]"' in sentence


# Files -------------------------------------------------------------------------------------------


def arrays(rows=30, **changes):
    good = {
        "obs": np.zeros((rows, 3)), "action": np.zeros((rows, 1)), "reward": np.zeros(rows),
        "next_obs": np.zeros((rows, 3)), "terminated": np.zeros(rows, bool),
    }  # fmt: skip
    return {k: v for k, v in (good | changes).items() if v is not None}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (arrays(obs=np.zeros((30, 4))), r"obs has shape \(30, 4\).*needs \(30, 3\)"),
        (arrays(reward=np.zeros((30, 1))), r"reward has shape"),
        (arrays(action=np.zeros((29, 1))), r"action has shape \(29, 1\).*needs \(30, 1\)"),
        (arrays(0), r"holds no transitions"),
        (arrays(reward=np.array(["a"] * 30)), r"reward holds <U1, no numbers"),
        (arrays(terminated=None), r"lacks terminated: it needs obs \(N, O\)"),
        (arrays(reward=np.full(30, np.nan)), r"reward is not finite in row 0"),
        (arrays(action=np.full((30, 1), 2.0)), r"action row 0 leaves \[-1, 1\]"),
        (arrays(obs=np.array([None] * 30)), r"cannot read .*allow_pickle=False"),
    ],
)
def test_logged_transitions_that_do_not_fit(content, says, tmp_path):
    path = tmp_path / "log.npz"
    np.savez(path, **content)
    assert re.search(says, refused(*PENDULUM, "--init-replay", path))


@pytest.mark.parametrize("content", [b"", b"not an archive", b"PK\x03\x04 cut off", "array"])
def test_a_log_that_is_no_archive(content, tmp_path):
    path = tmp_path / "log.npz"
    if content == "array":
        with open(path, "wb") as file:
            np.save(file, np.zeros(3))
    else:
        path.write_bytes(content)
    assert "cannot read --init-replay" in refused(*PENDULUM, "--init-replay", path)


def test_a_folder_of_runs_is_not_a_run(trained):
    sentence = refused("eval", trained.parent)
    assert f"for example {trained}" in sentence


@pytest.mark.parametrize("verb", ["eval", "export", "report"])
def test_an_empty_folder_is_not_a_run(verb, tmp_path):
    assert "is not a run directory" in refused(verb, tmp_path)


@pytest.mark.parametrize("verb", ["eval", "export", "report"])
def test_a_damaged_configuration(verb, run_copy):
    (run_copy / "config.json").write_text("{")
    assert "config.json is damaged: it is not valid JSON" in refused(verb, run_copy)


@pytest.mark.parametrize("verb", ["eval", "export"])
def test_an_unknown_field_in_the_configuration(verb, run_copy):
    path = run_copy / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"stpes": 3}))
    assert "unknown configuration field 'stpes': did you mean steps" in refused(verb, run_copy)


@pytest.mark.parametrize("verb", ["eval", "export"])
def test_no_checkpoint_at_that_step(verb, trained):
    assert "no checkpoint at step 45; it has: 30, 60" in refused(verb, trained, "--checkpoint", 45)


@pytest.mark.parametrize("verb", ["eval", "export"])
def test_only_damaged_checkpoints(verb, run_copy):
    for path in list_checkpoints(run_copy / "checkpoints"):
        damage(path)
    assert "none of the 2 checkpoints" in refused(verb, run_copy)


@pytest.mark.parametrize("verb", ["eval", "export"])
def test_a_run_without_checkpoints(verb, run_copy):
    for path in list_checkpoints(run_copy / "checkpoints"):
        path.rename(path.with_name("other-" + path.name))
    assert "there is no checkpoint in" in refused(verb, run_copy)


def test_a_configuration_of_another_size(run_copy):
    path = run_copy / "config.json"
    config = json.loads(path.read_text())
    config["sac"]["hidden"] = [8, 8]
    path.write_text(json.dumps(config))
    assert re.search(r"actor '\S+' is float32\(3, 16\).*\(3, 8\)", refused("eval", run_copy))


def damage(checkpoint):
    path = checkpoint / "agent.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))


# Whole processes ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["trian"], "unknown command 'trian'"),
        (["train", "gym/Pendulum-v1", "--sac.discount", "1.2"], "sac.discount was given as 1.2"),
        (["eval", "no/such/run"], "there is no run directory"),
    ],
)
def test_in_a_process_of_its_own(argv, says):
    child = subprocess.run(
        [sys.executable, "-m", "ftfl", *argv], capture_output=True, text=True, timeout=120
    )
    assert child.returncode == 2
    assert child.stdout == ""
    assert len(child.stderr.splitlines()) == 1
    assert says in child.stderr


def test_a_closed_pipe_is_no_error():
    read, write = os.pipe()
    os.close(read)
    with open(write, "wb") as pipe:
        child = subprocess.run(
            [sys.executable, "-m", "ftfl", "list", "metrics"],
            stdout=pipe, stderr=subprocess.PIPE, text=True, timeout=120,
        )  # fmt: skip
    assert "Traceback" not in child.stderr
    assert "Exception ignored" not in child.stderr
