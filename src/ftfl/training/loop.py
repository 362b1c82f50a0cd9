"""The only loop: one environment, one seed, from the first step to the last."""

from __future__ import annotations

import dataclasses
import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from ftfl import replay
from ftfl.config import Config
from ftfl.envs.spec import Environment
from ftfl.errors import FtflError
from ftfl.sinks.base import Sink
from ftfl.store.checkpoint import prune, save_checkpoint
from ftfl.store.metrics import MetricsWriter
from ftfl.store.rundir import RunDir
from ftfl.training import state as run_state
from ftfl.training.evaluate import episode_seed, evaluate
from ftfl.training.learn import Learner, make_learner
from ftfl.training.logged import load_logged
from ftfl.training.state import RunState
from ftfl.types import Transition

_STATUS_EVERY_SECONDS = 0.5
_CHECKPOINTS_KEPT = 2
_LOGGED_CHUNK = 1_000


@dataclass
class Moments:
    """Running mean and variance (Welford) in float64."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0

    def add(self, value: float) -> None:
        """Count one value."""
        self.count += 1
        delta = value - self.mean
        self.mean += delta / self.count
        self.squares += delta * (value - self.mean)

    @property
    def std(self) -> float:
        """Population standard deviation."""
        return math.sqrt(self.squares / self.count) if self.count else 0.0


@dataclass
class Progress:
    """The host side of a run; with ``RunState``, all that a checkpoint holds."""

    env_steps: int = 0
    episode: int = 0
    episode_return: float = 0.0
    actions: list[np.ndarray] = field(default_factory=list)
    """Actions since the episode's reset: what replays it, in an environment declared replayable."""
    rewards: Moments = field(default_factory=Moments)
    fitted: bool = False
    owed: list[bool] = field(default_factory=list)
    """Learn steps not yet paid (``update_between_episodes``); True: a refit comes first."""
    seconds: float = 0.0
    last_return: float | None = None


@dataclass
class _Clock:
    """Seconds spent since the last log record, by what they were spent on."""

    spent: dict[str, float] = field(default_factory=dict)
    mark: float = field(default_factory=time.perf_counter)

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.spent[name] = self.spent.get(name, 0.0) + now - self.mark
        self.mark = now

    def take(self) -> dict[str, float]:
        spent, self.spent = self.spent, {}
        return {f"time/{k}_seconds": v for k, v in spent.items()}


def label_of(run_dir: RunDir, config: Config) -> str:
    """What tables call a run: the variant's folder if it lies in one, else its algorithm."""
    parent = run_dir.path.resolve().parent.name
    return parent if run_dir.path.name.startswith("seed_") and parent else config.algo


