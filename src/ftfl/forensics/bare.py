"""What a checkpoint alone says of a task whose environment cannot be made here.

A run is often looked at on another machine than it was trained on. Replay, model and agent are all
in the checkpoint; what is lost is what only the environment knows.
"""

from __future__ import annotations

from ftfl.config import Config
from ftfl.envs.spec import EnvSpec
from ftfl.errors import FtflError
from ftfl.store.checkpoint import Checkpoint
from ftfl.termination import never
from ftfl.training import saving
from ftfl.training.progress import Progress


def bare_spec(config: Config, checkpoint: Checkpoint) -> EnvSpec:
    """The task as the checkpoint's arrays show it: no names, no time limit, nothing to replay.

    Imagined episodes never end in it, unless the run learned how they do.

    Raises:
        FtflError: the model takes its reward from the environment.
    """
    if config.dynamics is not None and config.dynamics.reward_model == "given":
        raise FtflError("and the run's model takes its reward from it, so nothing can be measured.")
    rows = saving.stored_rows(checkpoint, Progress.from_meta(checkpoint.meta).rows).rows
    obs_dim, act_dim = rows["obs"].shape[1], rows["action"].shape[1]
    learned = any("termination" in name for name in checkpoint.components.get("dynamics", {}))
    return EnvSpec(
        task=config.task.name,
        obs_dim=obs_dim,
        act_dim=act_dim,
        max_episode_steps=None,
        termination=None if learned else never,
        learned_termination=learned,
        reward_fn=None,
        replayable=False,
        seconds_per_step=None,
        obs_names=tuple(f"obs[{i}]" for i in range(obs_dim)),
    )
