"""Ctrl-C, SIGTERM, kill -9: what a process leaves behind, and what becomes of it."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from runs import digest, records

from ftfl import config as cfg
from ftfl import presets
from ftfl.store.checkpoint import list_checkpoints
from ftfl.store.rundir import RunDir
from ftfl.training.launch import child_environment
from helpers import TINY

HERE = Path(__file__).resolve().parent
SLOW, STUCK, HELD = (f"slow_envs:make_{name}" for name in ("slow", "stuck", "held"))


@pytest.fixture
def env(tmp_path):
    base = dict(os.environ, PYTHONPATH=os.pathsep.join([str(HERE), str(HERE.parent)]))
    return child_environment(base)


@pytest.fixture(autouse=True)
def hangups_are_heard():
    """Under nohup they are ignored, and by every child; ftfl leaves it so."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


def create(path, task, algo="sac", **changes):
    values = {**TINY, "checkpoint_every": 20, "eval_every": 50, "eval_episodes": 1, **changes}
    if algo == "sac":
        values = {k: v for k, v in values.items() if not k.startswith(("dynamics.", "rollouts."))}
    config = presets.build(task, algo, "probe", values)
    return RunDir.create(path, cfg.to_dict(config), {})


def worker(run_dir, env):
    """The training process of one run, as `ftfl train` starts it from a terminal.

    A shell that starts the tests in the background has them ignore Ctrl-C, and so its children.
    """
    command = [sys.executable, "-m", "ftfl.training.workers", str(run_dir.path), "0"]
    command.append(str(os.getpid()))
    ours = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True)
    finally:
        signal.signal(signal.SIGINT, ours)


def run_to_end(run_dir, env):
    process = worker(run_dir, env)
    _, said = process.communicate(timeout=600)
    assert process.returncode == 0, said


def command_line(folder, env):
    """`ftfl train` in a session of its own, once its run is training; and that run."""
    command = [
        sys.executable, "-m", "ftfl", "train", SLOW, "--algo", "sac", "--profile", "probe",
        "--steps", "2000", "--warmup-steps", "40", "--sac.hidden", "8", "8",
        "--out", str(folder),
    ]  # fmt: skip
    process = subprocess.Popen(
        command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    place = folder / "slow_envs_make_slow" / "sac+hidden=8x8" / "seed_0"
    deadline = time.monotonic() + 120
    while not ((place / "status.json").exists() and state(RunDir.open(place)) == "training"):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return process, RunDir.open(place)


def wait_for(condition, process, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def steps_done(run_dir):
    return run_dir.read_status().get("env_steps", 0)


def state(run_dir):
    return run_dir.read_status().get("state")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_the_run_and_resuming_ends_with_the_same_bits(number, env, tmp_path):
    run_dir = create(tmp_path / "run", HELD)
    process = worker(run_dir, {**env, "HELD_IN": str(tmp_path)})
    wait_for((tmp_path / "held").exists, process)
    process.send_signal(number)
    (tmp_path / "free").touch()
    _, said = process.communicate(timeout=60)
    assert process.returncode == 75
    status = run_dir.read_status()
    assert status["state"] == "stopped"
    assert f"stopped by {signal.Signals(number).name} and saved at step" in status["message"]
    assert "ftfl resume" in said
    assert "Traceback" not in said
    assert status["env_steps"] == 60
    assert list_checkpoints(run_dir.checkpoints_path)[-1].name[-3:] == "060"
    run_to_end(run_dir, env)
    whole = create(tmp_path / "whole", HELD)
    run_to_end(whole, env)
    assert digest(run_dir.path) == digest(whole.path)
    assert records(run_dir.path) == records(whole.path)


@pytest.mark.slow
def test_the_same_signal_twice_leaves_at_once(env, tmp_path):
    run_dir, mark = create(tmp_path / "run", STUCK), tmp_path / "stuck"
    process = worker(run_dir, {**env, "STUCK_FILE": str(mark)})
    wait_for(mark.exists, process)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGTERM)  # as `timeout` does: still one wish
    time.sleep(1.5)
    assert process.poll() is None, "the environment is stuck: the run cannot save now"
    start = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 128 + signal.SIGTERM
    assert time.monotonic() - start < 5
    assert list_checkpoints(run_dir.checkpoints_path), "what was saved stays"
    process.stderr.close()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_all_processes_at_once_saves_every_run(number, env, tmp_path):
    process, run_dir = command_line(tmp_path, env)
    os.killpg(process.pid, number)
    assert process.wait(60) == 75
    status = run_dir.read_status()
    assert status["state"] == "stopped"
    newest = list_checkpoints(run_dir.checkpoints_path)[-1]
    assert int(newest.name.removeprefix("step_")) == status["env_steps"] > 40


@pytest.mark.slow
def test_a_process_whose_command_was_killed_saves_itself_and_ends(env, tmp_path):
    process, run_dir = command_line(tmp_path, env)
    process.kill()
    process.wait()
    deadline = time.monotonic() + 120
    while state(run_dir) != "stopped":
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert "the end of the process that started it" in run_dir.read_status()["message"]


def kill_until_done(run_dir, env, kills, rng):
    """SIGKILL at random moments, resume, …; how often it was killed before it could finish."""
    killed = 0
    while killed < kills:
        process = worker(run_dir, env)
        wait_for(lambda: state(run_dir) not in (None, "starting", "done"), process)
        start = steps_done(run_dir)
        goal = start + rng.randrange(1, 40)
        while process.poll() is None and steps_done(run_dir) < goal:
            time.sleep(0.001 * rng.random())
        process.kill()
        process.wait()
        process.stderr.close()
        if state(run_dir) == "done":
            break
        killed += 1
    run_to_end(run_dir, env)
    return killed


def harness(algo, kills, steps, seed, env, tmp_path):
    whole = create(tmp_path / "whole", SLOW, algo, steps=steps)
    run_to_end(whole, env)
    run_dir = create(tmp_path / "killed", SLOW, algo, steps=steps)
    killed = kill_until_done(run_dir, env, kills, random.Random(seed))
    assert digest(run_dir.path) == digest(whole.path)
    assert records(run_dir.path) == records(whole.path)
    return killed


@pytest.mark.slow
def test_killed_at_a_random_moment_a_run_ends_with_the_same_bits(env, tmp_path):
    assert harness("sac", 2, 120, 0, env, tmp_path) == 2


@pytest.mark.long
@pytest.mark.usefixtures("users_kernels")
@pytest.mark.parametrize("algo", ["sac", "mbpo", "ftfl"])
def test_killed_at_ten_random_moments_a_run_ends_with_the_same_bits(algo, env, tmp_path):
    killed = harness(algo, 10, 600, 1, env, tmp_path)
    print(f"{algo}: killed {killed} times, digest {digest(tmp_path / 'whole')[:16]} both")
    assert killed == 10
