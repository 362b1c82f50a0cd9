"""Presets that stand for a publication and bring its own compute.

What a publication does that no field can say stands on its page in docs/algorithms.
"""

from __future__ import annotations

from ftfl.presets.kinds import Changes, Preset

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

_MBPO_2019: Changes = {
    "dynamics.init": "truncated", "dynamics.learning_rate": 1e-3,
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
    "eval_episodes": 1,
}  # fmt: skip

# What MACURA, Infoprop and M2AC (as MACURA's authors run it) have from their fork of mbrl-lib.
_MBRL_LIB: Changes = {
    "dynamics.init": "truncated", "dynamics.elites": 7, "dynamics.learning_rate": 3e-4,
    "dynamics.weight_decay": (5e-5,) * 5, "dynamics.holdout": "per_refit",
    "dynamics.early_stopping": True, "dynamics.best_weights": True, "dynamics.check_every": 0,
    "dynamics.max_updates": 1_000_000, "dynamics.patience": 5,
    "dynamics.carry_statistics": False,
    "sac.hidden": (1_024, 1_024), "sac.target_entropy_per_action": -1.0,
    "sac.log_std_map": "clip", "sac.log_std_min": -20.0, "sac.temperature_loss": "log_alpha",
    "rollouts.every": 250, "rollouts.retention": "age", "rollouts.retention_steps": 1_000,
    "rollouts.real_draw": "coin", "warmup_steps": 5_000,
}  # fmt: skip


def _agent(rate: float, entropy: float | None, interval: int, **more: object) -> Changes:
    """SAC of one task; a target network moved every n-th update is one moved by τ/n at each."""
    return {
        "sac.actor_learning_rate": rate, "sac.critic_learning_rate": rate,
        "sac.temperature_learning_rate": rate, "sac.target_entropy": entropy,
        "sac.target_update_rate": 0.005 / interval,
        **{name.replace("__", "."): value for name, value in more.items()},
    }  # fmt: skip


def _model(rate: float, decay: float, patience: int, width: int = 200) -> Changes:
    return {
        "dynamics.learning_rate": rate, "dynamics.weight_decay": (decay,) * 5,
        "dynamics.patience": patience, "dynamics.hidden": (width,) * 4,
    }  # fmt: skip


def _kept(epochs: int) -> Changes:
    return {"rollouts.retention_steps": 1_000 * epochs}


# A temperature that stays at 0.2: its own learning rate is too small to move it.
_FIXED = {"sac.initial_temperature": 0.2, "sac.temperature_learning_rate": 1e-12}

_M2AC: Changes = {
    **_MBRL_LIB, "rollouts.length": (0, 1, 10, 10), "rollouts.capacity_share": 0.25,
    "rollouts.screen": "m2ac", "rollouts.screening.kl_penalty": 1e-3, "sac.exploration": "mean",
}  # fmt: skip
_M2AC_TASKS: dict[str, Changes] = {
    "gym/Ant": {**_model(3e-4, 5e-5, 10), **_agent(1e-4, None, 4), **_FIXED,
                "dynamics.logvar_min": -6.0},
    "gym/HalfCheetah": {**_model(1e-3, 1e-5, 5), "dynamics.logvar_min": -6.0,
                        **_agent(3e-4, -6.0, 1, sac__hidden=(512, 512), sac__updates_per_step=10,
                                 rollouts__per_step=200)},
    "gym/Hopper": {**_model(3e-4, 5e-5, 5), **_agent(3e-4, 0.0, 4, sac__updates_per_step=30)},
    "gym/Humanoid": {**_model(3e-4, 5e-5, 10), **_agent(1e-4, -17.0, 4), **_kept(5)},
    "gym/Walker2d": {**_model(3e-4, 5e-5, 10), **_kept(3),
                     **_agent(7e-5, -1.0, 4, sac__batch_size=512, sac__updates_per_step=30)},
}  # fmt: skip

_MACURA: Changes = {
    **_MBRL_LIB, "rollouts.length": (0, 1, 10, 10), "rollouts.updates": "stored",
    "rollouts.screen": "macura", "rollouts.screening.threshold_percentile": 95.0,
    "rollouts.screening.threshold_factor": 2.0, "sac.exploration": "pink", "eval_episodes": 3,
}  # fmt: skip


def _sure(factor: float, percentile: float = 95.0) -> Changes:
    return {
        "rollouts.screening.threshold_factor": factor,
        "rollouts.screening.threshold_percentile": percentile,
    }


