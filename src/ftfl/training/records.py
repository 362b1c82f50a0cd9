"""What the records of a run say: values by metric name, rewards in the task's own unit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ftfl.training.evaluate import Evaluation
from ftfl.training.progress import Progress


def training(
    metrics: Mapping[str, Any], progress: Progress, mismatches: int, unit: float
) -> dict[str, float]:
    """A log record: the newest device values, and what the host has counted.

    Args:
        metrics: newest value of each device metric, as the environment paid it.
        progress: the host side of the run.
        mismatches: real transitions whose end the termination function got wrong.
        unit: what the environment pays for one unit of the task's reward.
    """
    values = {k: float(v) for k, v in metrics.items()}
    values = {k: v / unit if k.endswith("_reward") else v for k, v in values.items()}
    return values | {
        "rollout/real_reward_mean_reward": progress.rewards.mean / unit,
        "rollout/real_reward_std_reward": progress.rewards.std / unit,
        "agent/updates_count": progress.updates,
        "agent/resets_count": progress.agent_resets,
        "termination/mismatch_count": mismatches,
        "env/faults_count": len(progress.faults),
    }


def evaluation(result: Evaluation, unit: float) -> dict[str, float]:
    """The record of an evaluation with at least one whole episode."""
    returns = result.returns / unit
    return {
        "eval/return_mean_reward": float(np.mean(returns)),
        "eval/return_std_reward": float(np.std(returns)),
        "eval/return_min_reward": float(np.min(returns)),
        "eval/return_max_reward": float(np.max(returns)),
        "eval/length_mean_steps": float(np.mean(result.lengths)),
        "eval/episodes_count": len(returns),
    }
