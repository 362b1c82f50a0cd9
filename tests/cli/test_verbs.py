"""Every verb does its work, from the command line to the files it leaves."""

import importlib.util
import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from calling import MODEL_FREE, call

import ftfl
from ftfl.cli import VERBS, doctor
from ftfl.cli.text import columns, wrapped
from ftfl.envs import rendering
from ftfl.presets import PRESETS, PROFILES
from ftfl.store.checkpoint import list_checkpoints
from ftfl.store.metrics import METRICS
from ftfl.store.metrics_file import read_metrics
from ftfl.training.policy import load_policy
from ftfl.training.video import frame_rate


def answer(*argv, status=0):
    """The JSON object that is all of stdout."""
    code, out, err = call(*argv, "--json")
    assert code == status, err
    assert out.count("\n") == 1
    return json.loads(out)


def plain(*argv):
    code, out, err = call(*argv)
    assert code == 0, err
    return out


# Overview ----------------------------------------------------------------------------------------


def test_the_overview_names_every_verb_and_each_exists():
    overview = plain("--help")
    for verb in VERBS:
        assert f"\n  {verb} " in overview
        assert importlib.util.find_spec(f"ftfl.cli.{verb}"), f"{verb} is announced, but missing"


@pytest.mark.parametrize("verb", VERBS)
def test_help(verb):
    text = plain(verb, "--help")
    assert text.startswith(f"usage: ftfl {verb}")
    assert "--json" in text


def test_the_version():
    assert plain("--version") == f"ftfl {ftfl.__version__}\n"


# list --------------------------------------------------------------------------------------------


def test_list_tasks():
    tasks = answer("list", "tasks")
    assert "dmc/hopper-stand" in tasks["dmc"]
    assert "gym/Pendulum-v1" in tasks["gym"]
    assert not any("lqr" in task for task in tasks["dmc"])
    page = plain("list", "tasks")
    assert set(tasks["dmc"] + tasks["gym"]) <= set(page.split())
    dials = {task.partition("@")[0] for task in tasks["probe"]}
    assert len(dials) == 10
    assert all(f"{dial}@LEVEL" in page for dial in dials - {"probe/rest"})


def test_list_algos():
    content = answer("list", "algos")
    assert set(content["algos"]) == set(PRESETS)
    assert set(content["profiles"]) == set(PROFILES)
    ftfl_changes = content["algos"]["ftfl"]["changes"]
    assert ftfl_changes == {"dynamics.target": "direct", "dynamics.scale": "unit"}
    text = plain("list", "algos")
    assert "dynamics.target=direct, dynamics.scale=unit" in text
    assert "changes: no dynamics, no rollouts" in text
    assert "arXiv 2510.01457" in text


def test_list_metrics():
    assert set(answer("list", "metrics")) == set(METRICS)
    text = plain("list", "metrics")
    assert "eval/return_mean_reward [reward]: Mean return" in text


@pytest.mark.parametrize("what", ["tasks", "algos", "metrics"])
@pytest.mark.parametrize("terminal", [60, 140])
def test_lists_fit_the_terminal(what, terminal, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(terminal))
    lines = plain("list", what).splitlines()
    assert max(map(len, lines)) <= terminal
    assert max(map(len, lines)) > terminal * 0.6, "the width is there to be used"


