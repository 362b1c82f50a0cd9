"""Runs, agents and models about which everything is known, for the tests of instruments."""

import contextlib
from pathlib import Path as Folder

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ftfl.config import to_dict
from ftfl.dynamics.targets import Scaler
from ftfl.envs.make import make_task
from ftfl.forensics.branches import Path
from ftfl.forensics.learned import Agent, Imagined, WorldModel
from ftfl.forensics.subject import Subject
from ftfl.store.checkpoint import CheckpointStore
from ftfl.store.rundir import RunDir
from ftfl.training import saving
from ftfl.training import state as run_state
from ftfl.training.evaluate import episode_seed
from ftfl.training.progress import Moments, Progress
from ftfl.types import Transition
from helpers import filled, tiny

PUSH, COST = 0.3, 0.1


def collect(config, steps, episode_steps=None):
    """Random steps as training stores them, the description of the task, and its progress."""
    env = make_task(config.task)
    rng = np.random.default_rng(config.seed)
    rows, actions, episode = [], [], 0
    obs = env.reset(episode_seed(config.seed, 0))
    for _ in range(steps):
        action = rng.uniform(-1, 1, env.spec.act_dim).astype(np.float32)
        step = env.step(action)
        rows.append((obs, action, np.float32(step.reward), step.obs, np.bool_(step.terminated)))
        actions.append(action)
        obs = step.obs
        if step.terminated or step.truncated or len(actions) == episode_steps:
            episode, actions = episode + 1, []
            obs = env.reset(episode_seed(config.seed, episode))
    env.close()
    progress = Progress(
        env_steps=steps, episode=episode, actions=actions, rewards=Moments(count=steps)
    )
    return Transition(*map(np.array, zip(*rows, strict=True))), env.spec, progress


def subject_of(task, steps, seed=0, episode_steps=None):
    """A run that only collected, with nothing learned."""
    config = tiny("sac", task, seed=seed, steps=steps)
    rows, spec, progress = collect(config, steps, episode_steps)
    state = eqx.filter_eval_shape(run_state.init, config, spec)
    return Subject(Folder("run"), config, spec, steps, (), state, progress, rows, ())


def saved(path, config, *steps):
    """A run directory as training leaves it, with a checkpoint at each of ``steps``.

    Nothing was compiled for it: networks are random, and the model passes for trained once.
    """
    run_dir = RunDir.create(path, to_dict(config), {})
    store = CheckpointStore(run_dir.checkpoints_path)
    with contextlib.closing(make_task(config.task)) as env:
        state = random_state(config, env.spec)
    for count in steps:
        if count:
            rows, _, progress = collect(config, count)
            real = filled(rows, state.real.capacity)
        else:
            progress, real = Progress(), state.real
        now = eqx.tree_at(
            lambda s: (s.real, s.env_steps), state, (real, jnp.int32(progress.env_steps))
        )
        saving.save(store, now, progress)
    return path


def random_state(config, spec):
    """A state of the right shapes, with random weights."""
    rng = np.random.default_rng(0)

    def fill(leaf):
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jax.random.key(config.seed)
        if jnp.issubdtype(leaf.dtype, jnp.floating):
            return jnp.asarray(rng.normal(0, 0.3, leaf.shape).astype(np.float32))
        return jnp.zeros(leaf.shape, leaf.dtype)

    state = jax.tree.map(fill, eqx.filter_eval_shape(run_state.init, config, spec))
    if state.dynamics is None:
        return state
    model = state.dynamics
    scalers = [
        Scaler(part.mean, jnp.abs(part.std) + 0.5)
        for part in (model.statistics.input, model.statistics.target)
    ]
    return eqx.tree_at(
        lambda s: (
            s.dynamics.refits, s.dynamics.elites, s.dynamics.statistics.input,
            s.dynamics.statistics.target, s.dynamics.statistics.change,
            s.dynamics.ensemble.logvar_min, s.dynamics.ensemble.logvar_max,
            s.dynamics.optimiser,
        ),
        state,
        (
            jnp.int32(1), jnp.arange(len(model.elites), dtype=jnp.int32), *scalers,
            jnp.abs(model.statistics.change) + 0.5,
            jnp.full_like(model.ensemble.logvar_min, config.dynamics.logvar_min),
            jnp.full_like(model.ensemble.logvar_max, config.dynamics.logvar_max),
            jax.tree.map(jnp.zeros_like, model.optimiser),
        ),
    )  # fmt: skip


