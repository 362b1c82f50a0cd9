"""The only loop: one environment, one seed, from the first step to the last."""

from __future__ import annotations

import dataclasses
import math
import os
import time
from collections.abc import Mapping, Sequence
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
from ftfl.store.checkpoint import CheckpointStore
from ftfl.store.metrics_file import MetricsWriter
from ftfl.store.rundir import RunDir
from ftfl.training import state as run_state
from ftfl.training.evaluate import episode_seed, evaluate
from ftfl.training.learn import Learner, make_learner
from ftfl.training.logged import load_logged
from ftfl.training.progress import Clock, Progress
from ftfl.training.state import RunState
from ftfl.types import Transition

_STATUS_EVERY_SECONDS = 0.5
_CHECKPOINTS_KEPT = 2
_LOGGED_CHUNK = 1_000
_MOST_OWED = 10_000


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
        self.store = CheckpointStore(run_dir.checkpoints_path)
        self.learner: Learner = make_learner(config, env.spec)
        logged = None
        if config.init_replay is not None:
            logged = load_logged(Path(config.init_replay), env.spec)
        self.state: RunState = run_state.init(
            config, env.spec, 0 if logged is None else len(logged.reward)
        )
        self.progress = Progress()
        self.clock = Clock()
        self.metrics: dict[str, Any] = {}  # newest device metrics, fetched when logged
        self.fit_seconds = 0.0
        self._due: set[str] = set()
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
            # Compiled before the first reset: a machine must not wait for it in mid-episode.
            self.learner.act(self.state, np.zeros(self.env.spec.obs_dim, np.float32))
            obs = self.env.reset(episode_seed(config.seed, 0))
            while progress.env_steps < config.steps:
                obs, ended = self._step(obs)
                last = progress.env_steps == config.steps
                self._note_due(last)
                if ended:
                    self._end_episode()
                if ended or last or not config.update_between_episodes:
                    self._learn_owed()
                    self._do_due()
                if ended and not last:
                    obs = self.env.reset(episode_seed(config.seed, progress.episode))
            self._status("done")
        return self.state

    def _step(self, obs: np.ndarray) -> tuple[np.ndarray, bool]:
        """Act once, keep what came of it; the next observation, and whether the episode ended."""
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
        if progress.env_steps >= config.warmup_steps and self._enough_rows():
            progress.owed.append(self._refit_due())
            if len(progress.owed) > _MOST_OWED:
                raise FtflError(
                    f"no episode has ended in {_MOST_OWED} steps, and update_between_episodes"
                    " learns only then: give the environment a time limit."
                )
        self._status("warming up" if warming else "training", lazily=True)
        return result.obs, result.terminated or result.truncated

    def _enough_rows(self) -> bool:
        """A model needs a held-out row and one to train on, twice."""
        model = self.config.dynamics
        return model is None or self.progress.rewards.count >= 2 * model.holdout_every

    def _note_due(self, last: bool) -> None:
        steps, config = self.progress.env_steps, self.config
        for name, every in (
            ("log", config.log_every),
            ("evaluate", config.eval_every),
            ("checkpoint", config.checkpoint_every),
        ):
            if steps % every == 0 or last:
                self._due.add(name)

    def _do_due(self) -> None:
        """What is due, now that the environment rests (or need not)."""
        if "log" in self._due:
            self._log()
        if "evaluate" in self._due:
            self._evaluate()
        if "checkpoint" in self._due:
            self._checkpoint()
        self._due.clear()

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
        # Not at the very end: what is evaluated and kept should have learned.
        if not every or self.progress.env_steps == self.config.steps:
            return
        per_step = self.config.sac.updates_per_step
        done = int(self.state.learn_steps) * per_step
        if done // every > (done - per_step) // every:
            self.state = self.learner.reset_agent(self.state)

    def _end_episode(self) -> None:
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
        self.store.save(progress.env_steps, components, meta)
        self.store.prune(_CHECKPOINTS_KEPT)

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
                "label": self.run_dir.label(self.config.algo),
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
        count, chunk = len(logged.reward), min(_LOGGED_CHUNK, self.state.real.capacity)
        for start in range(0, count, chunk):
            kept = min(chunk, count - start)
            # Filled up to the chunk's shape by repetition; the mask keeps what is real.
            index = start + np.arange(chunk) % kept
            rows = jax.tree.map(lambda x, i=index: x[i], logged)
            ring = insert(ring, rows, jnp.arange(chunk) < kept)
        self.state = dataclasses.replace(self.state, real=ring)
        for reward in logged.reward:
            self.progress.rewards.add(float(reward))
