"""Algorithms and compute profiles as data: named, sourced changes to the defaults.

Nothing else in the code knows an algorithm's name. ``build`` applies, in this order, the
profile, the preset, the preset's values for the task, and the user's own changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ftfl import config as cfg
from ftfl.config import Config, TaskConfig
from ftfl.errors import unknown

Changes = Mapping[str, Any]


@dataclass(frozen=True)
class Preset:
    """A named algorithm: what it changes, and where that comes from."""

    summary: str
    source: str
    changes: Changes = field(default_factory=dict)
    per_task: Mapping[str, Changes] = field(default_factory=dict)
    """Further changes for one task, by task name without its version."""
    own_compute: bool = False
    """Stands for a publication: brings its own compute and ignores the profile."""


_MBPO_2019_TASKS = {
    # Epochs are 1,000 steps (250 for InvertedPendulum) and start after the random steps.
    "gym/InvertedPendulum": {
        "rollouts.length": (750, 4_250, 1, 1), "sac.updates_per_step": 10,
        "sac.target_entropy": -0.05, "warmup_steps": 500, "rollouts.retention_steps": 250,
    },
    "gym/InvertedDoublePendulum": {
        "rollouts.length": (1_500, 15_500, 1, 1), "sac.target_entropy": -0.5, "warmup_steps": 500,
    },
    "gym/Hopper": {"rollouts.length": (25_000, 155_000, 1, 15), "sac.target_entropy": -1.0},
    "gym/Walker2d": {"rollouts.length": (25_000, 155_000, 1, 1), "sac.target_entropy": -3.0},
    "gym/HalfCheetah": {
        "rollouts.length": (25_000, 155_000, 1, 1), "sac.target_entropy": -3.0,
        "sac.updates_per_step": 40,
    },
    "gym/Ant": {"rollouts.length": (25_000, 105_000, 1, 25), "sac.target_entropy": -4.0},
    "gym/Humanoid": {
        "rollouts.length": (25_000, 305_000, 1, 25), "sac.target_entropy": -2.0,
        "dynamics.hidden": (400, 400, 400, 400), "dynamics.train_every": 1_000,
        "rollouts.every": 1_000, "rollouts.retention_steps": 5_000,
    },
}  # fmt: skip

PRESETS: dict[str, Preset] = {
    "sac": Preset(
        "Soft actor-critic: the model-free agent all others are built on.",
        "arXiv 1812.05905",
        {"dynamics": None, "rollouts": None},
    ),
    "mbpo": Preset(
        "MBPO: residual targets as they are; the defaults.",
        "arXiv 1906.08253; with per-member bootstrap and fan-in",
    ),
    "mbpo-unit": Preset(
        "MBPO with each target dimension standardised (first repair alone).",
        "arXiv 2510.01457 (ablation cell)",
        {"dynamics.scale": "unit"},
    ),
    "mbpo-direct": Preset(
        "MBPO predicting the next state itself (second repair alone).",
        "arXiv 2510.01457 (ablation cell)",
        {"dynamics.target": "direct"},
    ),
    "ftfl": Preset(
        "FTFL: MBPO with both repairs, unit targets and direct prediction.",
        "arXiv 2510.01457 (hyperparameters inferred from STFL)",
        {"dynamics.target": "direct", "dynamics.scale": "unit"},
    ),
    "ftfl-tuned": Preset(
        "FTFL with a larger model (the paper names such a variant; its sizes are ours).",
        "arXiv 2510.01457; sizes chosen here",
        {"dynamics.target": "direct", "dynamics.scale": "unit",
         "dynamics.hidden": (400, 400, 400, 400),
         "dynamics.weight_decay": (2.5e-5, 5e-5, 7.5e-5, 7.5e-5, 1e-4)},
    ),
    "mbpo-stfl": Preset(
        "MBPO as the STFL code runs it: shared minibatches, small init, redrawn holdout.",
        "arXiv 2412.14312, CLeARoboticsLab/STFL at 244c775",
        {"dynamics.member_data": "shared", "dynamics.init": "stacked",
         "dynamics.holdout": "redrawn", "dynamics.scale_epsilon": 1e-6,
         "dynamics.carry_statistics": False, "dynamics.holdout_rows": 50_000, "eval_every": 5_000,
         "eval_episodes": 10},
        own_compute=True,
    ),
    "mbpo-2019": Preset(
        "MBPO as its authors' code runs it: learned bounds, early stopping, length schedules.",
        "arXiv 1906.08253, jannerm/mbpo at ac694ff",
        {"dynamics.init": "truncated", "dynamics.learning_rate": 1e-3,
         "dynamics.logvar_learned": True, "dynamics.holdout": "per_refit",
         "dynamics.early_stopping": True, "dynamics.best_weights": True,
         "dynamics.check_every": 0, "dynamics.max_updates": 1_000_000,
         # "More than 5 epochs without improvement" is the sixth.
         "dynamics.patience": 6, "sac.target_entropy_per_action": -1.0,
         "dynamics.carry_statistics": False,
         "rollouts.every": 250, "rollouts.retention_steps": 1_000,
         "rollouts.real_ratio": 12 / 256,
         "warmup_steps": 5_000, "sac.log_std_map": "clip", "sac.log_std_min": -20.0,
         "sac.temperature_loss": "log_alpha", "sac.critic_loss_weight": 0.5,
         "eval_episodes": 1},
        per_task=_MBPO_2019_TASKS,
        own_compute=True,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Profile:
    """A named amount of compute; the algorithm stays the same."""

    summary: str
    changes: Changes


PROFILES: dict[str, Profile] = {
    "paper": Profile(
        "The papers' compute: UTD 20, 10,000 random steps, 5,000 model updates per refit.",
        {},
    ),
    "laptop": Profile(
        "Half the updates, a tenth of the warm-up, model training capped and stopped early.",
        {
            "warmup_steps": 1_000,
            "sac.updates_per_step": 10,
            "dynamics.max_updates": 500,
            "dynamics.early_stopping": True,
            "dynamics.best_weights": True,
            "dynamics.check_every": 50,
            "dynamics.patience": 3,
            "dynamics.holdout_rows": 1_000,
            "rollouts.retention_steps": 250,
        },
    ),
    "probe": Profile(
        "Seconds a run, for dose-response work: 2×64 networks, batch 128, UTD 4.",
        {
            "warmup_steps": 500,
            "sac.hidden": (64, 64),
            "sac.batch_size": 128,
            "sac.updates_per_step": 4,
            "sac.actor_learning_rate": 1e-3,
            "sac.critic_learning_rate": 1e-3,
            "sac.temperature_learning_rate": 1e-3,
            "dynamics.hidden": (64, 64),
            "dynamics.weight_decay": (2.5e-5, 5e-5, 1e-4),
            "dynamics.learning_rate": 1e-3,
            "dynamics.batch_size": 128,
            "dynamics.max_updates": 500,
            "dynamics.holdout_rows": 500,
            "rollouts.per_step": 100,
            "rollouts.retention_steps": 250,
        },
    ),
}


def build(
    task: str,
    algo: str = "ftfl",
    profile: str = "laptop",
    changes: Changes | None = None,
) -> Config:
    """The configuration of one run.

    Args:
        task: task name; not resolved here.
        algo: a key of ``PRESETS``.
        profile: a key of ``PROFILES``; ignored by presets with ``own_compute``.
        changes: the user's own values by dotted field name, applied last.

    Raises:
        FtflError: unknown preset, profile or field, or an impossible value.
    """
    if algo not in PRESETS:
        raise unknown("algorithm", algo, PRESETS)
    if profile not in PROFILES:
        raise unknown("profile", profile, PROFILES)
    preset = PRESETS[algo]
    label = "own" if preset.own_compute else profile
    config = Config(algo=algo, profile=label, task=TaskConfig(name=task))
    if not preset.own_compute:
        config = cfg.replace(config, PROFILES[profile].changes)
    config = cfg.replace(config, preset.changes)
    config = cfg.replace(config, preset.per_task.get(task.rsplit("-v", 1)[0], {}))
    own = config
    if changes:
        config = cfg.replace(config, changes)
    if preset.own_compute and _compute(config) != _compute(own):
        config = cfg.replace(config, {"profile": "own, scaled"})
    return config


_COMPUTE = ("sac.updates_per_step", "sac.hidden", "sac.batch_size", "dynamics.hidden",
            "dynamics.max_updates", "dynamics.train_every", "dynamics.batch_size",
            "rollouts.per_step", "rollouts.every", "warmup_steps")  # fmt: skip


def _compute(config: Config) -> tuple[Any, ...]:
    flat = cfg.flatten(config)
    return tuple(flat.get(name) for name in _COMPUTE)


def explain(config: Config) -> list[str]:
    """Lines that say what preset and profile change, for the start of a run."""
    preset = PRESETS[config.algo]
    base = build(config.task.name, config.algo, _profile_name(config))
    lines = [f"{config.algo}: {preset.summary}", f"  source: {preset.source}"]
    if preset.own_compute:
        lines.append(f"profile {config.profile}: the publication's own compute")
    else:
        lines.append(f"profile {config.profile}: {PROFILES[config.profile].summary}")
    plain = Config(algo=config.algo, profile=config.profile, task=config.task)
    for title, a, b in (("preset and profile set", plain, base), ("you set", base, config)):
        skip = {"algo", "profile", "seed"}
        if title.startswith("preset"):
            skip |= {"task.name", "task.action_repeat", "task.reward_unit"}
        changed = {k: v[1] for k, v in cfg.difference(a, b).items() if k not in skip}
        changed = {k: v for k, v in changed.items() if k in cfg.flatten(b)}
        if changed:
            lines.append(f"{title}: " + ", ".join(f"{k}={_show(v)}" for k, v in changed.items()))
    return lines


def _profile_name(config: Config) -> str:
    return config.profile if config.profile in PROFILES else "laptop"


def _show(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(str(v) for v in value)
    return str(value)
