"""Environments in processes of their own: the same bits, and nothing is left behind."""

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from ftfl.config import TaskConfig
from ftfl.envs import EnvFault, make_env, process
from ftfl.envs.channel import CLOSE, MAKE
from ftfl.envs.isolated import Isolated
from ftfl.envs.make import make_task
from ftfl.envs.process import EnvProcess
from ftfl.errors import FtflError

pytestmark = pytest.mark.slow  # each starts a process, which imports JAX
LIMIT = 5.0
ACTION = np.full(1, 0.25, np.float32)


@pytest.fixture(autouse=True)
def nothing_left_behind(tmp_path_factory, monkeypatch):
    """MuJoCo would leave a log file in the current directory."""
    here = tmp_path_factory.mktemp("here")
    monkeypatch.chdir(here)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    assert list(here.iterdir()) == []


def isolated(name, limit=LIMIT, **options):
    """A broken environment, closed at the end of the with block."""
    env = make_env(f"broken_envs:{name}", step_limit_seconds=limit, **options)
    return contextlib.closing(env)


def take(env, steps):
    for _ in range(steps):
        env.step(np.full(env.spec.act_dim, 0.25, np.float32))


def alive(pid):
    """Whether a process runs (and is not only waiting to be reaped)."""
    try:
        os.kill(pid, 0)
        # Where nobody reaps orphans they stay in the table.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except ProcessLookupError:
        return False
    except OSError:
        return not Path("/proc/self").exists()  # a system without /proc


def gone(pid, seconds=10.0):
    deadline = time.monotonic() + seconds
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not alive(pid)


def rollout(env, seed, steps=30):
    rng = np.random.default_rng(0)
    rows = [env.reset(seed).tobytes()]
    for _ in range(steps):
        result = env.step(rng.uniform(-1.5, 1.5, env.spec.act_dim).astype(np.float32))
        rows.append((result.obs.tobytes(), result.reward, result.terminated, result.truncated))
        if result.terminated or result.truncated:
            break
    return rows


@pytest.mark.parametrize("task", ["gym/Pendulum-v1", "gym/Hopper-v5", "dmc/cartpole-swingup"])
def test_the_bits_are_those_of_the_same_process(task):
    config = TaskConfig(name=task, action_repeat=2, reward_unit=0.1)
    here = make_task(config)
    with contextlib.closing(
        make_task(TaskConfig(task, action_repeat=2, reward_unit=0.1, step_limit_seconds=LIMIT))
    ) as there:
        assert isinstance(there.inner, Isolated)
        assert there.spec.obs_names == here.spec.obs_names
        assert there.spec.max_episode_steps == here.spec.max_episode_steps
        for seed in (3, 4):
            assert rollout(there, seed) == rollout(here, seed)
        assert there.clipped_actions == here.clipped_actions > 0
        there.restart()
        assert rollout(there, 3) == rollout(here, 3)


def test_the_process_starts_at_the_first_reset_and_ends_with_close():
    with isolated("Sound") as env:
        assert env.inner.process is None
        env.reset(0)
        pid = env.inner.process.pid
        assert alive(pid)
    assert gone(pid, 0)
    assert env.inner.process.pid is None


def test_a_diverged_simulation_is_noticed_from_afar():
    with isolated("Diverges") as env:
        env.reset(0)
        with pytest.raises(EnvFault, match=r"MuJoCo warned mjWARN_BAD.*at step 3") as fault:
            take(env, 3)
        assert fault.value.cause == "simulator"
        env.reset(1)  # the same process goes on
        env.step(np.zeros(6))


def test_exceptions_cross_as_text():
    with isolated("RaisesInStep") as env:
        env.reset(0)
        pid = env.inner.process.pid
        with pytest.raises(
            EnvFault, match=r"step raised ZeroDivisionError: the gear box \(bro"
        ) as e:
            take(env, 3)
        assert e.value.cause == "exception"
        assert 'raise ZeroDivisionError("the gear box' in e.value.details
        env.restart()
        assert env.inner.process.pid != pid
        env.reset(0)
        env.step(ACTION)


def test_pictures_come_through_and_refusals_too():
    with isolated("Draws") as env:
        with pytest.raises(FtflError, match="call reset"):
            env.render()
        env.reset(0)
        env.step(ACTION)
        picture = env.render()
        assert (picture.shape, picture.dtype, picture[0, 0, 0]) == ((3, 4, 3), np.uint8, 1)
    with isolated("Sound") as env:
        env.reset(0)
        with pytest.raises(FtflError, match="made without render_mode='rgb_array'"):
            env.render()
        env.step(ACTION)


def test_after_a_death_the_next_reset_starts_another_process():
    with isolated("Exits") as env:
        first = env.reset(0)
        with pytest.raises(EnvFault, match="exit code 7") as fault:
            take(env, 3)
        assert fault.value.cause == "died"
        with pytest.raises(FtflError, match="call reset"):
            env.step(ACTION)
        assert np.array_equal(env.reset(0), first)


def test_what_the_environment_started_ends_with_it():
    with isolated("HangsWithCompany", limit=1.0) as env:
        company = int(env.reset(0)[0])
        assert alive(company)
        env.step(ACTION)
        with pytest.raises(EnvFault, match="took longer than 1 s"):
            env.step(ACTION)
        assert gone(company)


