"""A run opened for examination: its rows, episodes and functions are the run's own."""

import dataclasses
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ftfl import sac
from ftfl.dynamics import predict as dynamics
from ftfl.errors import FtflError
from ftfl.forensics.episodes import find_episodes
from ftfl.forensics.groundtruth import visit
from ftfl.forensics.learned import batched, single_act
from ftfl.forensics.subject import Subject
from ftfl.replay import Split, insert
from ftfl.store.checkpoint import CheckpointStore
from ftfl.training import saving
from ftfl.training.evaluate import episode_seed
from ftfl.types import Transition
from helpers import tiny
from known import collect, saved, subject_of

TASK = "envs_for_tests:make_simulated_lqr"
UNIT = 2.0**-10


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """FTFL with the unit dial turned and a reward scale, checkpoints at 60 and 90 steps."""
    config = tiny("ftfl", TASK, steps=90, task__reward_unit=UNIT, sac__reward_scale=4.0)
    return saved(tmp_path_factory.mktemp("run") / "seed_0", config, 60, 90)


@pytest.fixture(scope="module")
def subject(run):
    return Subject.load(run)


def test_rows_are_in_order_of_collection_and_belong_to_their_episodes(subject):
    assert subject.step == 90
    assert len(subject.rewards) == 90
    assert [(e.start, e.stop) for e in subject.episodes] == [
        (0, 20), (20, 40), (40, 60), (60, 80), (80, 90)
    ]  # fmt: skip
    assert [e.seeds for e in subject.episodes] == [(episode_seed(0, i),) for i in range(5)]
    assert subject.episode.tolist() == [i // 20 for i in range(90)]
    assert subject.moment.tolist() == [i % 20 for i in range(90)]
    x, u = subject.rows.obs[:, 0], subject.rows.action[:, 0]
    # in the task's own unit, though the environment paid 2⁻¹⁰ of it
    np.testing.assert_allclose(subject.rewards, -(x**2 + 0.1 * u**2), rtol=1e-5)
    assert visit(subject, np.arange(90), lambda m: None).dropped == {}


def test_an_earlier_checkpoint_can_be_asked_for(run):
    assert Subject.load(run, 60).step == 60
    with pytest.raises(FtflError, match=r"no checkpoint at step 70; it has: 60, 90"):
        Subject.load(run, 70)


def test_values_and_policy_are_the_agents_own_in_the_tasks_unit(subject):
    agent, state, config = subject.agent, subject.state.agent, subject.config.sac
    obs, action = subject.rows.obs[:7], subject.rows.action[:7]
    noise = np.random.default_rng(0).normal(size=(7, 1)).astype(np.float32)
    scaled = np.asarray(sac.q_values(state.critic, jnp.asarray(obs), jnp.asarray(action)))
    np.testing.assert_allclose(agent.q(obs, action), scaled.T / 4, rtol=1e-5)
    assert agent.temperature == pytest.approx(float(jnp.exp(state.log_temperature)) / 4)
    drawn, log_prob = agent.act(obs, noise)
    policy = sac.policy(state.actor, jnp.asarray(obs), config)
    expected = policy.transform(jnp.asarray(noise))
    np.testing.assert_allclose(drawn, expected[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(log_prob, expected[1], rtol=1e-4)
    act = single_act(state, subject.config)
    single = np.array([act(o, n) for o, n in zip(obs, noise, strict=True)])
    np.testing.assert_allclose(single, drawn, rtol=1e-5, atol=1e-6)
    step = 1e-2
    slope = (agent.q(obs, action + step).min(1) - agent.q(obs, action - step).min(1)) / (2 * step)
    np.testing.assert_allclose(agent.q_gradient(obs, action)[:, 0], slope, rtol=0.1, atol=0.02)


def test_the_policy_in_numpy_clips_its_spread_where_the_agent_does(subject):
    clipped = dataclasses.replace(
        subject.config, sac=dataclasses.replace(subject.config.sac, log_std_map="clip")
    )
    noise = np.ones(1, np.float32)
    obs = np.asarray(subject.rows.obs[3])
    policy = sac.policy(subject.state.agent.actor, jnp.asarray(obs)[None], clipped.sac)
    expected = policy.transform(jnp.asarray(noise)[None])[0][0]
    np.testing.assert_allclose(
        single_act(subject.state.agent, clipped)(obs, noise), expected, rtol=1e-5, atol=1e-6
    )


def test_the_model_imagines_what_its_elites_predict_in_the_tasks_unit(subject):
    model, state = subject.model, subject.state.dynamics
    assert model is not None
    assert state is not None
    obs, action = subject.rows.obs[:5], subject.rows.action[:5]
    told = dynamics.predict(state, jnp.asarray(obs), jnp.asarray(action), subject.config.dynamics)
    mean, std = (np.asarray(x)[np.asarray(state.elites)].swapaxes(0, 1) for x in told)
    imagined = model.imagine(obs, action, None)
    np.testing.assert_allclose(imagined.next_obs, mean[..., :1], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(imagined.reward, mean[..., 1] / UNIT, rtol=1e-4)
    np.testing.assert_allclose(imagined.reward_std, std[..., 1] / UNIT, rtol=1e-4)
    noise = model.noise(np.random.default_rng(0), 5)
    drawn = model.imagine(obs, action, noise)
    np.testing.assert_allclose(drawn.next_obs, (mean + std * noise)[..., :1], rtol=1e-4, atol=1e-6)
    assert not drawn.terminated.any()


def test_unseen_rows_are_those_no_refit_may_train_on(subject):
    split = Split(subject.config.dynamics.holdout_every, subject.state.holdout)
    count = int(split.train_count(subject.state.real))
    trained_on = np.asarray(split.train_slot(jnp.arange(count)))
    assert sorted(np.flatnonzero(~subject.unseen).tolist()) == sorted(trained_on.tolist())


def test_synthetic_rows_are_the_newest_that_updates_draw_from(subject):
    ring = subject.state.synthetic
    rows = Transition(*(np.repeat(c, 10, axis=0) for c in subject.rows))
    reward = np.arange(900, dtype=np.float32)
    assert ring.capacity < 900
    for start in range(0, 900, 100):
        part = Transition(*(c[start : start + 100] for c in rows._replace(reward=reward)))
        ring = insert(ring, jax.tree.map(jnp.asarray, part))
    state = eqx.tree_at(lambda s: s.synthetic, subject.state, ring)
    kept = dataclasses.replace(subject, state=state).synthetic
    assert kept.reward.tolist() == list(range(900 - 50 * 8, 900))


def test_a_run_without_a_model_has_none(tmp_path):
    subject = Subject.load(saved(tmp_path / "run", tiny("sac", TASK, steps=45), 45))
    assert (subject.model, subject.unseen, subject.synthetic) == (None, None, None)
    assert subject.agent.q(subject.rows.obs, subject.rows.action).shape == (45, 2)


def test_batches_of_any_size_are_cut_and_padded_without_a_trace():
    double = jax.jit(lambda x: (2 * x, x.sum(axis=1)))
    for count in (0, 1, 256, 257, 4097):
        rows = np.random.default_rng(count).normal(size=(count, 3)).astype(np.float32)
        twice, total = batched(double, rows)
        np.testing.assert_array_equal(twice, 2 * rows)
        np.testing.assert_allclose(total, rows.sum(axis=1), rtol=1e-4, atol=1e-5)


def test_what_cannot_be_opened_is_said_in_one_sentence(run, tmp_path):
    with pytest.raises(FtflError, match="there is no run directory"):
        Subject.load(tmp_path / "nothing")
    copy = shutil.copytree(run, tmp_path / "copy")
    newest = copy / "checkpoints" / "step_000000090"
    file = newest / "agent.safetensors"
    file.write_bytes(file.read_bytes()[:-8])
    subject = Subject.load(copy)
    assert subject.step == 60
    assert len(subject.damage) == 1
    shutil.rmtree(copy / "checkpoints")
    with pytest.raises(FtflError, match="there is no checkpoint"):
        Subject.load(copy)


def test_a_run_that_has_not_stepped_yet_is_told_to_wait(tmp_path):
    path = saved(tmp_path / "run", tiny("sac", TASK, steps=45), 0)
    with pytest.raises(FtflError, match=r"at step 0 yet: wait for its next checkpoint"):
        Subject.load(path)
    later = saved(tmp_path / "later", tiny("sac", TASK, steps=45), 0, 20)
    with pytest.raises(FtflError, match=r"at step 0 yet: choose a later one \(20\)"):
        Subject.load(later, 0)


def test_a_run_is_opened_again_and_again_while_its_training_writes_and_prunes(run, tmp_path):
    path = saved(tmp_path / "seed_0", tiny("sac", TASK, steps=2_000), 20)
    rows, _, progress = collect(tiny("sac", TASK), 20)
    state = Subject.load(path).state
    store = CheckpointStore(path / "checkpoints")
    written, stop = [], threading.Event()

    def train():
        while not stop.is_set():
            step = 21 + len(written)
            now = eqx.tree_at(lambda s: s.env_steps, state, jnp.int32(step))
            saving.save(store, now, dataclasses.replace(progress, env_steps=step))
            written.append(step)

    seen = []
    with ThreadPoolExecutor(1) as pool:
        writer = pool.submit(train)
        try:
            while not writer.done() and (len(seen) < 12 or len(written) < 30):
                before = written[-1] if written else 20
                opened = Subject.load(path)
                assert opened.step >= before, "an older checkpoint than one that was whole"
                assert opened.damage == ()
                np.testing.assert_array_equal(opened.rows.obs, rows.obs)
                seen.append(opened.step)
        finally:
            stop.set()
    writer.result()
    assert seen == sorted(seen)
    assert len(set(seen)) > 3, "the writer did not write between two readings"


def test_a_model_that_was_never_trained_is_none(run, tmp_path):
    subject = Subject.load(run)
    fresh = eqx.tree_at(lambda s: s.dynamics.refits, subject.state, jnp.int32(0))
    assert dataclasses.replace(subject, state=fresh).model is None


def cut(subject, start, **changes):
    """Its episodes when only rows from ``start`` on are kept."""
    rows = type(subject.rows)(*(column[start:] for column in subject.rows))
    facts = {"logged": 0, "limit": None, "newest": 4, "dropped": start > 0, "run_seeds": [0]}
    return find_episodes(rows, **{**facts, **changes})


def test_when_old_rows_are_overwritten_the_first_episode_is_not_whole():
    subject = subject_of(TASK, 100)
    episodes = cut(subject, 30)
    assert [(e.start, e.stop, e.whole) for e in episodes] == [
        (0, 10, False), (10, 30, True), (30, 50, True), (50, 70, True)
    ]  # fmt: skip
    assert [e.seeds[0] for e in episodes] == [episode_seed(0, i) for i in (1, 2, 3, 4)]


def test_an_episode_without_rows_is_skipped_by_what_the_reset_shows():
    """Episode 2 broke at its first step: its number is used up, and no row tells."""
    subject = subject_of(TASK, 100)
    keep = np.r_[0:40, 60:100]
    rows = type(subject.rows)(*(column[keep] for column in subject.rows))
    progress = dataclasses.replace(subject.progress, env_steps=80)
    progress.rewards.count = 80
    broken = dataclasses.replace(subject, rows=rows, progress=progress)
    assert len(broken.episodes) == 4
    assert broken.episodes[1].seeds == (episode_seed(0, 2), episode_seed(0, 1))
    found = visit(broken, np.arange(80), lambda m: None)
    assert found.dropped == {}
    assert len(found.results) == 80


def test_logged_rows_are_in_no_episode():
    subject = subject_of(TASK, 40)
    logged = type(subject.rows)(*(np.concatenate([c[5:12], c]) for c in subject.rows))
    progress = dataclasses.replace(subject.progress)
    progress.rewards.count = 47
    mixed = dataclasses.replace(subject, rows=logged, progress=progress)
    assert mixed.episode.tolist() == [-1] * 7 + [0] * 20 + [1] * 20
    assert visit(mixed, np.arange(7, 47), lambda m: None).dropped == {}


def test_a_fork_with_another_seed_finds_its_parents_episodes():
    subject = subject_of(TASK, 60)
    config = dataclasses.replace(subject.config, seed=9)
    history = ({"event": "forked", "changes": {"seed": [0, 9]}, "fresh": ["episode"]},)
    fork = dataclasses.replace(subject, config=config, history=history)
    assert visit(fork, np.arange(60), lambda m: None).dropped == {}


def test_a_time_limit_ends_an_episode_whose_successor_begins_where_it_ended():
    rows = subject_of(TASK, 4).rows
    still = type(rows)(rows.obs * 0, rows.action, rows.reward, rows.next_obs * 0, rows.terminated)
    episodes = find_episodes(still, 0, 2, 1, False, [0])
    assert [(e.start, e.stop) for e in episodes] == [(0, 2), (2, 4)]
