"""Faults of the environment: each is recorded so that it can be reproduced, and they are few."""

from __future__ import annotations

from ftfl.config import Config
from ftfl.envs.faults import EnvFault
from ftfl.errors import FtflError
from ftfl.store.files import DiskError
from ftfl.store.rundir import RunDir
from ftfl.training.recorder import Recorder

_WINDOW_STEPS = 10_000


class EnvironmentLost(FtflError):
    """The environment failed more often than allowed; what was learned is fine."""


class Diverged(FtflError):
    """Something that must be finite is not any more: the agent's or the model's fault."""


class Faults:
    """Counts faults against the budget ``faults_allowed`` within 10,000 steps."""

    def __init__(self, config: Config, run_dir: RunDir, recorder: Recorder):
        self.config, self.run_dir, self.recorder = config, run_dir, recorder

    def add(self, fault: EnvFault, evaluating: bool = False) -> None:
        """Record a fault with what reproduces it (in an evaluation: without the actions).

        Raises:
            EnvironmentLost: one fault more than allowed.
        """
        progress = self.recorder.progress
        progress.faults.append(progress.env_steps)
        recent = [s for s in progress.faults if s > progress.env_steps - _WINDOW_STEPS]
        place = self.run_dir.faults_path
        record = {
            "env_steps": progress.env_steps,
            "episode": progress.episode,
            "cause": fault.cause,
            "message": str(fault),
            "details": fault.details,
            "seed": fault.seed,
            "step": fault.step,
            "evaluating": evaluating,
            "actions": [] if evaluating else [a.tolist() for a in progress.actions],
        }
        try:
            self.run_dir.append_fault(record)
        except DiskError as error:
            if self.config.on_full_disk == "stop":
                raise
            self.recorder.notices["faults file"] = str(error)
        self.recorder.notices["faults"] = (
            f"{len(progress.faults)} environment faults (see {place.name}), the last: {fault}"
        )
        if len(recent) > self.config.faults_allowed:
            raise EnvironmentLost(
                f"the environment failed {len(recent)} times within {_WINDOW_STEPS} steps, and"
                f" faults_allowed is {self.config.faults_allowed}; the last: {fault} Each one, with"
                f" the seed and the actions that led to it, is in {place}; resume with a larger"
                " --faults-allowed once it is understood."
            )