def test_signals_for_the_run_do_not_stop_the_environment():
    with isolated("Sound") as env:
        env.reset(0)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(env.inner.process.pid, number)
        assert env.step(ACTION).obs[0] == 1


def test_an_interrupted_wait_leaves_no_late_answer(monkeypatch):
    with isolated("Sound") as env:
        env.reset(0)
        pid = env.inner.process.pid

        def interrupt(seconds):
            raise KeyboardInterrupt

        monkeypatch.setattr(env.inner.process._channel, "receive", interrupt)
        with pytest.raises(KeyboardInterrupt):
            env.step(ACTION)
        assert gone(pid, 0)


def test_what_it_prints_is_kept_out_of_the_results(capfd):
    with isolated("Talks") as env:
        env.reset(0)
        env.step(ACTION)
    out, err = capfd.readouterr()
    assert out == ""
    assert "hello" in err


def test_a_stubborn_close_is_cut_short(monkeypatch, caplog):
    monkeypatch.setattr(process, "_END_SECONDS", 0.3)
    monkeypatch.setenv("FTFL_TEST_PARENT", "1")
    with isolated("HangsInClose", limit=0.2) as env:
        monkeypatch.delenv("FTFL_TEST_PARENT")
        env.reset(0)
        pid = env.inner.process.pid
    assert gone(pid, 0)
    assert "HangsInClose: did not close in time and was killed" in caplog.text


# Making and making anew --------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [None, LIMIT])
def test_a_restart_that_fails_says_so(limit, monkeypatch):
    with isolated("ClosedForToday", limit) as env:
        env.reset(0)
        monkeypatch.setenv("BROKEN_ENVS_CLOSED", "1")
        with pytest.raises(FtflError, match=r"cannot be restarted: .*OSError: closed for") as error:
            env.restart()
        assert not isinstance(error.value, EnvFault)
        assert "\n" not in str(error.value)
        monkeypatch.delenv("BROKEN_ENVS_CLOSED")
        env.restart()
        env.reset(0)


@pytest.mark.parametrize("limit", [None, LIMIT])
def test_a_restart_into_other_spaces_is_refused(limit, monkeypatch):
    with isolated("Grows", limit) as env:
        env.reset(0)
        monkeypatch.setenv("BROKEN_ENVS_GROWN", "1")
        with pytest.raises(FtflError, match=r"3 observations and 1 actions, before it had 2 and 1"):
            env.restart()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("HangsAtMake", "making the environment took longer than 1 s"),
        ("ExitsAtMake", "its process ended with exit code 7 in making the environment"),
    ],
)
def test_making_may_hang_or_die_too(name, message, monkeypatch):
    monkeypatch.setattr(process, "FIRST_SECONDS", 1.0 if name == "HangsAtMake" else 60.0)
    with pytest.raises(FtflError, match=message):
        EnvProcess((f"broken_envs:{name}", 1, 1.0, False), 0.1)


def test_environments_of_the_script_itself_are_refused():
    with pytest.raises(FtflError, match="move make_env to a module, or leave step_limit_seconds"):
        EnvProcess(("__main__:make_env", 1, 1.0, False), 1.0)


def test_a_process_that_cannot_start_is_named(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(FtflError, match=r"no process could be started for it .*step_limit_seconds"):
        EnvProcess(("broken_envs:Sound", 1, 1.0, False), 1.0)


@pytest.mark.parametrize("limit", [0.0, -1.0, np.inf, np.nan])
def test_limits_out_of_range_are_refused(limit):
    with pytest.raises(FtflError, match=r"step_limit_seconds .* must be a positive finite number"):
        make_env("gym/Pendulum-v1", step_limit_seconds=limit)


# The run dies ------------------------------------------------------------------------------------


def run_script(tmp_path, name, first_seconds):
    """A run that tells its environment's process and never ends; the Popen and that number."""
    script = tmp_path / "run.py"
    script.write_text(
        textwrap.dedent(f"""
        import sys, time
        sys.path[:0] = {sys.path!r}
        from ftfl.envs import make_env, process
        process.FIRST_SECONDS = {first_seconds}
        env = make_env("broken_envs:{name}", step_limit_seconds=0.2)
        env.reset(0)
        print(env.inner.process.pid, flush=True)
        env.inner.process._limit = 3600
        while True:
            env.step([0.0])
            time.sleep(0.01)
        """)
    )
    run = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    assert run.stdout is not None
    with run.stdout:
        return run, int(run.stdout.readline())


def test_the_environment_ends_when_its_run_is_killed(tmp_path):
    run, pid = run_script(tmp_path, "NeverEnds", first_seconds=60.0)
    assert alive(pid)
    run.kill()
    run.wait()
    assert gone(pid)


@pytest.mark.long
def test_even_an_environment_that_hangs_ends_after_its_run(tmp_path):
    run, pid = run_script(tmp_path, "HangsInStep", first_seconds=10.0)
    time.sleep(1.0)  # it hangs now
    run.kill()
    run.wait()
    assert alive(pid)
    assert gone(pid, 25.0)


def test_letters_are_distinct():
    from ftfl.envs import channel

    letters = [v for k, v in vars(channel).items() if k.isupper() and isinstance(v, bytes)]
    assert len(letters) == len(set(letters)) == 8
    assert {MAKE, CLOSE} <= set(letters)