class Regulator:
    """x′ = x + 0.3 u, paid −(x² + 0.1 u²); u = −k x + σ ε with entropy at price α.

    V(x) = −p x² − c and Q(x, u) = −x² − 0.1 u² − γ (p (x + 0.3 u)² + c) in closed form.
    """

    def __init__(self, gain=1.0, sigma=0.2, temperature=0.1, discount=0.9):
        self.gain, self.sigma, self.discount = gain, sigma, discount
        self.temperature = temperature
        entropy = 0.5 * np.log(2 * np.pi * np.e * sigma**2)
        keeps = 1 - PUSH * gain
        self.p = (1 + COST * gain**2) / (1 - discount * keeps**2)
        noise = COST * sigma**2 + discount * self.p * PUSH**2 * sigma**2
        self.c = (noise - temperature * entropy) / (1 - discount)

    def act(self, obs, noise):
        log_prob = -0.5 * noise[:, 0] ** 2 - np.log(self.sigma) - 0.5 * np.log(2 * np.pi)
        return -self.gain * obs + self.sigma * noise, log_prob

    def q(self, obs, action):
        x, u = np.asarray(obs, np.float64), np.asarray(action, np.float64)
        then = x + PUSH * u
        value = -(x**2) - COST * u**2 - self.discount * (self.p * then**2 + self.c)
        return np.repeat(value, 2, axis=1)

    def q_gradient(self, obs, action):
        then = obs + PUSH * action
        return -2 * COST * action - self.discount * self.p * 2 * PUSH * then

    def agent(self, offset=0.0, slope=1.0):
        return Agent(
            act=self.act,
            q=lambda o, a: self.q(o, a) + offset,
            q_gradient=lambda o, a: slope * self.q_gradient(o, a),
            temperature=self.temperature,
            discount=self.discount,
            act_dim=1,
        )

    def play(self, x, noise, steps, first=None):
        """A true branch of ``steps`` steps from x."""
        obs, actions, rewards = [np.array([x])], [], []
        for t in range(steps):
            u = self.act(obs[-1][None], noise[t][None])[0][0]
            if t == 0 and first is not None:
                u = first
            rewards.append(-float(obs[-1][0] ** 2 + COST * u[0] ** 2))
            actions.append(u)
            obs.append(obs[-1] + PUSH * u)
        return Path(np.array(obs), np.array(actions), np.array(rewards), "going on")


def model_of(next_obs, reward, spread=0.0, reward_spread=0.0, elites=3, outputs=2, end=None):
    """A model that says ``next_obs(obs, action)`` and ``reward(obs, action)``, with noise."""

    def imagine(obs, action, noise):
        if noise is None:
            noise = np.zeros((len(obs), elites, outputs))
        mean = next_obs(obs, action)[:, None]
        drawn = mean + spread * noise[..., : mean.shape[2]]
        paid = reward(obs, action)[:, None] + reward_spread * noise[..., -1]
        over = np.zeros(paid.shape, bool) if end is None else end(drawn)
        return Imagined(drawn, paid, over, np.full(paid.shape, reward_spread))

    return WorldModel(imagine, elites, outputs)


def regulator_model(shift=0.0, paid=0.0, **noise):
    """The regulator's own dynamics, moved by ``shift`` and overpaid by ``paid``."""
    return model_of(
        lambda o, a: o + PUSH * a + shift,
        lambda o, a: -(o[:, 0] ** 2 + COST * a[:, 0] ** 2) + paid,
        **noise,
    )
