"""Algorithms and compute profiles as data: named, sourced changes to the defaults.

Nothing else in the code knows an algorithm's name. ``build`` applies, in this order, the
profile, the preset, the preset's values for the task, and the user's own changes.
"""

from __future__ import annotations

from typing import Any

from ftfl import config as cfg
from ftfl.config import Config, TaskConfig
from ftfl.errors import unknown
from ftfl.presets import lineage, published
from ftfl.presets.kinds import Changes, Preset, Profile

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
        lineage.FTFL,
    ),
    "mbpo-innovation": Preset(
        "MBPO predicting what a channel's own last value does not say, in unit scale.",
        "ours (docs/algorithms/innovation.md)",
        lineage.INNOVATION,
    ),
    "ftfl-tuned": Preset(
        "FTFL with a larger model (the paper names such a variant; its sizes are ours).",
        "arXiv 2510.01457; sizes chosen here",
        {**lineage.FTFL, "dynamics.hidden": (400, 400, 400, 400),
         "dynamics.weight_decay": (2.5e-5, 5e-5, 7.5e-5, 7.5e-5, 1e-4)},
    ),
    **lineage.presets(),
    **published.PRESETS,
}  # fmt: skip


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
