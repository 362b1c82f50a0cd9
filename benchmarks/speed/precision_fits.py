"""Model fits in bf16 against float32 on the same fixed replays: does rounding operands matter?

    python benchmarks/speed/precision_fits.py [--updates 1000] [--seeds 0 1 2] [--tasks …]

Margins, declared before any result was seen (a difference is bf16 − float32, mean over seeds):
reward R² and the median channel's skill must not fall by more than 0.02, the skill of no single
channel by more than 0.05. Refits of both cells on random actions, evaluated on rows of other
episodes; one line of JSON per fit in results/precision_fits.jsonl.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from ftfl import presets, replay
from ftfl.envs.make import make_env
from ftfl.forensics.refits import predictions, refit
from ftfl.types import Transition

RESULTS = Path(__file__).parent / "results" / "precision_fits.jsonl"
TASKS = ["gym/Pendulum-v1", "dmc/hopper-stand", "dmc/quadruped-walk"]
ALGOS = ["mbpo", "ftfl"]
TRAIN, TEST = 10_000, 2_000
MARGINS = {"reward_r2": 0.02, "median_skill": 0.02, "channel_skill": 0.05}


def collect(task: str, steps: int, seed: int) -> Transition:
    """Random actions, whole episodes from ``seed`` on."""
    rng, rows = np.random.default_rng(seed), []
    with contextlib.closing(make_env(task)) as env:
        obs = env.reset(seed)
        while len(rows) < steps:
            action = rng.uniform(-1, 1, env.spec.act_dim).astype(np.float32)
            step = env.step(action)
            rows.append((obs, action, np.float32(step.reward), step.obs, step.terminated))
            ended = step.terminated or step.truncated
            obs = env.reset(seed + len(rows)) if ended else step.obs
    return Transition(*(jnp.asarray(np.stack(column)) for column in zip(*rows, strict=True)))


def ring_of(rows: Transition) -> replay.Replay:
    """A replay filled with exactly these rows."""
    empty = replay.empty(len(rows.reward), rows.obs.shape[1], rows.action.shape[1])
    return jax.jit(replay.insert)(empty, rows)


def quality(mean: np.ndarray, truth: np.ndarray, obs: np.ndarray) -> dict:
    """Reward R² and per-channel skill over persistence, in the mean over elites; float64."""
    error = ((mean - truth) ** 2).mean(axis=(0, 1))
    still = ((obs - truth[:, :-1]) ** 2).mean(axis=0)
    moves = still > 0
    skill = np.where(moves, 1 - error[:-1] / np.where(moves, still, 1), np.nan)
    variance = truth[:, -1].var()
    return {
        "reward_r2": float(1 - error[-1] / variance) if variance > 0 else None,
        "median_skill": float(np.nanmedian(skill)),
        "skill": [None if np.isnan(s) else round(float(s), 5) for s in skill],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--updates", type=int, default=1_000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--tasks", nargs="+", default=TASKS)
    args = parser.parse_args()
    RESULTS.parent.mkdir(exist_ok=True)
    done = set()
    if RESULTS.exists():
        rows = map(json.loads, RESULTS.read_text().splitlines())
        done = {(r["task"], r["algo"], r["precision"], r["seed"], r["updates"]) for r in rows}
    for task in args.tasks:
        train, test = collect(task, TRAIN, 0), collect(task, TEST, 1_000_000)
        ring = ring_of(train)
        for algo in ALGOS:
            model = presets.build(task, algo, "paper").dynamics
            for seed in args.seeds:
                for precision in ("float32", "bf16"):
                    if (task, algo, precision, seed, args.updates) in done:
                        continue
                    config = dataclasses.replace(model, precision=precision)
                    start = time.perf_counter()
                    state = jax.block_until_ready(refit(ring, config, seed, args.updates))
                    seconds = time.perf_counter() - start
                    said = predictions(state, test, config)
                    found = quality(said.mean, said.truth, np.asarray(test.obs, np.float64))
                    line = {"task": task, "algo": algo, "precision": precision,
                            "seed": seed, "updates": args.updates,
                            "seconds": round(seconds, 2), **found}  # fmt: skip
                    with RESULTS.open("a") as file:
                        file.write(json.dumps(line) + "\n")
                    print(task, algo, precision, seed, found["reward_r2"], found["median_skill"],
                          flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