class Loop:
    """Steps an environment, learns, and reports; ``run`` goes to the end."""

    def __init__(
        self,
        config: Config,
        env: Environment,
        eval_env: Environment,
        run_dir: RunDir,
        sinks: Sequence[Sink] = (),
    ):
        """Prepare everything that can fail before the first step does.

        Raises:
            FtflError: the task and the algorithm do not go together, or a file is unusable.
        """
        self.config, self.env, self.eval_env, self.run_dir = config, env, eval_env, run_dir
        self.sinks = sinks
        self.learner: Learner = make_learner(config, env.spec)
        logged = None
        if config.init_replay is not None:
            logged = load_logged(Path(config.init_replay), env.spec)
        self.state: RunState = run_state.init(
            config, env.spec, 0 if logged is None else len(logged.reward)
        )
        self.progress = Progress()
        self.clock = _Clock()
        self.metrics: dict[str, Any] = {}  # newest device metrics, fetched when logged
        self.fit_seconds = 0.0
        self._status_at = -math.inf
        self._started = time.perf_counter()
        self._speed_mark = (0, self._started)
        self._speed = 0.0
        if logged is not None:
            self._insert_logged(logged)

    def run(self) -> RunState:
        """Train to the last step; evaluate and checkpoint on the way and at the end."""
        config, progress = self.config, self.progress
        with self.run_dir.metrics_writer() as writer:
            self.writer: MetricsWriter = writer
            self._status("starting")
            obs = self.env.reset(episode_seed(config.seed, 0))
            while progress.env_steps < config.steps:
                obs = self._step(obs)
                steps = progress.env_steps
                last = steps == config.steps
                if steps % config.log_every == 0 or last:
                    self._log()
                if steps % config.eval_every == 0 or last:
                    self._evaluate()
                if steps % config.checkpoint_every == 0 or last:
                    self._checkpoint()
            self._status("done")
        return self.state

    def _step(self, obs: np.ndarray) -> np.ndarray:
        config, progress = self.config, self.progress
        warming = progress.env_steps < config.warmup_steps
        chosen = self.learner.explore(self.state) if warming else self.learner.act(self.state, obs)
        action = np.asarray(chosen)
        self.clock.lap("learn")
        result = self.env.step(action)
        self.clock.lap("env")
        row = (obs, action, np.float32(result.reward), result.obs, np.bool_(result.terminated))
        # Host arrays go in as they are: the compiled call takes them to the device.
        transition = Transition(*cast(Any, row))
        self.state = self.learner.observe(self.state, transition)
        progress.env_steps += 1
        progress.episode_return += result.reward
        progress.actions.append(action)
        progress.rewards.add(result.reward)
        ended = result.terminated or result.truncated
        if progress.env_steps >= config.warmup_steps:
            progress.owed.append(self._refit_due())
        last = progress.env_steps == config.steps
        if ended or last or not config.update_between_episodes:
            self._learn_owed()
        self._status("warming up" if warming else "training", lazily=True)
        return self._new_episode() if ended else result.obs

    def _refit_due(self) -> bool:
        if self.config.dynamics is None:
            return False
        since = self.progress.env_steps - self.config.warmup_steps
        due = since % self.config.dynamics.train_every == 0 or not self.progress.fitted
        self.progress.fitted = True
        return due

    def _learn_owed(self) -> None:
        for refit in self.progress.owed:
            if refit:
                self._fit()
            self.state, metrics = self.learner.learn(self.state)
            if "rollout/rows_count" in metrics and self._skipped_rollouts():
                metrics = {k: v for k, v in metrics.items() if not k.startswith("rollout/")}
            self.metrics |= metrics
            self._reset_agent_when_due()
        self.progress.owed.clear()

    def _skipped_rollouts(self) -> bool:
        rollouts = self.config.rollouts
        if rollouts is None or rollouts.every == 1:
            return False
        return (int(self.state.learn_steps) - 1) % rollouts.every != 0

    def _fit(self) -> None:
        self.clock.lap("learn")
        start = time.perf_counter()
        self.state, metrics = self.learner.fit(self.state)
        jax.block_until_ready(metrics)
        self.fit_seconds = time.perf_counter() - start
        self.metrics |= metrics
        self.clock.lap("fit")

    def _reset_agent_when_due(self) -> None:
        every = self.config.sac.reset_every_updates
        if not every:
            return
        per_step = self.config.sac.updates_per_step
        done = int(self.state.learn_steps) * per_step
        if done // every > (done - per_step) // every:
            self.state = self.learner.reset_agent(self.state)

    def _new_episode(self) -> np.ndarray:
        progress = self.progress
        self._write(
            {
                "train/episode_return_reward": progress.episode_return / self._unit,
                "train/episode_length_steps": len(progress.actions),
                "train/episodes_count": progress.episode + 1,
            }
        )
        progress.episode += 1
        progress.episode_return = 0.0
        progress.actions = []
        return self.env.reset(episode_seed(self.config.seed, progress.episode))

    @property
    def _unit(self) -> float:
        """Rewards are reported in the task's own unit: the dial is turned back."""
        return self.config.task.reward_unit

    def _log(self) -> None:
        self.clock.lap("learn")
        progress = self.progress
        now = time.perf_counter()
        steps, since = self._speed_mark
        self._speed = (progress.env_steps - steps) / max(now - since, 1e-9)
        self._speed_mark = (progress.env_steps, now)
        values = {k: float(v) for k, v in self.metrics.items()}
        values = {k: v / self._unit if k.endswith("_reward") else v for k, v in values.items()}
        values["rollout/real_reward_mean_reward"] = progress.rewards.mean / self._unit
        values["rollout/real_reward_std_reward"] = progress.rewards.std / self._unit
        values["agent/updates_count"] = int(self.state.agent.updates)
        values["agent/resets_count"] = int(self.state.resets)
        values["termination/mismatch_count"] = int(self.state.mismatches)
        values["time/steps_per_second"] = self._speed
        if self.config.dynamics is not None:
            values["model/fit_seconds"] = self.fit_seconds
        self._write(values | self.clock.take())
        self.latest = values

    def _evaluate(self) -> None:
        self.clock.lap("learn")
        self._status("evaluating")
        actor = self.state.agent.actor
        result = evaluate(
            self.eval_env,
            lambda obs: np.asarray(self.learner.mode(actor, obs)),
            self.config.seed,
            self.config.eval_episodes,
        )
        returns = result.returns / self._unit
        self.progress.last_return = float(np.mean(returns))
        self._write(
            {
                "eval/return_mean_reward": float(np.mean(returns)),
                "eval/return_std_reward": float(np.std(returns)),
                "eval/return_min_reward": float(np.min(returns)),
                "eval/return_max_reward": float(np.max(returns)),
                "eval/length_mean_steps": float(np.mean(result.lengths)),
                "eval/episodes_count": len(returns),
            }
        )
        self.clock.lap("eval")

    def _checkpoint(self) -> None:
        progress = self.progress
        components = run_state.to_components(self.state)
        components["episode"] = {
            "actions": np.asarray(progress.actions, np.float32).reshape(-1, self.env.spec.act_dim)
        }
        meta = {
            "env_steps": progress.env_steps,
            "episode": progress.episode,
            "episode_return": progress.episode_return,
            "rewards": [progress.rewards.count, progress.rewards.mean, progress.rewards.squares],
            "fitted": progress.fitted,
            "owed": progress.owed,
            "seconds": self._seconds(),
            "last_return": progress.last_return,
        }
        # Lines older than the checkpoint must not be lost with it.
        self.writer.sync()
        save_checkpoint(self.run_dir.checkpoints_path, progress.env_steps, components, meta)
        prune(self.run_dir.checkpoints_path, _CHECKPOINTS_KEPT)

    def _seconds(self) -> float:
        return self.progress.seconds + time.perf_counter() - self._started

    def _write(self, values: Mapping[str, float]) -> None:
        updates = int(self.state.learn_steps) * self.config.sac.updates_per_step
        self.writer.write(self.progress.env_steps, updates, self._seconds(), values)
        for sink in self.sinks:
            sink(self.progress.env_steps, values)

    def _status(self, what: str, lazily: bool = False) -> None:
        now = time.perf_counter()
        if lazily and now - self._status_at < _STATUS_EVERY_SECONDS:
            return
        self._status_at = now
        progress, latest = self.progress, getattr(self, "latest", {})
        left = self.config.steps - progress.env_steps
        speed = self._speed if progress.env_steps > self.config.warmup_steps else 0.0
        wrong = latest.get("termination/mismatch_count", 0)
        self.run_dir.write_status(
            {
                "state": what,
                "label": label_of(self.run_dir, self.config),
                "seed": self.config.seed,
                "env_steps": progress.env_steps,
                "total_steps": self.config.steps,
                "seconds": self._seconds(),
                "eta_seconds": left / speed if speed else None,
                "steps_per_second": speed or None,
                "last_return": progress.last_return,
                "reward_r2": latest.get("model/reward_r2"),
                "synthetic_reward_mean": latest.get("rollout/synthetic_reward_mean_reward"),
                "real_reward_mean": latest.get("rollout/real_reward_mean_reward")
                if self.config.dynamics
                else None,
                "message": f"termination function wrong on {wrong} real steps" if wrong else "",
                "pid": os.getpid(),
            }
        )

    def _insert_logged(self, logged: Transition) -> None:
        insert = jax.jit(replay.insert)
        ring = self.state.real
        count = len(logged.reward)
        for start in range(0, count, _LOGGED_CHUNK):
            stop = min(start + _LOGGED_CHUNK, count)
            pad = _LOGGED_CHUNK - (stop - start)
            if _LOGGED_CHUNK > ring.capacity:
                raise FtflError(
                    f"replay_rows {ring.capacity} is too small for --init-replay: give at least"
                    f" {_LOGGED_CHUNK}."
                )
            rows = jax.tree.map(
                lambda x, a=start, b=stop, p=pad: np.concatenate(
                    [x[a:b], np.zeros((p, *x.shape[1:]), x.dtype)]
                ),
                logged,
            )
            ring = insert(ring, rows, jnp.arange(_LOGGED_CHUNK) < stop - start)
        self.state = dataclasses.replace(self.state, real=ring)
        for reward in logged.reward:
            self.progress.rewards.add(float(reward))
