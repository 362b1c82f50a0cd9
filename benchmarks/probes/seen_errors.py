"""What the agent sees of a model's errors: refits of the four cells on random steps of a probe.

    python benchmarks/probes/seen_errors.py [--dial jump slow autocorrelation]
    python benchmarks/probes/seen_errors.py --dial autocorrelation --cells "residual, unit" \\
        "direct, unit" --levels -0.9 -0.5 0 0.25 0.5 0.9 0.99 --seeds 0 1 2 3 4 5 6 7 8 9

2,000 random transitions to train on, 1,000 to measure on; the probe profile's model, trained from
scratch for equal updates, 3 seeds or those named. One-step errors are told as the agent meets them,
after the view has turned the dial back: of position and velocity, in units of their own std over
these data, for one elite's mean and for its draw. On `jump`, rows that cross the jump are told
apart. A line per cell, level and seed goes to results/seen_errors.jsonl; report.py puts them into
the page.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path

import numpy as np

from ftfl import presets
from ftfl.envs.make import make_env
from ftfl.envs.probes import DIALS
from ftfl.forensics.doors import CELLS
from ftfl.forensics.refits import predictions, refit
from ftfl.forensics.rows import ring_of, select
from ftfl.types import Transition

sys.path.append(str(Path(__file__).resolve().parents[1]))
from lines import add_line, read_lines, rounded

RESULTS = Path(__file__).parent / "results" / "seen_errors.jsonl"
TRAIN, TEST, UPDATES, SEEDS = 2_000, 1_000, 3_000, (0, 1, 2)


def collect(task: str, seed: int) -> Transition:
    """Random transitions, whole episodes one after another."""
    env, generator = make_env(task), np.random.default_rng(seed)
    rows, episode = [], 0
    obs = env.reset(seed * 1_000)
    while len(rows) < TRAIN + TEST:
        action = generator.uniform(-1, 1, 1).astype(np.float32)
        step = env.step(action)
        rows.append((obs, action, np.float32(step.reward), step.obs, np.bool_(step.terminated)))
        obs = step.obs
        if step.truncated:
            episode += 1
            obs = env.reset(seed * 1_000 + episode)
    return Transition(*map(np.stack, zip(*rows, strict=True)))


def measure(dial: str, level: float, cell: str, seed: int) -> dict:
    """Train one cell, and measure what the agent would meet."""
    task = f"probe/{dial}@{level:g}" if dial != "rest" else "probe/rest"
    view = make_env(task).spec.view
    model = presets.build(task, "mbpo", "probe").dynamics
    assert model is not None
    config = dataclasses.replace(model, **CELLS[cell])
    rows = collect(task, seed)
    order = np.arange(TRAIN + TEST)
    test = select(rows, order[TRAIN:])
    state = refit(ring_of(select(rows, order[:TRAIN])), config, seed, UPDATES)
    told = predictions(state, test, config)
    noise = np.random.default_rng(seed).standard_normal(told.mean.shape)
    size = test.obs.shape[1]

    def seen(obs: np.ndarray) -> np.ndarray:
        return np.asarray(obs if view is None else view(np.asarray(obs, np.float32)))[..., :2]

    truth, start = seen(test.next_obs), seen(test.obs)
    unit = start.std(axis=0)
    crossing = (start[:, 0] >= 0) != (truth[:, 0] >= 0)
    line = {"dial": dial, "level": level, "cell": cell, "seed": seed,
            "crossing_share": crossing.mean()}  # fmt: skip
    draws = told.mean + told.std * noise
    for name, outcome in (("mean", told.mean), ("draw", draws)):
        error = (seen(outcome[..., :size]) - truth) / unit
        for what, which in (("all", slice(None)), ("crossing", crossing), ("staying", ~crossing)):
            part = error[:, which]
            if part.size:
                line[f"{name}_{what}_rms"] = np.sqrt((part**2).mean(axis=(0, 1))).tolist()
    wrong = told.mean[..., -1] - told.truth[:, -1]
    line["reward_r2_member"] = 1 - (wrong**2).mean() / told.truth[:, -1].var()
    return rounded({k: float(v) if isinstance(v, np.generic) else v for k, v in line.items()})


def main() -> None:
    """Read the options, skip what is done, do the rest."""
    parser = argparse.ArgumentParser(description="Errors as the agent sees them")
    parser.add_argument("--dial", nargs="+", default=["jump", "slow", "autocorrelation"])
    parser.add_argument("--levels", nargs="+", type=float, help="[those named in the task's code]")
    parser.add_argument("--cells", nargs="+", choices=list(CELLS), default=list(CELLS))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    args = parser.parse_args()
    done = {(r["dial"], r["level"], r["cell"], r["seed"]) for r in read_lines(RESULTS)}
    asked = [
        (dial, level, cell, seed)
        for dial in ["rest", *args.dial]
        for level in ((0,) if dial == "rest" else args.levels or DIALS[dial].levels)
        for cell in args.cells
        for seed in args.seeds
    ]
    for point in asked:
        if point not in done:
            line = measure(*point)
            add_line(RESULTS, line)
            print(*point, line["draw_all_rms"], flush=True)


if __name__ == "__main__":
    main()
