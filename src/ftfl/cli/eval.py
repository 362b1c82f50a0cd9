"""``ftfl eval RUN_DIR``: play a trained policy, and film it if asked."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ftfl.cli.options import Parser, at_least
from ftfl.cli.text import print_json, wrapped
from ftfl.store.rundir import RunDir

DESCRIPTION = """Play a trained policy and report the mean return of all episodes.

The policy is deterministic (the mean action) unless --stochastic is given. Returns are in the
task's own unit of reward, lengths in agent steps. Newest valid checkpoint by default; a damaged
one is named and passed over."""


def run(argv: Sequence[str]) -> int:
    """Evaluate, print, and write the video."""
    args = _parser().parse(argv)
    out = Path(args.video) if args.video else None
    RunDir.open(Path(args.run_dir))  # a wrong path is said before JAX takes its second to load

    from ftfl.training.evaluate import evaluate
    from ftfl.training.policy import load_policy

    if out is not None:
        from ftfl.training.video import require_video

        require_video(out)
    policy = load_policy(Path(args.run_dir), args.checkpoint)
    for sentence in policy.damage:
        print(f"ftfl: passed over a damaged checkpoint: {sentence}", file=sys.stderr)
    seed = policy.config.seed if args.seed is None else args.seed
    act = policy.sampler(seed) if args.stochastic else policy.act
    env = policy.make_env()
    try:
        played = evaluate(env, act, seed, args.episodes)
    finally:
        env.close()
    returns = played.returns / policy.config.task.reward_unit
    result: dict[str, Any] = {
        "run": args.run_dir,
        "task": policy.config.task.name,
        "algo": policy.config.algo,
        "checkpoint_step": policy.step,
        "damaged_checkpoints": list(policy.damage),
        "seed": seed,
        "deterministic": not args.stochastic,
        "episodes": args.episodes,
        "return_mean": float(np.mean(returns)),
        "return_std": float(np.std(returns)),
        "return_min": float(np.min(returns)),
        "return_max": float(np.max(returns)),
        "length_mean_steps": float(np.mean(played.lengths)),
        "returns": returns.tolist(),
        "lengths_steps": played.lengths.tolist(),
    }
    if not args.json:
        _print(result)
    if out is not None:
        if not args.json:
            print("filming the first episode …", flush=True)
        result["video"] = _film(args, out, policy.step, seed)
        if not args.json:
            _print_video(result["video"])
    if args.json:
        print_json(result)
    return 0


def _parser() -> Parser:
    parser = Parser("eval", DESCRIPTION)
    parser.add_argument("run_dir", metavar="RUN_DIR", help="folder of one run, …/seed_0")
    parser.add_argument(
        "--episodes", type=at_least(1), default=10, metavar="N", help="episodes to play [10]"
    )
    parser.add_argument(
        "--seed", type=at_least(0), metavar="N",
        help="decides the episodes' starts [the run's seed: the starts that its own evaluations"
        " used]",
    )  # fmt: skip
    parser.add_argument(
        "--checkpoint", type=at_least(0), metavar="STEP",
        help="env steps of the checkpoint to load [the newest valid one]",
    )  # fmt: skip
    parser.add_argument(
        "--stochastic", action="store_true", help="draw actions, as in training [mean action]"
    )
    parser.add_argument(
        "--video", metavar="FILE.mp4",
        help="also film the first of these episodes, in real time (at most 60 frames/s)",
    )  # fmt: skip
    parser.add_argument(
        "--video-size", type=_size, metavar="WxH",
        help="pixels, scaled without distortion [as the environment draws, often 480x480]",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    return parser


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,4})[x×](\d{1,4})", text)
    size = (int(match[1]), int(match[2])) if match else (0, 0)
    if min(size) < 16 or size[0] % 2 or size[1] % 2:
        raise argparse.ArgumentTypeError(
            f"{text!r} was given, but it must be WIDTHxHEIGHT in pixels, two even numbers from 16"
            " to 9998, such as 640x480"
        )
    return size


def _film(args: argparse.Namespace, out: Path, step: int, seed: int) -> dict[str, Any]:
    from ftfl.training.video import Film, record

    return record(Film(args.run_dir, str(out), step, seed, args.stochastic, args.video_size))


def _print(result: dict[str, Any]) -> None:
    kind = "deterministic" if result["deterministic"] else "stochastic"
    head = (
        f"{result['algo']} on {result['task']}, checkpoint at {result['checkpoint_step']} steps,"
        f" {kind} policy, seed {result['seed']}"
    )
    print(wrapped(head))
    for number, (value, length) in enumerate(
        zip(result["returns"], result["lengths_steps"], strict=True)
    ):
        print(f"  episode {number:<3} return {value:>12.4g}   length {length} steps")
    summary = (
        f"mean {result['return_mean']:.4g} of {result['episodes']} episodes, standard deviation"
        f" {result['return_std']:.4g}, min {result['return_min']:.4g}, max"
        f" {result['return_max']:.4g}, mean length {result['length_mean_steps']:.4g} steps"
    )
    print(wrapped(summary))


def _print_video(video: dict[str, Any]) -> None:
    speed = "real time" if video["real_time"] else "speed assumed: the task states no time step"
    print(
        wrapped(
            f"video: {video['file']}, first episode (return {video['return']:.4g}),"
            f" {video['seconds']:.1f} seconds at {video['fps']:.4g} frames/s, {speed}"
        )
    )
