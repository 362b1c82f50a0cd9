"""The only loop: one environment, one seed, from the first step or a checkpoint to the last.

Its methods are generators that ask for what the device computes (``ftfl.training.seat``), so that
the same loop serves a seed alone and seeds in lockstep.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from ftfl.config import Config
from ftfl.envs.guard import EnvFault
from ftfl.envs.spec import Environment
from ftfl.errors import FtflError
from ftfl.sinks.base import Sink
from ftfl.store.rundir import RunDir
from ftfl.training import records
from ftfl.training import state as run_state
from ftfl.training.alarms import fatal, report
from ftfl.training.episodes import Episodes
from ftfl.training.evaluate import evaluation
from ftfl.training.faults import Diverged, EnvironmentLost, Faults
from ftfl.training.keeping import Keeper
from ftfl.training.learn import Learner, make_learner
from ftfl.training.logged import insert_logged, load_logged
from ftfl.training.owed import Owed
from ftfl.training.progress import Progress
from ftfl.training.recorder import Recorder
from ftfl.training.seat import Alone, Request, Seat, Work, asking, do
from ftfl.training.signals import StopRequest
from ftfl.training.state import RunState
from ftfl.types import Transition


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
        self.keeper = Keeper(config, run_dir, env.spec)
        if self.keeper.found is None:
            state, self.progress = _at_the_start(config, env)
        else:
            state, self.progress = self.keeper.return_to(self.keeper.found)
        self.seat: Seat = Alone(learner, state)
        self.recorder = Recorder(config, run_dir, sinks, self.progress)
        self.faults = Faults(config, run_dir, self.recorder)
        self.episodes = Episodes(config, env, self.recorder, self.faults)
        self.owed = Owed(config, self.recorder, self._updates_done)

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
            found = self.keeper.found
            if found is not None and found.damage:
                self._say("damage", f"passed over a damaged checkpoint: {found.damage[0]}")
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
            self.keeper.finish(self.recorder)

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
            yield from self.owed.learn()
            yield from self._do_due()
        return self.episodes.reset() if ended and not last else obs

    def _step(self, obs: np.ndarray) -> Work[tuple[np.ndarray, bool]]:
        """Act once, keep what came of it; the next observation, and whether the episode ended."""
        config, progress, clock = self.config, self.progress, self.recorder.clock
        yield from self.owed.reset_agent_when_due()
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
        self.owed.add()
        self.recorder.status("warming up" if warming else "training", lazily=True)
        return result.obs, result.terminated or result.truncated

    def _updates_done(self) -> Any:
        return self.seat.look(lambda state: state.agent.updates)

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
        self.recorder.log(records.training(self.owed.metrics, self.progress, wrong, unit))

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
        if self.keeper.saved_at == progress.env_steps:
            return
        self._require_sane()
        progress.metrics = {k: float(v) for k, v in self.owed.metrics.items()}
        self.keeper.save(self.state, progress, self.recorder)

    def _leave_if_asked(self) -> None:
        reason = self.stop.reason
        if reason is not None:
            self._checkpoint()
            self.keeper.leave(reason, self.recorder)

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
        failed_at = self.progress.env_steps
        self.seat.state, self.progress = self.keeper.roll_back(reason, self.progress)
        self.recorder.take_over(self.progress)
        self.owed.take_over()
        back_at = self.progress.env_steps
        self._say("divergence", f"rolled back from step {failed_at} to {back_at}: {reason}")
        self.episodes.abandon()
        return self.episodes.reset()

    def _say(self, about: str, sentence: str) -> None:
        self.recorder.notices[about] = sentence


def _at_the_start(config: Config, env: Environment) -> tuple[RunState, Progress]:
    """A run that has not done anything; what was logged elsewhere is its replay already."""
    progress = Progress()
    if config.init_replay is None:
        return run_state.init(config, env.spec, 0), progress
    logged = load_logged(Path(config.init_replay), env.spec)
    state = run_state.init(config, env.spec, len(logged.reward))
    return insert_logged(state, progress, logged), progress
