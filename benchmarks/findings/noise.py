"""What a model draws, beside what happened, by kind of channel.

    python benchmarks/findings/noise.py RUNS/kept/quadruped-walk@10000 --seeds 0 1

From one checkpoint of a run (RUN: a folder that `run.py parents` keeps) each preset's model is
fitted once, as at the beginning of a fork, and asked about the newest real transitions (which it
was trained on, but for its holdout). All numbers are in the channels' own units. One line per
preset and seed in results/noise.jsonl; what stands there is skipped.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import Any

import numpy as np

from ftfl.errors import FtflError
from ftfl.forensics.learned import make_world_model
from ftfl.forensics.subject import Subject
from ftfl.training.fork import changed_config
from ftfl.training.learn import make_learner

sys.path.append(str(Path(__file__).resolve().parents[1]))
from lines import add_line, read_lines, rounded
from run import ARMS, UPDATES_A_STEP
from simulator import begin

RESULTS = Path(__file__).parent / "results" / "noise.jsonl"
ROWS = 2_000


def rms(x: np.ndarray) -> float:
    """Root of the mean square."""
    return float(np.sqrt(np.square(x, dtype=np.float64).mean()))


def drawn(subject: Subject, preset: str, seed: int) -> dict[str, Any]:
    """Noise and errors of a preset's model, by kind of channel."""
    parent = dataclasses.replace(subject.config, profile="laptop")
    changes = {"sac.updates_per_step": UPDATES_A_STEP}
    config = changed_config(parent, preset, changes, subject.config.steps + 1)
    learner = make_learner(config, subject.spec, rollouts=False)
    state, _ = learner.fit(begin(subject, config, seed))
    assert state.dynamics is not None
    model = make_world_model(state.dynamics, config, subject.spec)
    obs, action, next_obs = (
        np.asarray(x)[-ROWS:]
        for x in (subject.rows.obs, subject.rows.action, subject.rows.next_obs)
    )
    generator = np.random.default_rng(seed)
    mean = model.imagine(obs, action, None).next_obs[:, 0]
    draw = model.imagine(obs, action, model.noise(generator, len(obs))).next_obs[:, 0]
    kinds = np.array([name.partition("[")[0] for name in subject.spec.obs_names or ()])
    return {
        str(kind): {
            "channels": int((at := kinds == kind).sum()),
            "noise": rms((draw - mean)[:, at]), "error_of_mean": rms((mean - next_obs)[:, at]),
            "change": rms((next_obs - obs)[:, at]), "std": rms(obs[:, at].std(axis=0)),
            "largest_drawn": float(np.abs(draw[:, at]).max()),
            "largest_real": float(np.abs(next_obs[:, at]).max()),
        }
        for kind in dict.fromkeys(kinds)
    }  # fmt: skip


def main() -> None:
    """Read the options, skip what is done, do the rest."""
    parser = argparse.ArgumentParser(description="What a model draws, by kind of channel")
    parser.add_argument("run", type=Path, help="kept parent, TASK@STEP")
    parser.add_argument("--presets", nargs="+", default=list(ARMS[1:]),
                        help="all of run.py's arms with a model")  # fmt: skip
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args()
    task, _, at = args.run.name.partition("@")
    done = {(r["task"], r["at"], r["arm"], r["seed"]) for r in read_lines(args.results)}
    try:
        subject = Subject.load(args.run)
        for seed in args.seeds:
            for preset in args.presets:
                if (task, int(at), preset, seed) in done:
                    continue
                kinds = drawn(subject, preset, seed)
                line = {"task": task, "at": int(at), "steps": 0, "arm": preset, "seed": seed,
                        "rows": min(ROWS, len(subject.rewards)), "kinds": kinds}  # fmt: skip
                add_line(args.results, rounded(line))
                print(preset, seed, flush=True)
    except FtflError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
