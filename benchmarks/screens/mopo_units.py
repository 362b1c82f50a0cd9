"""MOPO's λ in units of the data: what λ = 1 in raw units costs on the tasks it was tuned on.

Raw, a row pays λ‖σ‖₂ in the task's reward. In units of the data it pays λ' std(r) ‖σ/c‖₂, where c
holds the standard deviations of the channels and of the reward. Both are taken at the same σ: that
of a model which knows no more than that nothing moves, so σ = (std of one-step changes, std of the
reward), under 10,000 random actions. The ratio λ'/λ makes them equal on a task; its geometric mean
over the three tasks of MOPO's table is the constant of the presets ``mopo`` and ``mopo-ftfl``.
"""

from __future__ import annotations

import gymnasium
import numpy as np

TASKS = ("Hopper-v5", "HalfCheetah-v5", "Walker2d-v5")
STEPS = 10_000


def main() -> None:
    ratios = []
    for task in TASKS:
        env = gymnasium.make(task)
        env.action_space.seed(0)
        obs, _ = env.reset(seed=0)
        rows = []
        for _ in range(STEPS):
            following, reward, terminated, truncated, _ = env.step(env.action_space.sample())
            rows.append([*obs, *(following - obs), reward])
            obs = env.reset()[0] if terminated or truncated else following
        size = len(obs)
        std = np.std(rows, axis=0)
        channel, change, pay = std[:size], std[size : 2 * size], std[-1]
        raw = np.linalg.norm([*change, pay])
        unit = np.linalg.norm([*(change / channel), 1.0])
        ratios.append(raw / (pay * unit))
        print(f"{task}: raw norm {raw:.2f}, unit norm {unit:.2f}, std of reward {pay:.2f}: "
              f"λ'/λ = {ratios[-1]:.1f}")  # fmt: skip
    print(f"geometric mean: {np.exp(np.mean(np.log(ratios))):.1f}")


if __name__ == "__main__":
    main()