_MACURA_TASKS: dict[str, Changes] = {
    "gym/Ant": {**_sure(5.0), **_agent(1e-4, -1.0, 4, sac__batch_size=512)},
    "gym/HalfCheetah": {**_sure(2.0),
                        **_agent(3e-4, -4.0, 1, sac__updates_per_step=10, rollouts__per_step=200)},
    "gym/Hopper": {**_sure(30.0, 90.0), **_agent(3e-4, 0.0, 4, sac__updates_per_step=30)},
    "gym/Humanoid": {**_sure(5.0), **_model(3e-4, 5e-5, 5, 400), **_kept(5),
                     **_agent(1e-4, -10.0, 4, sac__hidden=(2_048, 2_048), sac__batch_size=512)},
    "gym/Walker2d": {**_sure(0.3), **_model(3e-4, 5e-5, 5, 400), **_kept(3),
                     **_agent(7e-5, -1.0, 4, sac__batch_size=512, sac__updates_per_step=30)},
}  # fmt: skip

_INFOPROP: Changes = {
    **_MBRL_LIB, "rollouts.length": (0, 1, 100, 100), "rollouts.capacity_share": 0.1,
    "rollouts.screen": "infoprop", "rollouts.screening.calibration_rows": 100_000,
    "sac.exploration": "pink", "sac.updates_per_step": 10, "sac.initial_temperature": 0.2,
}  # fmt: skip
_INFOPROP_TASKS: dict[str, Changes] = {
    "gym/Ant": {**_model(1e-3, 2e-5, 9), **_agent(5e-4, 0.0, 5), **_kept(5)},
    "gym/HalfCheetah": {**_model(3e-4, 5e-5, 10),
                        **_agent(3e-4, -6.0, 1, sac__hidden=(512, 512), sac__batch_size=1_024)},
    "gym/Hopper": {**_model(4e-4, 8e-4, 8), **_agent(4e-4, 1.0, 6, dynamics__elites=5),
                   **_kept(2)},
    "gym/Humanoid": {**_model(3e-4, 5e-5, 10, 400), **_kept(5),
                     **_agent(1e-4, -17.0, 4, sac__hidden=(2_048, 2_048))},
    "gym/Walker2d": {**_model(6e-4, 7e-4, 9, 400), **_agent(2e-4, -7.0, 4), **_kept(4)},
}  # fmt: skip

_MOPO: Changes = {
    **_MBPO_2019, "rollouts.length": (0, 1, 5, 5), "rollouts.per_step": 50,
    "rollouts.every": 1_000, "dynamics.train_every": 1_000, "rollouts.retention_steps": 5_000,
    "rollouts.screen": "mopo", "rollouts.screening.std_penalty": 1.0,
    "sac.updates_per_step": 1, "sac.target_entropy": -3.0, "eval_episodes": 10,
}  # fmt: skip

PRESETS: dict[str, Preset] = {
    "mbpo-stfl": Preset(
        "MBPO as the STFL code runs it: shared minibatches, small init, redrawn holdout.",
        "arXiv 2412.14312, CLeARoboticsLab/STFL at 244c775",
        {
            "dynamics.member_data": "shared",
            "dynamics.init": "stacked",
            "dynamics.holdout": "redrawn",
            "dynamics.scale_epsilon": 1e-6,
            "dynamics.carry_statistics": False,
            "dynamics.holdout_rows": 50_000,
            "eval_every": 5_000,
            "eval_episodes": 10,
        },
        own_compute=True,
    ),
    "mbpo-2019": Preset(
        "MBPO as its authors' code runs it: learned bounds, early stopping, length schedules.",
        "arXiv 1906.08253, jannerm/mbpo at ac694ff",
        _MBPO_2019,
        per_task=_MBPO_2019_TASKS,
        own_compute=True,
    ),
    "m2ac-own": Preset(
        "M2AC as MACURA's authors run it: branches of ten steps, the policy's mean as action.",
        "arXiv 2010.04893, Data-Science-in-Mechanical-Engineering/macura at af4e0d8",
        _M2AC,
        per_task=_M2AC_TASKS,
        own_compute=True,
    ),
    "macura-own": Preset(
        "MACURA as its authors run it: updates by the amount of data, pink noise, ξ by task.",
        "arXiv 2405.19014, Data-Science-in-Mechanical-Engineering/macura at af4e0d8",
        _MACURA,
        per_task=_MACURA_TASKS,
        own_compute=True,
    ),
    "infoprop-own": Preset(
        "Infoprop as its authors run it: branches of up to 100 steps, pink noise.",
        "arXiv 2501.16918, Data-Science-in-Mechanical-Engineering/infoprop at ba9c6fb",
        _INFOPROP,
        per_task=_INFOPROP_TASKS,
        own_compute=True,
    ),
    "mopo-own": Preset(
        "MOPO's settings for replayed data, learning online here: the penalty in raw units.",
        "arXiv 2005.13239, tianheyu927/mopo at e5efe3e (D4RL mixed sets)",
        _MOPO,
        per_task={"gym/Walker2d": {"rollouts.length": (0, 1, 1, 1)}},
        own_compute=True,
    ),
}
