"""SAC updates of SBX and of ours in alternation on one core: medians and ratios.

    python benchmarks/speed/peers.py ENV_FOLDER [--rounds 40] [--core 0]

Installs SBX into its own virtual environment at ENV_FOLDER if it is not there (it brings torch:
about 6 GB). Same batch, networks, number of updates per call, core, one thread; both sample from a
replay of 20,000 rows. Alone on the machine, or the figures are worthless.
"""

import argparse
import json
import os
import subprocess
import sys
import venv
from importlib import metadata
from pathlib import Path

import numpy as np

from ftfl.training.launch import child_environment

HERE = Path(__file__).parent
WARM = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--core", type=int, default=0)
    args = parser.parse_args()
    python = args.folder / "bin" / "python"
    if not python.exists():
        venv.create(args.folder, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "sbx-rl"], check=True)
    commands = {
        "sbx": [str(python), str(HERE / "sbx_worker.py")],
        "ftfl float32": [sys.executable, str(HERE / "ours_worker.py"), "float32"],
        "ftfl bf16": [sys.executable, str(HERE / "ours_worker.py"), "bf16"],
    }
    environment = child_environment(os.environ)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {args.core})  # the workers inherit it
    workers = {
        name: subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for name, command in commands.items()
    }
    taken: dict[str, list[float]] = {name: [] for name in workers}
    for _ in range(WARM + args.rounds):
        for name, worker in workers.items():
            worker.stdin.write("\n")
            worker.stdin.flush()
            taken[name].append(float(worker.stdout.readline()))
    for worker in workers.values():
        worker.stdin.close()
        worker.wait()
    seconds = {name: np.array(values[WARM:]) for name, values in taken.items()}
    version = [str(python), "-c", "import sbx, jax; print(sbx.__version__, jax.__version__)"]
    sbx, jax = subprocess.run(version, capture_output=True, text=True).stdout.split()
    print(json.dumps({
        "updates_per_call": 20,
        "rounds": args.rounds,
        "sbx": sbx,
        "sbx_jax": jax,
        "our_jax": metadata.version("jax"),
        "median_ms_per_update": {k: 1e3 * float(np.median(v)) / 20 for k, v in seconds.items()},
        "median_ratio_to_sbx": {
            k: float(np.median(seconds["sbx"] / v)) for k, v in seconds.items()
        },
        "quartiles_of_ratio": {
            k: np.quantile(seconds["sbx"] / v, [0.25, 0.75]).tolist() for k, v in seconds.items()
        },
    }, indent=2))  # fmt: skip


if __name__ == "__main__":
    main()
