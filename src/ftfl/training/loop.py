"""The only loop: one environment, one seed, from the first step or a checkpoint to the last.

Its methods are generators that ask for what the device computes (``ftfl.training.seat``), so that
the same loop serves a seed alone and seeds in lockstep.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import jax
import numpy as np

from ftfl.config import Config
from ftfl.envs.guard import EnvFault
from ftfl.envs.spec import Environment
from ftfl.errors import FtflError, Stopped
from ftfl.sinks.base import Sink
from ftfl.store.checkpoint import CheckpointStore, set_aside_after
from ftfl.store.files import DiskError
from ftfl.store.rundir import RunDir
from ftfl.training import records, saving, updates
from ftfl.training import state as run_state
from ftfl.training.alarms import fatal, report
from ftfl.training.episodes import Episodes
from ftfl.training.evaluate import evaluation
from ftfl.training.faults import Diverged, EnvironmentLost, Faults
from ftfl.training.learn import Learner, make_learner
from ftfl.training.logged import insert_logged, load_logged
from ftfl.training.progress import Progress
from ftfl.training.recorder import Recorder
from ftfl.training.seat import Alone, Request, Seat, Work, asking, do
from ftfl.training.signals import StopRequest
from ftfl.training.state import RunState
from ftfl.types import Transition

_MOST_OWED = 10_000
_MOST_ROLLBACKS = 3
_ROLLBACK = 1 << 30  # a stream of its own, far from those of state.Stream


class Loop:
    """Steps an environment, learns, and reports; ``run`` goes to the end."""

    def __init__(
        self,
        config: Config,
        env: Environment,
        eval_env: Environment,
        run_dir: RunDir,
        sinks: Sequence[Sink] = (),
        stop: StopRequest | None = None,
    ):
        """Prepare everything that can fail before the first step does.

        A run directory with checkpoints is gone on with from the newest valid one, to the same
        bits as if it had never been left.

        Raises:
            FtflError: the task and the algorithm do not go together, or a file is unusable.
        """
        self.config, self.env, self.eval_env, self.run_dir = config, env, eval_env, run_dir
        self.stop = stop or StopRequest()
        learner = make_learner(config, env.spec)
        self.progress = Progress()
        self.found = saving.find(run_dir)
        if self.found is None:
            logged = None
            if config.init_replay is not None:
                logged = load_logged(Path(config.init_replay), env.spec)
            rows = 0 if logged is None else len(logged.reward)
            state = run_state.init(config, env.spec, rows)
            if logged is not None:
                state = insert_logged(state, self.progress, logged)
            self.store = CheckpointStore(run_dir.checkpoints_path)
        else:
            state = self._go_back_to(self.found)
        self.seat: Seat = Alone(learner, state)
        self.recorder = Recorder(config, run_dir, sinks, self.progress)
        self.faults = Faults(config, run_dir, self.recorder)
        self.episodes = Episodes(config, env, self.recorder, self.faults)
        self.metrics: dict[str, Any] = dict(self.progress.metrics)  # device values, newest
        self._saved_at = -1 if self.found is None else self.progress.env_steps

    @property
    def state(self) -> RunState:
        """The device side of the run, wherever it sits."""
        return self.seat.state

    @property
    def learner(self) -> Learner:
        """The compiled steps."""
        return self.seat.learner

    def run(self) -> RunState:
        """Do all the ``work``, alone."""
        do(self.work(), self.seat.answer)
        return self.state

    def work(self) -> Work[None]:
        """Train to the last step; evaluate and checkpoint on the way and at the end.

        Raises:
            Stopped: a signal asked for it; the run is saved.
            FtflError: the environment failed more often than allowed, learning diverged, or the
                disk is full, where the configuration says to stop then.
        """
        with self.recorder:
            self.recorder.status("starting")
            self.recorder.take_over(self.progress)
            if self.found is not None and self.found.damage:
                self._say("damage", f"passed over a damaged checkpoint: {self.found.damage[0]}")
            # Compiled before the first reset: a machine must not wait for it in mid-episode.
            yield Request("act", np.zeros(self.env.spec.obs_dim, np.float32))
            self._checkpoint()
            try:
                yield from self._train()
            except EnvironmentLost:
                # What was learned is kept, whatever the environment does; if it is sane.
                with contextlib.suppress(Diverged):
                    self._checkpoint()
                raise
            self._finish()

    def _train(self) -> Work[None]:
        obs = self.episodes.resume()
        if self.progress.env_steps == self.config.steps:
            yield from self._do_due()  # an earlier process came to its end, and not through it
        while self.progress.env_steps < self.config.steps:
            try:
                self._leave_if_asked()
                obs = yield from self._advance(obs)
            except Diverged as reason:
                obs = self._roll_back(reason)

    def _advance(self, obs: np.ndarray) -> Work[np.ndarray]:
        """One step and what it owes; the observation to go on from."""
        config, progress = self.config, self.progress
        try:
            obs, ended = yield from self._step(obs)
        except EnvFault as fault:
            if fault.cause == "action":
                raise Diverged(str(fault)) from fault  # the policy's doing
            # The transition is void: it was neither stored nor counted.
            self.faults.add(fault)
            self.episodes.abandon()
            ended = True
        else:
            self._note_due()
            if ended:
                self.episodes.end()
        last = progress.env_steps == config.steps
        if ended or last or not config.update_between_episodes:
            yield from self._learn_owed()
            yield from self._do_due()
        return self.episodes.reset() if ended and not last else obs

    def _step(self, obs: np.ndarray) -> Work[tuple[np.ndarray, bool]]:
        """Act once, keep what came of it; the next observation, and whether the episode ended."""
        config, progress, clock = self.config, self.progress, self.recorder.clock
        yield from self._reset_agent_when_due()
        warming = progress.env_steps < config.warmup_steps
        chosen = yield Request("explore") if warming else Request("act", obs)
        action = np.asarray(chosen)
        clock.lap("learn")
        self._require_sane()  # the device has just finished: asking it costs nothing
        progress.actions.append(action)
        result = self.env.step(action)
        clock.lap("env")
        row = (obs, action, np.float32(result.reward), result.obs, np.bool_(result.terminated))
        # Host arrays go in as they are: the compiled call takes them to the device.
        transition = Transition(*cast(Any, row))
        yield Request("observe", transition)
        progress.env_steps += 1
        progress.episode_return += result.reward
        progress.obs = result.obs
        progress.rewards.add(result.reward)
        if progress.env_steps >= config.warmup_steps and self._enough_rows():
            progress.owed.append(self._refit_due())
            if len(progress.owed) > _MOST_OWED:
                raise EnvironmentLost(
                    f"no episode has ended in {_MOST_OWED} steps, and update_between_episodes"
                    " learns only then: give the environment a time limit."
                )
        self.recorder.status("warming up" if warming else "training", lazily=True)
        return result.obs, result.terminated or result.truncated

    # Learning.

    def _enough_rows(self) -> bool:
        """A model needs a held-out row and one to train on, twice."""
        model = self.config.dynamics
        return model is None or self.progress.rows >= 2 * model.holdout_every

    def _refit_due(self) -> bool:
        if self.config.dynamics is None:
            return False
        since = self.progress.env_steps - self.config.warmup_steps
        due = since % self.config.dynamics.train_every == 0 or not self.progress.fitted
        self.progress.fitted = True
        return due

    def _learn_owed(self) -> Work[None]:
        progress = self.progress
        for refit in progress.owed:
            yield from self._reset_agent_when_due()
            if refit:
                yield from self._fit()
            metrics = yield Request("learn")
            if "rollout/rows_count" in metrics and self._skipped_rollouts():
                metrics = {k: v for k, v in metrics.items() if not k.startswith("rollout/")}
            progress.learn_steps += 1
            progress.updates = updates.counted(progress.updates, self._updates_done, self.config)
            self.metrics |= metrics
        progress.owed.clear()

    def _updates_done(self) -> Any:
        return self.seat.look(lambda state: state.agent.updates)

    def _skipped_rollouts(self) -> bool:
        rollouts = self.config.rollouts
        return rollouts is not None and self.progress.learn_steps % rollouts.every != 0

    def _fit(self) -> Work[None]:
        clock = self.recorder.clock
        clock.lap("learn")
        start = time.perf_counter()
        metrics = yield Request("fit")
        jax.block_until_ready(metrics)
        self.metrics |= metrics | {"model/fit_seconds": time.perf_counter() - start}
        clock.lap("fit")

    def _reset_agent_when_due(self) -> Work[None]:
        """Just before the agent is used again: what is evaluated and kept has learned."""
        every, progress = self.config.sac.reset_every_updates, self.progress
        if every and progress.updates // every > progress.agent_resets:
            yield Request("reset_agent")
            progress.agent_resets += 1

    # What is due now and then.

    def _note_due(self) -> None:
        steps, config = self.progress.env_steps, self.config
        for name, every in (
            ("log", config.log_every),
            ("evaluate", config.eval_every),
            ("checkpoint", config.checkpoint_every),
        ):
            if (steps % every == 0 or steps == config.steps) and name not in self.progress.due:
                self.progress.due.append(name)

    def _do_due(self) -> Work[None]:
        """What is due, now that the environment rests (or need not)."""
        due = self.progress.due
        if due:
            self._require_sane()
        if "log" in due:
            self._log()
            due.remove("log")
        if "evaluate" in due:
            yield from self._evaluate()
            due.remove("evaluate")
        if "checkpoint" in due:
            due.remove("checkpoint")
            self._checkpoint()

    def _log(self) -> None:
        self.recorder.clock.lap("learn")
        for finding in report(self.seat.look(lambda state: state.alarms)):
            self._say(finding.name, finding.sentence)
        wrong = int(self.seat.look(lambda state: state.mismatches))
        if wrong:
            self._say("termination", f"termination function wrong on {wrong} real steps")
        # Rewards are reported in the task's own unit: the dial is turned back.
        unit = self.config.task.reward_unit
        self.recorder.log(records.training(self.metrics, self.progress, wrong, unit))

    def _evaluate(self) -> Work[None]:
        clock, config = self.recorder.clock, self.config
        clock.lap("learn")
        self.recorder.status("evaluating")
        played = evaluation(self.eval_env, config.seed, config.eval_episodes)
        try:
            result = yield from asking("mode", played)
        except FtflError as error:
            raise EnvironmentLost(str(error)) from error  # it cannot be made again
        for fault in result.faults:
            self.faults.add(fault, evaluating=True)
        if len(result.returns):
            unit = config.task.reward_unit
            self.progress.last_return = float(np.mean(result.returns / unit))
            self.recorder.write(records.evaluation(result, unit))
        clock.lap("eval")

    # Saving, leaving, coming back.

    def _checkpoint(self) -> None:
        progress = self.progress
        if self._saved_at == progress.env_steps:
            return
        self._require_sane()
        progress.metrics = {k: float(v) for k, v in self.metrics.items()}
        self.recorder.book_seconds()
        try:
            self.recorder.sync()
            saving.save(self.store, self.state, progress)
        except DiskError as error:
            if self.store.last_step == progress.env_steps:
                self._saved_at = progress.env_steps  # saved; only older ones could not be deleted
            if self.config.on_full_disk == "stop":
                raise
            last = f"step {self._saved_at}" if self._saved_at >= 0 else "none"
            self._say("checkpoint", f"{error} The last one kept: {last}; training goes on.")
            return
        self._saved_at = progress.env_steps
        self.recorder.notices.pop("checkpoint", None)

    def _leave_if_asked(self) -> None:
        reason = self.stop.reason
        if reason is None:
            return
        self._checkpoint()
        step = self.progress.env_steps
        if self._saved_at != step:
            raise FtflError(
                f"stopped by {reason} at step {step}, which could not be saved:"
                f" {self.recorder.notices['checkpoint']}"
            )
        self._say("stop", f"stopped by {reason} and saved at step {step}")
        self.recorder.status("stopped")
        raise Stopped(
            f"stopped by {reason} and saved at step {step}: go on with"
            f" `ftfl resume {self.run_dir.path}`."
        )

    def _finish(self) -> None:
        if self._saved_at != self.progress.env_steps:
            raise FtflError(
                "the run is at its end, but its last checkpoint could not be written:"
                f" {self.recorder.notices['checkpoint']}"
            )
        self.recorder.status("done")

    def _require_sane(self) -> None:
        """Refuse to go on, or to save, once a loss or a parameter is no longer finite."""
        if self.config.on_divergence == "continue":
            return
        alarms = self.seat.look(lambda state: state.alarms)
        if not fatal(alarms):
            return
        first = next(f for f in report(alarms) if f.severity == "fatal")
        raise Diverged(f"learning diverged: {first.sentence}")

    def _roll_back(self, reason: Diverged) -> np.ndarray:
        """Go on from the last good checkpoint with fresh randomness, or give up."""
        failed_at, count = self.progress.env_steps, self.progress.rollbacks + 1
        kept = f"the last good checkpoint is at step {self._saved_at}"
        if self.config.on_divergence != "roll_back":
            raise FtflError(f"{reason} Stopped at step {failed_at}; {kept}.") from reason
        if count > _MOST_ROLLBACKS:
            raise FtflError(
                f"{reason} It came back {_MOST_ROLLBACKS} times after rolling back; {kept}."
            ) from reason
        while True:
            found = saving.find(self.run_dir)
            if found is None:
                raise FtflError(f"{reason} There is no checkpoint to roll back to.") from reason
            state = self._go_back_to(found)
            if not fatal(state.alarms):
                break
            # Saved while `continue` was the policy: not what to go back to.
            set_aside_after(self.run_dir.checkpoints_path, self.progress.env_steps - 1)
        key = jax.random.fold_in(state.key, _ROLLBACK + count)
        self.seat.state = dataclasses.replace(state, key=key)
        self.progress.rollbacks = count
        self.metrics = dict(self.progress.metrics)
        self._saved_at = self.progress.env_steps
        self.recorder.take_over(self.progress)
        event = {"event": "rolled back", "from": failed_at, "to": self._saved_at}
        self.run_dir.append_history(event | {"reason": str(reason)})
        self._say("divergence", f"rolled back from step {failed_at} to {self._saved_at}: {reason}")
        self.episodes.abandon()
        return self.episodes.reset()

    def _say(self, about: str, sentence: str) -> None:
        self.recorder.notices[about] = sentence

    def _go_back_to(self, found: saving.Found) -> RunState:
        checkpoint = found.checkpoint
        state, self.progress = saving.load(checkpoint, self.config, self.env.spec)
        set_aside_after(self.run_dir.checkpoints_path, checkpoint.step)
        self.store = CheckpointStore(self.run_dir.checkpoints_path, checkpoint)
        return state
