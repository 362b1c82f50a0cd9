"""How little model training is enough: a run's refits done over with other numbers of updates.

    python benchmarks/speed/refits.py RUN_DIR [--updates 25 50 100 200 500 1000] [--seeds 0]

Takes the real transitions of a finished run in their order and goes through its schedule again:
at every refit the warm-started model is trained on all rows so far, and then judged on the next
``train_every`` rows, which no model has seen and which the next policy made. What rollouts start
from is such rows, so this is the error that counts. One line of JSON per refit in
results/refits.jsonl; ``stop`` is the laptop profile's own rule (holdout-driven).
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from precision_fits import quality

from ftfl import presets, replay
from ftfl.dynamics import fit as fitting
from ftfl.dynamics import predict
from ftfl.forensics.refits import predictions
from ftfl.forensics.subject import Subject
from ftfl.types import Transition

RESULTS = Path(__file__).parent / "results" / "refits.jsonl"


@functools.partial(jax.jit, static_argnames="config", donate_argnums=0)
def fit(state, ring, holdout, key, config):
    """One warm-started refit."""
    return fitting.fit(state, ring, holdout, key, config)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--updates", nargs="+", default=["25", "50", "100", "200", "500", "stop"])
    parser.add_argument("--batch", type=int, nargs="+", default=[256])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--every", type=int, help="environment steps between refits")
    args = parser.parse_args()
    RESULTS.parent.mkdir(exist_ok=True)
    subject = Subject.load(args.run)
    config, rows = subject.config, subject.rows
    assert config.dynamics is not None
    every = args.every or config.dynamics.train_every
    count = len(rows.reward)
    warm = presets.build(config.task.name, config.algo, "laptop").warmup_steps
    for updates in args.updates:
        for batch in args.batch:
            model = _model(config, updates, batch)
            for seed in args.seeds:
                key = jax.random.key(seed)
                holdout = jax.random.bits(jax.random.fold_in(key, 2), (), jnp.uint32)
                sizes = rows.obs.shape[1], rows.action.shape[1]
                state = predict.init(jax.random.fold_in(key, 0), *sizes, model)
                ring = replay.empty(count, *sizes)
                insert = jax.jit(replay.insert, donate_argnums=0)
                ring = insert(ring, _slice(rows, 0, warm))
                for end in range(warm, count - every + 1, every):
                    start = time.perf_counter()
                    state, told = fit(state, ring, holdout, jax.random.fold_in(key, end), model)
                    jax.block_until_ready(told)
                    seconds = time.perf_counter() - start
                    fresh = _slice(rows, end, end + every)
                    said = predictions(state, fresh, model)
                    found = quality(said.mean, said.truth, np.asarray(fresh.obs, np.float64))
                    line = {"run": f"{config.task.name} {config.algo} {config.seed}",
                            "updates": updates, "batch": batch, "every": every, "seed": seed,
                            "step": end, "done": int(state.updates),
                            "seconds": round(seconds, 3), **found}  # fmt: skip
                    line.pop("skill")
                    with RESULTS.open("a") as file:
                        file.write(json.dumps(line) + "\n")
                    ring = insert(ring, fresh)
                print(line, flush=True)


def _model(config, updates: str, batch: int):
    if updates == "stop":
        return presets.build(config.task.name, config.algo, "laptop").dynamics
    return dataclasses.replace(
        config.dynamics, max_updates=int(updates), check_every=int(updates), batch_size=batch,
        early_stopping=False, best_weights=False,
    )  # fmt: skip


def _slice(rows: Transition, start: int, end: int) -> Transition:
    return jax.tree.map(lambda x: jnp.asarray(x[start:end]), rows)


if __name__ == "__main__":
    main()
