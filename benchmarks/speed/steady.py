"""Does a run stay as fast and as small as it began?

    python benchmarks/speed/steady.py capacity     # a learn step with replays of 10⁴ and 10⁶ rows
    python benchmarks/speed/steady.py memory       # resident memory over 20,000 steps

Alone on the machine. Results go to results/steady.json, and the exit status is 1 where a promise is
broken: 5 % for the capacity, and for memory 2 % between the first thousand learning steps and the
end (a run allocates its replays when it begins).
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ftfl import presets, replay
from ftfl.envs.make import make_env
from ftfl.training import cores
from ftfl.training import state as run_state
from ftfl.training.learn import make_learner
from ftfl.types import Transition

RESULTS = Path(__file__).parent / "results" / "steady.json"
CAPACITIES = (10_000, 1_000_000)
TASK, STEPS = "gym/Pendulum-v1", 20_000


def learner_of(capacity: int) -> Any:
    """A function that makes one learn step of the laptop profile and says how long it took."""
    spec = make_env(TASK).spec
    config = presets.build(TASK, "ftfl", "laptop", {"replay_rows": capacity, "steps": capacity})
    state = run_state.init(config, spec)
    rng = np.random.default_rng(0)
    shapes = ((capacity, 3), (capacity, 1), capacity, (capacity, 3))
    rows = Transition(
        *(jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes),
        jnp.zeros(capacity, bool),
    )
    holder = [
        jax.jit(lambda s, r: run_state.with_parts(s, {"real": replay.insert(s.real, r)}))(
            state, rows
        )
    ]
    learner = make_learner(config, spec)

    def step() -> float:
        begin = time.perf_counter()
        holder[0], metrics = learner.learn(holder[0])
        jax.block_until_ready(metrics)
        return time.perf_counter() - begin

    return step


def capacity(turns: int = 60) -> dict[str, Any]:
    """Median time of both, in alternation, and the median of paired ratios."""
    cores.pin(cores.available()[0])
    steps = [learner_of(size) for size in CAPACITIES]
    for step in steps * 3:
        step()
    taken = [[step() for step in steps] for _ in range(turns)]
    small, large = (statistics.median(column) for column in zip(*taken, strict=True))
    ratio = statistics.median(b / a for a, b in taken)
    return {"rows": CAPACITIES, "ms": [1e3 * small, 1e3 * large], "ratio": ratio,
            "kept": ratio <= 1.05}  # fmt: skip


def memory() -> dict[str, Any]:
    """Resident memory of the training process as its steps go by."""
    seen: list[tuple[int, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        words = ["train", TASK, "--algo", "ftfl", "--profile", "probe", "--steps", STEPS,
                 "--eval-every", 1_000, "--eval-episodes", 1, "--checkpoint-every", 1_000,
                 "--out", folder, "--name", "x", "--apart"]  # fmt: skip
        run = subprocess.Popen(
            [sys.executable, "-m", "ftfl", *map(str, words)], stdout=subprocess.DEVNULL
        )
        status = Path(folder) / "gym_Pendulum-v1" / "x" / "seed_0" / "status.json"
        while run.poll() is None:
            time.sleep(0.5)
            try:
                told = json.loads(status.read_text())
                size = Path(f"/proc/{told['pid']}/statm").read_text().split()[1]
            except (OSError, ValueError, KeyError):
                continue
            seen.append((told.get("env_steps") or 0, int(size) * 4096 / 2**20))
    if run.returncode:
        sys.exit("the run failed")
    early = [size for step, size in seen if 1_500 <= step <= 2_500]
    late = [size for step, size in seen if step >= STEPS - 1_000]
    growth = statistics.median(late) / statistics.median(early) - 1
    picked = seen[:: max(len(seen) // 40, 1)]
    return {"steps": STEPS, "mib": [[s, round(m, 1)] for s, m in picked],
            "growth": growth, "kept": growth <= 0.02}  # fmt: skip


def main() -> None:
    """Measure one of them and keep it beside the other."""
    parser = argparse.ArgumentParser(description="Capacity and memory")
    parser.add_argument("what", choices=("capacity", "memory"))
    what = parser.parse_args().what
    found = {"capacity": capacity, "memory": memory}[what]()
    kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    RESULTS.write_text(json.dumps(kept | {what: found}, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({k: v for k, v in found.items() if k != "mib"}))
    sys.exit(0 if found["kept"] else 1)


if __name__ == "__main__":
    main()
