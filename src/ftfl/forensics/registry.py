"""The instruments, and how each is taken from a run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ftfl.config import Config
from ftfl.errors import FtflError
from ftfl.forensics.audit import stored_paths
from ftfl.forensics.evidence import Result
from ftfl.forensics.examination import SEED, Examination
from ftfl.forensics.forking import train_forks
from ftfl.forensics.instruments.attribution import attribution
from ftfl.forensics.instruments.critic import critic_account
from ftfl.forensics.instruments.health import critic_health
from ftfl.forensics.instruments.reward import reward_fidelity
from ftfl.forensics.instruments.rollout import STEPS, Source, rollout_error
from ftfl.forensics.instruments.scales import target_scales
from ftfl.forensics.instruments.screen import screen_sight
from ftfl.forensics.instruments.share_history import share_history
from ftfl.forensics.instruments.targets import residual_or_direct
from ftfl.forensics.instruments.units import unit_invariance
from ftfl.forensics.instruments.variance import model_variance
from ftfl.forensics.judging import judge
from ftfl.forensics.rows import evenly, select
from ftfl.rollouts.generate import length_at

_MOST_ROWS = 5_000
_UPDATES = 500
"""Of each refit: as many as a refit of the laptop profile makes, but from scratch."""
_STORED_PATHS = 500


@dataclass(frozen=True)
class Instrument:
    """One measurement, and how it is taken from a run."""

    name: str
    title: str
    measure: Callable[[Examination], Result]
    refits: bool = False
    """It trains models anew, which takes minutes."""
    forks: bool = False
    """It trains agents, which takes as long as training does: only where that was asked for."""
    concerns: Callable[[Config], bool] = lambda config: True
    """Whether there is anything to measure in a run so configured; if not, nobody misses it."""


def _scales(x: Examination) -> Result:
    subject = x.subject
    names = subject.spec.obs_names
    return target_scales(x.state, subject.state.real, subject.state.holdout, x.key, x.config, names)


def _variance(x: Examination) -> Result:
    subject, spec = x.subject, x.subject.spec
    which, unseen = x.unseen
    which = evenly(which, _MOST_ROWS)
    rows, clusters = select(subject.rows, which), subject.episode[which]
    return model_variance(x.state, rows, x.config, spec.obs_names, spec.reward_fn, clusters, unseen)


def _stored(x: Examination, obs: np.ndarray, action: np.ndarray) -> np.ndarray | None:
    """Which of these rows the run's screen stores, (N,); None where it takes nothing from any."""
    if x.model.penalty is None:
        return None
    subject = x.subject
    return judge(subject.state, subject.config, subject.spec, obs, action, SEED).stored


def _reward(x: Examination) -> Result:
    subject, model = x.subject, x.model
    which, unseen = x.unseen
    which = evenly(which, _MOST_ROWS)
    return reward_fidelity(
        model,
        np.asarray(subject.rows.obs)[which],
        np.asarray(subject.rows.action)[which],
        subject.rewards[which],
        subject.episode[which],
        unseen,
        x.config,
        x.truth if x.has_truth else None,
        terminates=bool(np.asarray(subject.rows.terminated).any()),
        stored=_stored(
            x, np.asarray(subject.rows.obs)[which], np.asarray(subject.rows.action)[which]
        ),
    )


def _rollout(x: Examination) -> Result:
    subject, model = x.subject, x.model
    assert subject.config.rollouts is not None
    steps = max(STEPS, subject.config.rollouts.max_length)
    source: Source = "own actions"
    if x.has_truth:
        paths, clusters = [a.path for a in x.truth.answers], x.truth.episode
    else:
        source = "stored actions"
        paths, clusters = stored_paths(subject, _STORED_PATHS, steps)
    return rollout_error(
        model,
        paths,
        clusters,
        np.asarray(subject.rows.obs),
        np.asarray(subject.rows.next_obs),
        subject.spec.obs_names,
        source,
        steps,
        used=int(length_at(subject.state.env_steps, subject.config)),
    )


