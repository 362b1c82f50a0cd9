"""How little model training is enough: a run's refits done over with other numbers of updates.

    python benchmarks/speed/refits.py fit RUN_DIR [--updates 50 500:100 stop] [--batch 256] …
    python benchmarks/speed/refits.py table                       # from results/refits.jsonl

Takes the real transitions of a finished run in their order and goes through its schedule again:
at every refit the warm-started model is trained on all rows so far, and then judged on the next
``train_every`` rows, which no model has seen and which the next policy made. What rollouts start
from is such rows, so this is the error that counts. One line of JSON per refit in
results/refits.jsonl. ``500:100`` makes 500 updates at the first refit and 100 at the others;
``stop`` is the laptop profile's own rule (holdout-driven).
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import itertools
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from precision_fits import quality

from ftfl import presets, replay
from ftfl.config import Config
from ftfl.config.fields import DynamicsConfig
from ftfl.dynamics import fit as fitting
from ftfl.dynamics import predict
from ftfl.forensics.refits import predictions
from ftfl.forensics.subject import Subject
from ftfl.types import Transition

sys.path.append(str(Path(__file__).resolve().parents[1]))
from lines import add_line, read_lines, table

RESULTS = Path(__file__).parent / "results" / "refits.jsonl"


@functools.partial(jax.jit, static_argnames="config", donate_argnums=0)
def fit(state, ring, holdout, key, config):
    """One warm-started refit."""
    return fitting.fit(state, ring, holdout, key, config)


def fits(args: argparse.Namespace) -> None:
    """The run's refits under every asked combination of updates, batch and learning rate."""
    subject = Subject.load(args.run)
    config, rows = subject.config, subject.rows
    assert config.dynamics is not None
    given = {
        "run": f"{config.task.name} {config.algo} {config.seed}",
        "profile": config.profile, "every": args.every or config.dynamics.train_every,
    }  # fmt: skip
    for updates, batch, rate, seed in itertools.product(
        args.updates, args.batch, args.rate, args.seeds
    ):
        models = [_model(config, part, batch, rate) for part in updates.split(":")]
        line = given | {"updates": updates, "batch": models[0].batch_size, "seed": seed,
                        "rate": models[0].learning_rate}  # fmt: skip
        for told in schedule(rows, models, config.warmup_steps, given["every"], seed):
            add_line(args.results, line | told)
            print(line | told, flush=True)


def schedule(
    rows: Transition, models: list[DynamicsConfig], warm: int, every: int, seed: int
) -> Iterator[dict[str, Any]]:
    """Refit after ``warm`` rows and every ``every`` more; ``models``: at first, afterwards."""
    key = jax.random.key(seed)
    holdout = jax.random.bits(jax.random.fold_in(key, 2), (), jnp.uint32)
    sizes = rows.obs.shape[1], rows.action.shape[1]
    state = predict.init(jax.random.fold_in(key, 0), *sizes, models[0])
    count = len(rows.reward)
    insert = jax.jit(replay.insert, donate_argnums=0)
    ring = insert(replay.empty(count, *sizes), _slice(rows, 0, warm))
    for end in range(warm, count - every + 1, every):
        model = models[0] if end == warm else models[-1]
        start = time.perf_counter()
        state, told = fit(state, ring, holdout, jax.random.fold_in(key, end), model)
        jax.block_until_ready(told)
        seconds = time.perf_counter() - start
        fresh = _slice(rows, end, end + every)
        said = predictions(state, fresh, model)
        found = quality(said.mean, said.truth, np.asarray(fresh.obs, np.float64))
        yield {
            "step": end, "done": int(state.updates), "seconds": round(seconds, 3),
            "reward_r2": found["reward_r2"], "median_skill": found["median_skill"],
        }  # fmt: skip
        ring = insert(ring, fresh)


def _model(config: Config, updates: str, batch: int | None, rate: float | None) -> DynamicsConfig:
    assert config.dynamics is not None
    if updates == "stop":
        model = presets.build(config.task.name, config.algo, "laptop").dynamics
        assert model is not None
        return model
    return dataclasses.replace(
        config.dynamics, max_updates=int(updates), check_every=int(updates),
        learning_rate=rate or config.dynamics.learning_rate,
        batch_size=batch or config.dynamics.batch_size, early_stopping=False, best_weights=False,
    )  # fmt: skip


def show(args: argparse.Namespace) -> None:
    """Medians over the refits of each third of a run, a row for each way of fitting."""
    runs: dict[str, dict[tuple, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for line in read_lines(args.results):
        run = f"{line['run']}, profile {line.get('profile', 'laptop')}"
        runs[run][line["updates"], line["batch"], line.get("rate", 3e-4)].append(line)
    for run, ways in runs.items():
        rows = [
            [updates, str(batch), f"{rate:g}", str(len({line["seed"] for line in lines})),
             *(_thirds([line[k] for line in lines]) for k in ("reward_r2", "median_skill"))]
            for (updates, batch, rate), lines in ways.items()
        ]  # fmt: skip
        head = ["updates a refit", "batch", "learning rate", "seeds", "reward R²",
                "skill over persistence"]  # fmt: skip
        print(f"\n{run}\n\n{table(head, rows)}")


def _thirds(values: list[float]) -> str:
    return ", ".join(f"{np.median(part):.3g}" for part in np.array_split(values, 3))


def _slice(rows: Transition, start: int, end: int) -> Transition:
    return jax.tree.map(lambda x: jnp.asarray(x[start:end]), rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS)
    verbs = parser.add_subparsers(required=True)
    verb = verbs.add_parser("fit")
    verb.set_defaults(do=fits)
    verb.add_argument("run", type=Path)
    verb.add_argument("--updates", nargs="+", default=["25", "50", "100", "200", "500", "stop"])
    verb.add_argument("--batch", type=int, nargs="+", default=[None])
    verb.add_argument("--rate", type=float, nargs="+", default=[None], help="learning rates")
    verb.add_argument("--seeds", type=int, nargs="+", default=[0])
    verb.add_argument("--every", type=int, help="environment steps between refits")
    verbs.add_parser("table").set_defaults(do=show)
    args = parser.parse_args()
    args.do(args)


if __name__ == "__main__":
    main()