def test_columns_read_downwards(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    names = [f"name-number-{i}" for i in range(5)]
    first = columns(names).splitlines()[0].split()
    assert first == ["name-number-0", "name-number-3"]
    assert columns([]) == ""


def test_wrapped_text_hangs(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    lines = wrapped("word " * 20, hanging=2, lead="ok  ").splitlines()
    assert lines[0].startswith("ok  word")
    assert all(line.startswith("      word") for line in lines[1:])


# doctor ------------------------------------------------------------------------------------------


@pytest.fixture
def no_children(monkeypatch):
    """Spare the processes that try JAX and OpenGL."""
    monkeypatch.setattr(doctor, "jax_works", lambda: doctor.Row("jax runs", "ok", "pretended"))
    monkeypatch.setattr(rendering, "failure", lambda backend: "")


def test_doctor_on_this_machine():
    content = answer("doctor")
    rows = {row["name"]: row for row in content["rows"]}
    assert content["problems"] == 0, rows
    assert rows["jax runs"]["what"].lower().startswith("compiles on ")
    assert set(doctor.PACKAGES) <= set(rows)
    assert rows["rendering"]["status"] == "note"  # the tests run with MUJOCO_GL=disabled
    assert "turns pictures off" in rows["rendering"]["what"]


def test_doctor_looks_at_a_task(no_children):
    content = answer("doctor", "gym/Pendulum-v1")
    rows = {row["name"]: row for row in content["rows"]}
    assert "steps/s" in rows["throughput"]["what"]
    assert rows["same seed, same episode"]["what"] == "bitwise equal"
    assert rows["termination function"]["status"] == "ok"


@pytest.mark.parametrize(
    ("task", "says"),
    [
        ("gym/CartPole-v1", "Discrete"),
        ("odd_envs:Plain", "termination_fn"),
        ("gym/Pendulm-v1", "did you mean gym/Pendulum-v1"),
    ],
)
def test_doctor_finds_the_problem_of_a_task(task, says, no_children):
    content = answer("doctor", task, status=1)
    bad = [row for row in content["rows"] if row["status"] == "problem"]
    assert len(bad) == content["problems"] > 0
    assert any(says in row["what"] + row["fix"] for row in bad), bad


def test_doctor_knows_bad_versions(no_children, monkeypatch):
    installed = {"mujoco": "4.0.1", "jax": "0.9.2", "dm-control": "1.0.50"}
    real = doctor.version
    monkeypatch.setattr(doctor, "version", lambda name: installed.get(name, real(name)))
    rows = {row["name"]: row for row in answer("doctor", status=1)["rows"]}
    assert "dm-control 1.0.50 fails on every task with mujoco 4" in rows["mujoco"]["what"]
    assert 'pip install "mujoco>=3.17,<4" in a fresh environment' in rows["mujoco"]["fix"]
    assert rows["jax"]["status"] == "problem"
    assert rows["numpy"]["status"] == "ok"


def test_doctor_survives_a_missing_package(monkeypatch):
    monkeypatch.setattr(doctor, "version", lambda name: None)
    rows = answer("doctor", status=1)["rows"]
    assert [row["name"] for row in rows if row["what"] == "not installed"] == [*doctor.PACKAGES]
    assert rows[-1]["name"] == "the rest"


def test_doctor_knows_bad_pythons(monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 10, 4, "final", 0))
    assert doctor.python().status == "problem"
    assert "3.11 to 3.13" in doctor.python().fix


def test_doctor_hears_what_stops_jax(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--no_such_flag")
    row = doctor.jax_works()
    assert row.status == "problem"
    assert row.what == "Unknown flag in XLA_FLAGS: --no_such_flag"


@pytest.mark.parametrize(
    ("have", "limits", "good"),
    [
        ("3.17", ">=3.17,<4", True), ("3.17.0", ">=3.17,<4", True), ("4.0", ">=3.17,<4", False),
        ("3.9", ">=3.17", False), ("0.10.2", ">=0.10", True), ("2.0.0rc1", ">=2", True),
        ("1.0.50", ">=1.0.50,<1.1", True), ("1.1", "<1.1", False), ("anything", "", True),
    ],
)  # fmt: skip
def test_versions_compare_as_numbers(have, limits, good):
    assert doctor.satisfies(have, limits) is good


def test_doctor_on_disks(tmp_path, monkeypatch):
    assert doctor.disk(tmp_path / "not" / "yet").status == "ok"
    (tmp_path / "file").write_text("")
    assert doctor.disk(tmp_path / "file").status == "problem"
    usage = shutil.disk_usage(tmp_path)
    for free, status in ((10**8, "problem"), (10**9, "note")):
        monkeypatch.setattr(shutil, "disk_usage", lambda _, f=free: usage._replace(free=f))
        assert doctor.disk(tmp_path).status == status


def test_doctor_on_missing_extras(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    fixes = [row.fix for row in doctor.extras()]
    assert fixes == ['pip install "ftfl[tensorboard]"', 'pip install "ftfl[video]"']


def test_a_back_end_that_is_not_there(monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "nonsense")
    row = doctor.rendering()
    assert row.status == "note"
    assert "invalid value for environment variable MUJOCO_GL: nonsense" in row.what
    assert rendering.PACKAGES in row.fix


# train -------------------------------------------------------------------------------------------


def test_a_dry_run_says_the_plan_and_writes_nothing(tmp_path):
    out = tmp_path / "runs"
    argv = ["train", "gym/Pendulum-v1", "--seeds", 3, 4, "--out", out, "--dry-run", "--steps", 50]
    text = plain(*argv, "--sac.discount", "0.95")
    assert "you set: sac.discount=0.95, steps=50" in text
    assert f"{out}/gym_Pendulum-v1/ftfl+discount=0.95/seed_3" in text
    assert f"{out}/gym_Pendulum-v1/ftfl+discount=0.95/seed_4" in text
    assert not out.exists()


def test_training_answers_with_its_runs(training, trained):
    (run,) = json.loads(training)["runs"]
    assert run["state"] == "done"
    assert run["seed"] == 0
    records = read_metrics(trained / "metrics.jsonl")
    returns = [r["eval/return_mean_reward"] for r in records if "eval/return_mean_reward" in r]
    assert run["last_return"] == returns[-1]
    assert [int(p.name[5:]) for p in list_checkpoints(trained / "checkpoints")] == [30, 60]
    assert "--sac.batch-size" in json.loads((trained / "provenance.json").read_text())["command"]


# eval --------------------------------------------------------------------------------------------


def test_eval_repeats_the_runs_own_evaluation(trained):
    result = answer("eval", trained, "--episodes", 1)
    last = [r for r in read_metrics(trained / "metrics.jsonl") if "eval/return_mean_reward" in r][
        -1
    ]
    assert result["return_mean"] == last["eval/return_mean_reward"]
    assert result["checkpoint_step"] == 60
    assert result["deterministic"] is True
    assert result["damaged_checkpoints"] == []


def test_eval_is_the_mean_of_all_episodes(trained):
    result = answer("eval", trained, "--episodes", 3, "--seed", 7)
    returns = result["returns"]
    assert len(returns) == len(set(returns)) == 3
    assert result["return_mean"] == pytest.approx(np.mean(returns), rel=1e-12)
    assert result["return_std"] == pytest.approx(np.std(returns), rel=1e-12)
    assert (result["return_min"], result["return_max"]) == (min(returns), max(returns))
    assert result["lengths_steps"] == [200] * 3
    text = plain("eval", trained, "--episodes", 3, "--seed", 7)
    assert f"mean {result['return_mean']:.4g} of 3 episodes" in text
    assert text.count("  episode ") == 3


def test_sampled_actions_follow_their_seed(trained):
    one = answer("eval", trained, "--episodes", 1, "--stochastic")
    assert one["deterministic"] is False
    assert answer("eval", trained, "--episodes", 1, "--stochastic")["returns"] == one["returns"]
    assert answer("eval", trained, "--episodes", 1)["returns"] != one["returns"]


def test_an_older_checkpoint_is_another_policy(trained):
    old, new = load_policy(trained, 30), load_policy(trained)
    obs = np.array([1.0, 0.0, 0.5], np.float32)
    assert (old.step, new.step) == (30, 60)
    assert not np.array_equal(old.act(obs), new.act(obs))
    assert answer("eval", trained, "--episodes", 1, "--checkpoint", 30)["checkpoint_step"] == 30


def test_a_damaged_checkpoint_is_named_and_passed_over(run_copy):
    newest = list_checkpoints(run_copy / "checkpoints")[-1] / "agent.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1])
    status, out, err = call("eval", run_copy, "--episodes", 1, "--json")
    assert status == 0
    assert json.loads(out)["checkpoint_step"] == 30
    assert str(newest) in json.loads(out)["damaged_checkpoints"][0]
    assert err.startswith("ftfl: passed over a damaged checkpoint:")
    assert str(newest) in err


def test_returns_are_in_the_tasks_own_unit(run_copy):
    before = answer("eval", run_copy, "--episodes", 1)
    path = run_copy / "config.json"
    config = json.loads(path.read_text())
    config["task"]["reward_unit"] = 2.0**-10
    path.write_text(json.dumps(config))
    assert answer("eval", run_copy, "--episodes", 1)["returns"] == before["returns"]


@pytest.mark.parametrize(
    ("seconds", "fps", "every"),
    [(0.05, 20, 1), (0.01, 50, 2), (0.002, 500 / 9, 9), (1 / 60, 60, 1), (None, 30, 1)],
)
def test_videos_run_in_real_time(seconds, fps, every):
    assert frame_rate(seconds) == (pytest.approx(fps), every)


@pytest.fixture(scope="module")
def cartpole(tmp_path_factory):
    out = tmp_path_factory.mktemp("cartpole")
    argv = ["train", "dmc/cartpole-balance", "--out", out, *MODEL_FREE]
    content = answer(*argv, "--action-repeat", 8)
    return Path(content["runs"][0]["path"])


# imageio's reader leaves the pipes of its FFmpeg to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.slow
def test_a_video_shows_the_first_episode(cartpole, tmp_path, monkeypatch):
    monkeypatch.delenv("MUJOCO_GL")
    if rendering.find() is None:
        pytest.skip("no OpenGL on this machine")
    out = tmp_path / "new" / "cart.mp4"
    result = answer("eval", cartpole, "--episodes", 1, "--video", out, "--video-size", "160x90")
    video = result["video"]
    assert video["return"] == result["returns"][0]
    # 1,000 steps of 0.01 s, eight to an action: 125 actions, and the start.
    assert (video["frames"], video["fps"]) == (126, 12.5)
    assert [path.name for path in out.parent.iterdir()] == ["cart.mp4"]
    import imageio.v2 as imageio

    monkeypatch.setenv("IMAGEIO_FFMPEG_NO_PREVENT_SIGINT", "1")
    with imageio.get_reader(out) as reader:
        assert reader.get_meta_data()["size"] == (160, 90)
        assert reader.get_meta_data()["fps"] == 12.5
        frames = [np.asarray(frame) for frame in reader]
    assert len(frames) == 126
    assert not np.array_equal(frames[0], frames[-1])
    assert frames[0].std() > 5, "an empty picture"


def test_no_video_where_nothing_draws(cartpole, tmp_path, monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "disabled")
    status, _, err = call(
        "eval", cartpole, "--episodes", 1, "--video", tmp_path / "a.mp4", "--json"
    )
    assert status == 2
    assert err.count("\n") == 1
    assert "MUJOCO_GL=disabled turns pictures off" in err
    assert rendering.PACKAGES in err
    assert list(tmp_path.iterdir()) == []


# export ------------------------------------------------------------------------------------------

PLAY = """
import json, sys
import numpy as np
sys.path.insert(0, sys.argv[1])
from policy import Policy
policy = Policy()
obs = np.array(json.loads(sys.argv[2]), np.float32)
heavy = [name for name in ("jax", "ftfl", "gymnasium") if name in sys.modules]
unit, scaled = ([play(o).tolist() for o in obs] for play in (policy.unit, policy))
print(json.dumps([unit, scaled, heavy]))
"""


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory):
    out = tmp_path_factory.mktemp("export") / "policy"
    content = answer("export", trained, "--out", out)
    assert content["path"] == str(out)
    assert content["card"] == json.loads((out / "card.json").read_text())
    return out


@pytest.fixture
def policy_class(exported):
    spec = importlib.util.spec_from_file_location("exported_policy", exported / "policy.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Policy


def test_the_exported_policy_is_ours_and_needs_numpy_alone(trained, exported):
    ours = load_policy(trained)
    obs = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32) * [1, 1, 8]
    child = subprocess.run(
        [sys.executable, "-I", "-c", PLAY, str(exported), json.dumps(obs.tolist())],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    unit, scaled, heavy = json.loads(child.stdout)
    expected = np.array([ours.act(o.astype(np.float32)) for o in obs])
    np.testing.assert_allclose(unit, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(scaled, 2.0 * expected, rtol=1e-5, atol=1e-6)  # Pendulum: ±2
    assert np.std(expected) > 1e-3, "a constant policy proves nothing"
    assert heavy == []


def test_the_exported_policy_earns_the_same(trained, policy_class):
    from ftfl.training.evaluate import evaluate

    ours = load_policy(trained)
    env = ours.make_env()
    theirs = evaluate(env, policy_class().unit, 0, 1).returns
    np.testing.assert_allclose(theirs, evaluate(env, ours.act, 0, 1).returns, rtol=1e-3)
    env.close()


def test_actions_stay_within_asymmetric_bounds(exported, policy_class, tmp_path):
    arrays = dict(np.load(exported / "policy.npz"))
    arrays |= {"low": np.array([0.1]), "high": np.array([0.7])}
    arrays["bias_2"] = np.array([100.0, 0.0], np.float32)
    np.savez(tmp_path / "high.npz", **arrays)
    arrays["bias_2"] = np.array([-100.0, 0.0], np.float32)
    np.savez(tmp_path / "low.npz", **arrays)
    obs = np.zeros(3)
    assert policy_class(tmp_path / "high.npz")(obs).tolist() == [0.7]
    assert policy_class(tmp_path / "low.npz")(obs).tolist() == [0.1]


@pytest.mark.parametrize(
    ("obs", "says"),
    [
        (np.zeros(4), r"shape \(4,\), expected is \(3,\)"),
        (np.zeros((1, 3)), r"shape \(1, 3\)"),
        (0.0, r"shape \(\)"),
        ([0.0, np.nan, np.inf], "not finite at index 1, 2"),
        ([0.0, 1e300, 0.0], "not finite at index 1"),
    ],
)
def test_the_exported_policy_refuses(obs, says, policy_class):
    with pytest.raises(ValueError, match=says):
        policy_class()(obs)


def test_an_exported_file_that_is_no_policy(policy_class, exported, tmp_path):
    np.savez(tmp_path / "empty.npz", nothing=np.zeros(1))
    with pytest.raises(ValueError, match="is not a policy: it lacks low, high"):
        policy_class(tmp_path / "empty.npz")
    arrays = dict(np.load(exported / "policy.npz"))
    np.savez(tmp_path / "odd.npz", **(arrays | {"weight_1": np.zeros((5, 5), np.float32)}))
    with pytest.raises(ValueError, match="do not fit together"):
        policy_class(tmp_path / "odd.npz")
    np.savez(tmp_path / "object.npz", **(arrays | {"low": np.array([{}])}))
    with pytest.raises(ValueError, match="allow_pickle=False"):
        policy_class(tmp_path / "object.npz")


def test_the_card(exported, trained):
    card = json.loads((exported / "card.json").read_text())
    assert (card["task"], card["algo"], card["seed"]) == ("gym/Pendulum-v1", "ftfl", 0)
    assert (card["env_steps"], card["seconds_per_action"]) == (60, 0.05)
    assert [entry["name"] for entry in card["observation"]] == [
        "cos_angle",
        "sin_angle",
        "velocity",
    ]
    assert card["action"] == {"low": [-2.0], "high": [2.0]}
    evals = [r for r in read_metrics(trained / "metrics.jsonl") if "eval/return_mean_reward" in r]
    assert card["evaluation"]["return_mean"] == evals[-1]["eval/return_mean_reward"]
    assert card["evaluation"]["env_steps"] == 60
    assert card["versions"]["jax"]
    text = (exported / "README.md").read_text()
    assert "one action every 0.05 seconds (20 per second)" in text
    assert "| 0 | -2 | 2 |" in text
    for limit in card["limits"]:
        assert limit in text


def test_an_old_checkpoint_is_not_sold_with_newer_numbers(trained, tmp_path):
    card = answer("export", trained, "--checkpoint", 30, "--out", tmp_path / "old")["card"]
    assert card["env_steps"] == card["evaluation"]["env_steps"] == 30


def test_export_goes_into_the_run_or_a_zip(run_copy, tmp_path):
    text = plain("export", run_copy)
    folder = run_copy / "policy_step_000000060"
    names = {"policy.py", "policy.npz", "card.json", "README.md"}
    assert "policy.npz" in text
    assert {path.name for path in folder.iterdir()} == names
    plain("export", run_copy, "--out", tmp_path / "robot.zip")
    with zipfile.ZipFile(tmp_path / "robot.zip") as archive:
        assert names <= set(archive.namelist())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy", "robot.zip"]


def test_a_diverged_policy_is_not_exported(run_copy, monkeypatch):
    from ftfl.training import policy as loading

    real = loading.restore

    def poisoned(name, part, arrays):
        first = next(iter(arrays))
        return real(name, part, arrays | {first: arrays[first] * np.float32(np.nan)})

    monkeypatch.setattr(loading, "restore", poisoned)
    status, _, err = call("export", run_copy)
    assert status == 2
    assert "is not finite" in err
    assert "it diverged; export an earlier --checkpoint" in err


# report ------------------------------------------------------------------------------------------


def test_report_on_a_folder_of_runs(trained, run_copy, tmp_path):
    config = json.loads((run_copy / "config.json").read_text())
    (run_copy / "config.json").write_text(json.dumps(config | {"seed": 1}))
    content = answer("report", trained, run_copy.parent, "--out", tmp_path / "deep" / "r.html")
    assert [arm["seeds"] for arm in content["arms"]] == [[0], [1]]
    assert content["unreadable"] == []
    html = (tmp_path / "deep" / "r.html").read_text()
    assert "gym/Pendulum-v1" in html


def test_report_shows_a_damaged_run_and_says_so(trained, run_copy, tmp_path):
    (run_copy / "config.json").write_text("{")
    out = tmp_path / "r.html"
    status, text, err = call("report", trained, run_copy, "--out", out)
    assert status == 0
    assert err.count("\n") == 1
    assert "config.json is damaged" in err
    assert f"report: {out}" in text.replace("\n", " ")
    assert run_copy.name in out.read_text()


def test_report_of_one_run_lies_beside_it(run_copy):
    plain("report", run_copy)
    assert (run_copy / "report.html").is_file()