def _critic(x: Examination) -> Result:
    subject, truth = x.subject, x.truth
    return critic_account(
        subject.agent,
        [a.path for a in truth.answers],
        [a.noise for a in truth.answers],
        truth.episode,
        subject.model,
        [a.nudges for a in truth.answers],
        paid=(float(subject.rewards.min()), float(subject.rewards.max())),
    )


def _screen(x: Examination) -> Result:
    subject = x.subject
    which, unseen = x.unseen
    which = evenly(which, _MOST_ROWS)
    rows = select(subject.rows, which)
    obs, action = np.asarray(rows.obs), np.asarray(rows.action)
    judged = judge(subject.state, subject.config, subject.spec, obs, action, SEED)
    assert subject.config.rollouts is not None
    return screen_sight(
        judged,
        subject.rewards[which],
        np.asarray(rows.next_obs, np.float64),
        np.std(np.asarray(subject.rows.obs, np.float64), axis=0),
        subject.episode[which],
        unseen,
        subject.config.rollouts.screen,
        x.config.scale,
    )


def _screened(config: Config) -> bool:
    return config.rollouts is not None and config.rollouts.screen != "keep-all"


def _health(x: Examination) -> Result:
    config = x.subject.config
    which = evenly(np.arange(len(x.subject.rewards)), _MOST_ROWS)
    rows, episode = select(x.subject.rows, which), x.subject.episode[which]
    agent = x.subject.state.agent
    # A sparse reward may be in none of the rows that are left.
    paid = float(x.subject.rows.reward.min()), float(x.subject.rows.reward.max())
    penalty = None if x.subject.model is None else x.subject.model.penalty
    if penalty is not None:
        obs, action = np.asarray(rows.obs), np.asarray(rows.action)
        taken = penalty(obs, action)[_stored(x, obs, action)]
        paid = paid[0] - float(taken.max(initial=0.0)) * x.subject.unit, paid[1]
    scale = config.agent_reward_scale
    return critic_health(agent, rows, config.sac, x.key, scale, paid, episode)


def _history(x: Examination) -> Result:
    return share_history(x.subject.rows, x.config, _updates(x))


def _joint(config: Config) -> bool:
    return config.dynamics is not None and config.dynamics.reward_model == "joint"


def _units(x: Examination) -> Result:
    return unit_invariance(x.subject.rows, x.config, _updates(x))


def _targets(x: Examination) -> Result:
    spec = x.subject.spec
    return residual_or_direct(
        x.subject.rows, x.config, _updates(x), names=spec.obs_names, reward_fn=spec.reward_fn
    )


def _attribution(x: Examination) -> Result:
    spec = x.subject.spec
    return attribution(
        x.subject.rows,
        x.config,
        _updates(x),
        names=spec.obs_names,
        reward_fn=spec.reward_fn,
        progress=lambda arm, done, asked: x.told(f"models trained anew (now: {arm})", done, asked),
    )


def _forks(x: Examination) -> Result:
    if x.forks is None:
        raise FtflError("the run is forked with --full only")
    return train_forks(x.subject, x.forks, x.told)


def _updates(x: Examination) -> int:
    return min(x.config.max_updates, _UPDATES)


INSTRUMENTS: tuple[Instrument, ...] = (
    Instrument("target_scales", "Target scales", _scales),
    Instrument("model_variance", "Model variance", _variance),
    Instrument("reward_fidelity", "Reward fidelity", _reward),
    Instrument("rollout_error", "Rollout error", _rollout),
    Instrument("screen_sight", "What the screen sees", _screen, concerns=_screened),
    Instrument("critic_account", "Critic account", _critic),
    Instrument("critic_health", "Critic health", _health),
    Instrument("share_history", "Shares over training", _history, refits=True, concerns=_joint),
    Instrument("unit_invariance", "Unit invariance", _units, refits=True),
    Instrument("residual_or_direct", "Residual or direct", _targets, refits=True),
    Instrument("attribution", "Attribution", _attribution, refits=True),
    Instrument("paired_forks", "Paired forks", _forks, forks=True),
)
