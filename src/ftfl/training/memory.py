"""How much memory a run will need, said before it starts."""

from __future__ import annotations

import numpy as np

from ftfl.config import Config
from ftfl.envs.spec import EnvSpec

PROCESS_BYTES = {"model-based": 1_080 * 2**20, "model-free": 750 * 2**20}
"""Python, JAX, MuJoCo, compiled programs, networks and their batches: the most that training
processes took beside their replays (benchmarks/speed/README.md, "Memory")."""


def replay_bytes(config: Config, spec: EnvSpec, logged_rows: int = 0) -> int:
    """Both replays, full: float32 obs, action, reward and next_obs, and one byte for the end."""
    row = 4 * (2 * spec.obs_dim + spec.act_dim + 1) + 1
    rows = config.real_rows(logged_rows)
    if config.rollouts is not None:
        rows += config.rollouts.capacity_rows
    return rows * row


def sentence(config: Config, spec: EnvSpec, runs: int) -> str:
    """One line for the start of a run, whose ``--init-replay`` was checked before."""
    logged = 0
    if config.init_replay is not None:
        with np.load(config.init_replay) as file:
            logged = len(file["reward"])
    replays = replay_bytes(config, spec, logged)
    process = PROCESS_BYTES["model-free" if config.dynamics is None else "model-based"]
    total = (replays + process) / 2**30
    many = f", and {runs} run at once" if runs > 1 else ""
    return f"memory: about {total:.1f} GiB a run, {replays / 2**20:.0f} MiB of it replays{many}"
