"""Which door lets a reward unit of 2^-k spoil a raw model? Refits on one fixed replay.

2,000 transitions of gym/Pendulum-v1 under random actions, rewards × 2^-14; the probe profile's
network trained from scratch for 4,500 updates (as many as a demo run makes), one door changed at
a time. Measured on held-out rows, in the task's own unit of reward:

    R² of the elites' averaged mean; R² of a single member (mean over elites); the std a member
    predicts over the std of real rewards; the rms change of a member's mean over 1 further update
    (jitter) over the std of real rewards.

    python benchmarks/unit_dial/doors.py                  # all doors → results/doors.csv
    python benchmarks/unit_dial/doors.py --doors NAME …   # these alone; other lines stay
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from ftfl import presets, replay
from ftfl.dynamics import fit as fitting
from ftfl.dynamics import predict as dyn
from ftfl.dynamics.predict import DynamicsState
from ftfl.envs import make_env
from ftfl.replay import Replay
from ftfl.types import Transition

ROWS, UPDATES, SEEDS = 2_000, 4_500, (0, 1, 2)
POWER = 14
HERE = Path(__file__).parent
DOORS: dict[str, tuple[str, int, dict]] = {
    "mbpo, rest": ("mbpo", 0, {}),
    "mbpo, dial": ("mbpo", POWER, {}),
    "mbpo, dial at 2^-10": ("mbpo", 10, {}),
    "dial, floor -25": ("mbpo", POWER, {"dynamics.logvar_min": -25.0}),
    "dial, floor -25, start -12": (
        "mbpo", POWER, {"dynamics.logvar_min": -25.0, "dynamics.logvar_start": -12.0}
    ),
    "dial, separate reward network": ("mbpo", POWER, {"dynamics.reward_model": "separate"}),
    "dial, learning rate / 10": ("mbpo", POWER, {"dynamics.learning_rate": 1e-4}),
    "dial, learning rate / 10, floor -25": (
        "mbpo", POWER, {"dynamics.learning_rate": 1e-4, "dynamics.logvar_min": -25.0}
    ),
    "dial, learning rate / 10, 10 × updates": (
        "mbpo", POWER, {"dynamics.learning_rate": 1e-4, "dynamics.max_updates": 10 * UPDATES}
    ),
    "dial, rate / 10, 10 × updates, floor -25, start -12": (
        "mbpo", POWER,
        {"dynamics.learning_rate": 1e-4, "dynamics.max_updates": 10 * UPDATES,
         "dynamics.logvar_min": -25.0, "dynamics.logvar_start": -12.0},
    ),
    "dial at 2^-10, 10 × updates": ("mbpo", 10, {"dynamics.max_updates": 10 * UPDATES}),
    "dial at 2^-10, learning rate / 10": ("mbpo", 10, {"dynamics.learning_rate": 1e-4}),
    "dial at 2^-10, learning rate / 10, 10 × updates": (
        "mbpo", 10, {"dynamics.learning_rate": 1e-4, "dynamics.max_updates": 10 * UPDATES}
    ),
    "dial, separate, rate / 10, floor -25": (
        "mbpo", POWER,
        {"dynamics.learning_rate": 1e-4, "dynamics.logvar_min": -25.0,
         "dynamics.reward_model": "separate"},
    ),
    "mbpo-unit, dial": ("mbpo-unit", POWER, {}),
    "mbpo-direct, dial": ("mbpo-direct", POWER, {}),
    "ftfl, dial": ("ftfl", POWER, {}),
}  # fmt: skip


def collect(power: int, seed: int) -> Replay:
    """Random transitions; the same physics for every power."""
    env = make_env("gym/Pendulum-v1", reward_unit=2.0**-power)
    generator = np.random.default_rng(seed)
    obs, rows = env.reset(seed), []
    for t in range(ROWS):
        action = generator.uniform(-1, 1, 1).astype(np.float32)
        step = env.step(action)
        rows.append((obs, action, np.float32(step.reward), step.obs, np.bool_(step.terminated)))
        obs = env.reset(seed * 1_000 + t) if step.truncated else step.obs
    ring = replay.empty(ROWS, 3, 1)
    return jax.jit(replay.insert)(ring, Transition(*map(np.stack, zip(*rows, strict=True))))


def measure(name: str, seed: int) -> dict[str, float | str | int]:
    """Train and look at held-out rewards."""
    algo, power, changes = DOORS[name]
    config = presets.build(
        "gym/Pendulum-v1", algo, "probe",
        {"dynamics.max_updates": UPDATES, "dynamics.check_every": 500, **changes},
    ).dynamics  # fmt: skip
    assert config is not None
    ring = collect(power, seed)
    split_seed = jnp.uint32(7)
    run = jax.jit(lambda s, r, k: fitting.fit(s, r, split_seed, k, config)[0])
    state = run(dyn.init(jax.random.key(seed), 3, 1, config), ring, jax.random.key(seed + 100))
    split = replay.Split(config.holdout_every, split_seed)
    held = replay.take(ring, split.holdout_slot(jnp.arange(ROWS // config.holdout_every)))
    real = np.asarray(held.reward)

    def rewards(s: DynamicsState) -> tuple[np.ndarray, np.ndarray]:
        out = dyn.predict(s, held.obs, held.action, config)
        return np.asarray(out.mean[s.elites, :, -1]), np.asarray(out.std[s.elites, :, -1])

    mean, std = rewards(state)
    one_more = dataclasses.replace(config, max_updates=1, carry_statistics=False)
    step = jax.jit(lambda s, r, k: fitting.fit(s, r, split_seed, k, one_more)[0])
    after = dataclasses.replace(step(state, ring, jax.random.key(seed + 200)), elites=state.elites)
    jitter = np.sqrt(np.mean((rewards(after)[0] - mean) ** 2))

    def r2(error: np.ndarray) -> float:
        return float(1 - np.mean(error**2) / np.var(real))

    return {
        "door": name, "seed": seed,
        "r2_averaged": r2(mean.mean(0) - real),
        "r2_single_member": float(np.mean([r2(m - real) for m in mean])),
        "predicted_std_over_real_std": float(np.mean(std) / np.std(real)),
        "jitter_over_real_std": float(jitter / np.std(real)),
    }  # fmt: skip


def main() -> None:
    """The doors asked for, all seeds; lines of others stay as they are."""
    parser = argparse.ArgumentParser(description="Doors of the unit dial, on one fixed replay")
    parser.add_argument("--doors", nargs="+", choices=list(DOORS), default=list(DOORS))
    asked = parser.parse_args().doors
    path = HERE / "results" / "doors.csv"
    rows: list[dict[str, float | str | int]] = []
    if path.exists():
        with open(path, newline="", encoding="utf-8") as file:
            rows = [dict(row) for row in csv.DictReader(file) if row["door"] not in asked]
    for name in asked:
        mine = [measure(name, seed) for seed in SEEDS]
        rows += mine
        shown = "  ".join(
            f"{k}: " + " ".join(f"{r[k]:8.3f}" for r in mine) for k in list(mine[0])[2:]
        )
        print(f"{name:48s} {shown}", flush=True)
    order = list(DOORS)
    rows.sort(key=lambda row: (order.index(str(row["door"])), int(row["seed"])))
    path.parent.mkdir(exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(
            {k: f"{v:.6g}" if isinstance(v, float) else v for k, v in r.items()} for r in rows
        )


if __name__ == "__main__":
    main()
