"""Runs, agents and models about which everything is known, for the tests of instruments."""

from pathlib import Path as Folder

import equinox as eqx
import numpy as np

from ftfl.envs.make import make_task
from ftfl.forensics.branches import Path
from ftfl.forensics.learned import Agent, Imagined, WorldModel
from ftfl.forensics.subject import Subject
from ftfl.training import state as run_state
from ftfl.training.evaluate import episode_seed
from ftfl.training.progress import Moments, Progress
from ftfl.types import Transition
from helpers import tiny

PUSH, COST = 0.3, 0.1


def subject_of(task, steps, seed=0, episode_steps=None, **changes):
    """A run that only collected: ``steps`` random steps, as training stores them."""
    config = tiny("sac", task, seed=seed, steps=steps, **changes)
    env = make_task(config.task)
    rng = np.random.default_rng(seed)
    rows, episode, obs, length = [], 0, env.reset(episode_seed(seed, 0)), 0
    actions = []
    for _ in range(steps):
        action = rng.uniform(-1, 1, env.spec.act_dim).astype(np.float32)
        step = env.step(action)
        rows.append((obs, action, np.float32(step.reward), step.obs, np.bool_(step.terminated)))
        actions.append(action)
        obs, length = step.obs, length + 1
        if step.terminated or step.truncated or length == episode_steps:
            episode, length, actions = episode + 1, 0, []
            obs = env.reset(episode_seed(seed, episode))
    env.close()
    progress = Progress(
        env_steps=steps, episode=episode, actions=actions, rewards=Moments(count=steps)
    )
    state = eqx.filter_eval_shape(run_state.init, config, env.spec)
    columns = Transition(*map(np.array, zip(*rows, strict=True)))
    return Subject(Folder("run"), config, env.spec, steps, (), state, progress, columns, ())


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
