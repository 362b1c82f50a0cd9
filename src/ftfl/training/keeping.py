"""What of a run is kept: its checkpoints, leaving with one, and going back to one."""

from __future__ import annotations

import dataclasses

import jax

from ftfl.config import Config
from ftfl.envs.spec import EnvSpec
from ftfl.errors import FtflError, Stopped
from ftfl.store.checkpoint import CheckpointStore, set_aside_after
from ftfl.store.files import DiskError
from ftfl.store.rundir import RunDir
from ftfl.training import saving
from ftfl.training.alarms import fatal
from ftfl.training.faults import Diverged
from ftfl.training.progress import Progress
from ftfl.training.recorder import Recorder
from ftfl.training.state import RunState

_MOST_ROLLBACKS = 3
_ROLLBACK = 1 << 30  # a stream of its own, far from those of state.Stream


class Keeper:
    """Saves a run, and goes back to what was saved."""

    def __init__(self, config: Config, run_dir: RunDir, spec: EnvSpec):
        """Find the newest valid checkpoint.

        Raises:
            FtflError: there are checkpoints and none is valid, or results and no checkpoint.
        """
        self.config, self.run_dir, self.spec = config, run_dir, spec
        self.found = saving.find(run_dir)
        self.store = CheckpointStore(run_dir.checkpoints_path)
        self.saved_at = -1
        """Env steps of the newest checkpoint; −1 before the first."""

    def return_to(self, found: saving.Found) -> tuple[RunState, Progress]:
        """Load a checkpoint; all newer ones are set aside.

        Raises:
            FtflError: it does not fit the configuration or the task.
        """
        checkpoint = found.checkpoint
        state, progress = saving.load(checkpoint, self.config, self.spec)
        set_aside_after(self.run_dir.checkpoints_path, checkpoint.step)
        self.store = CheckpointStore(self.run_dir.checkpoints_path, checkpoint)
        self.saved_at = progress.env_steps
        return state, progress

    def save(self, state: RunState, progress: Progress, recorder: Recorder) -> None:
        """Write a checkpoint of this moment, behind the records that are its past.

        Raises:
            DiskError: the disk refuses, and the configuration says to stop then; else the user is
                told and training goes on.
        """
        recorder.book_seconds()
        try:
            recorder.sync()
            saving.save(self.store, state, progress)
        except DiskError as error:
            if self.store.last_step == progress.env_steps:
                self.saved_at = progress.env_steps  # saved; only older ones could not be deleted
            if self.config.on_full_disk == "stop":
                raise
            last = f"step {self.saved_at}" if self.saved_at >= 0 else "none"
            recorder.notices["checkpoint"] = f"{error} The last one kept: {last}; training goes on."
            return
        self.saved_at = progress.env_steps
        recorder.notices.pop("checkpoint", None)

    def leave(self, reason: str, recorder: Recorder) -> None:
        """End this process because a signal asked for it; the run was to be saved before.

        Raises:
            Stopped: it is.
            FtflError: it is not.
        """
        step = recorder.progress.env_steps
        if self.saved_at != step:
            raise FtflError(
                f"stopped by {reason} at step {step}, which could not be saved:"
                f" {recorder.notices['checkpoint']}"
            )
        recorder.notices["stop"] = f"stopped by {reason} and saved at step {step}"
        recorder.status("stopped")
        raise Stopped(
            f"stopped by {reason} and saved at step {step}: go on with"
            f" `ftfl resume {self.run_dir.path}`."
        )

    def finish(self, recorder: Recorder) -> None:
        """Come to the run's end.

        Raises:
            FtflError: its last checkpoint is missing.
        """
        if self.saved_at != recorder.progress.env_steps:
            raise FtflError(
                "the run is at its end, but its last checkpoint could not be written:"
                f" {recorder.notices['checkpoint']}"
            )
        recorder.status("done")

    def roll_back(self, reason: Diverged, failed: Progress) -> tuple[RunState, Progress]:
        """The last good checkpoint with fresh randomness.

        Raises:
            FtflError: there is none, it was gone back to too often, or the configuration says to
                stop instead.
        """
        failed_at, count = failed.env_steps, failed.rollbacks + 1
        kept = f"the last good checkpoint is at step {self.saved_at}"
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
            state, progress = self.return_to(found)
            if not fatal(state.alarms):
                break
            # Saved while `continue` was the policy: not what to go back to.
            set_aside_after(self.run_dir.checkpoints_path, progress.env_steps - 1)
        progress.rollbacks = count
        event = {"event": "rolled back", "from": failed_at, "to": self.saved_at}
        self.run_dir.append_history(event | {"reason": str(reason)})
        key = jax.random.fold_in(state.key, _ROLLBACK + count)
        return dataclasses.replace(state, key=key), progress
