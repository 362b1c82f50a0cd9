"""What a screen's arithmetic costs: time of a batch of branches with it over time without.

The backbone's branches (80 of five steps) on an untrained model of the papers' size, one thread, at
the dimensions of three tasks. Screens are set to let everything go on, so that no branch saved by a
rejection hides the arithmetic. Variants take turns; each is compared with the control of the same
turn, and the median over turns is reported; processor time, which others on the machine disturb
less. Infoprop's calibration comes once per refit and is
timed by itself.

Usage: python benchmarks/screens/cost.py [turns]   → a table on stdout
"""

from __future__ import annotations

import os
import statistics
import sys
import time

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_cpu_multi_thread_eigen=false"
).strip()

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from ftfl import presets, replay, sac
from ftfl.dynamics import predict as dyn
from ftfl.rollouts.generate import Ends, generate
from ftfl.rollouts.memory import remember
from ftfl.termination import never
from ftfl.types import Transition

TASKS = {"hopper": (15, 4), "humanoid": (67, 21), "quadruped": (78, 12)}
ALL_GO_ON = {
    "rollouts.screening.threshold_factor": 1e9,
    "rollouts.screening.quantum": 1e30,  # no bit is ever lost
}
VARIANTS = ("mbpo-h5", "m2ac", "macura", "infoprop", "mopo", "certainty")


def prepared(algo: str, obs_dim: int, act_dim: int, refit: bool = False) -> Callable[[], float]:
    """A function that runs one batch of branches and says how many seconds it took."""
    config = presets.build("none", algo, "laptop", ALL_GO_ON)
    if config.dynamics is None:
        raise SystemExit(f"{algo} has no model")
    rng = np.random.default_rng(0)
    rows = 5_000
    batch = Transition(
        *(
            jnp.asarray(rng.normal(size=shape), jnp.float32)
            for shape in ((rows, obs_dim), (rows, act_dim), rows, (rows, obs_dim))
        ),
        jnp.zeros(rows, bool),
    )
    real = replay.insert(replay.empty(rows, obs_dim, act_dim), batch)
    model = dyn.init(jax.random.key(0), obs_dim, act_dim, config.dynamics)
    actor = sac.init(jax.random.key(1), obs_dim, act_dim, config.sac).actor
    ring = replay.empty(20_000, obs_dim, act_dim)
    memory = remember(config, obs_dim)

    @jax.jit
    def run(key, ring, memory, model):
        ends = Ends(never, None)
        return generate(key, actor, model, real, ring, memory, jnp.int32(0), ends, config)

    state = [0, ring, memory]

    def once() -> float:
        count, ring, memory = state
        now = dataclasses.replace(model, refits=jnp.int32(count if refit else 0))
        start = time.process_time()
        ring, memory, metrics = jax.block_until_ready(run(jax.random.key(count), ring, memory, now))
        seconds = time.process_time() - start
        if float(metrics["rollout/uncertainty_mean_screen"]) != 0.0:
            # Everything went on: each of the five steps judged every row.
            stored = float(metrics["rollout/rows_count"]) / float(metrics["rollout/kept_share"])
            if round(stored) != 400:
                raise SystemExit(f"{algo}: {stored} rows were judged, not 400")
        state[:] = [count + 1, ring, memory]
        return seconds

    once()  # compiles
    return once


def main(turns: int) -> None:
    print(f"{turns} turns, one thread; time of 80 branches of five steps")
    print(f"{'task':10} {'control':>9}  " + "  ".join(f"{name:>9}" for name in VARIANTS[1:]))
    for task, (obs_dim, act_dim) in TASKS.items():
        runs = [prepared(name, obs_dim, act_dim) for name in VARIANTS]
        times = np.array([[run() for run in runs] for _ in range(turns)])
        ratios = np.median(times / times[:, :1], axis=0)
        print(
            f"{task:10} {np.median(times[:, 0]) * 1e3:6.1f} ms  "
            + "  ".join(f"{ratio:8.3f}×" for ratio in ratios[1:]),
            flush=True,
        )
        calibrating = prepared("infoprop", obs_dim, act_dim, refit=True)
        seconds = statistics.median(calibrating() for _ in range(3))
        print(f"{'':10} with infoprop's calibration after a refit: {seconds * 1e3:.0f} ms")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 50)
