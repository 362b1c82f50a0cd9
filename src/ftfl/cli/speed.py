"""``ftfl speed``: what a training step costs here, part by part, against this machine's limit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from ftfl import config as cfg
from ftfl import presets
from ftfl.cli.options import Parser, add_config_options, at_least, changes, number
from ftfl.cli.text import print_json
from ftfl.config import Config
from ftfl.errors import FtflError
from ftfl.store.provenance import collect
from ftfl.training import cores, launch, workers

DESCRIPTION = """Time every component of a training step with random data, as training runs it:
one thread pinned to one core. The limit it is compared with is a plain matrix product on the same
core. With --processes, as many run side by side, each on a core of its own.

Close other programs first: a shared core makes every figure worthless."""


def run(argv: Sequence[str]) -> int:
    """Measure and print a table."""
    first = _arguments("", add_help=False)
    chosen, _ = first.parse_known_args([a for a in argv if a not in ("-h", "--help")])
    parser = _arguments(DESCRIPTION, add_help=True)
    config = presets.build(chosen.task, chosen.algo, chosen.profile)
    add_config_options(parser, config)
    args = parser.parse(argv)
    config = presets.build(args.task, args.algo, args.profile, changes(args))
    usable = cores.available()
    if args.processes > len(usable):
        raise FtflError(
            f"--processes was given as {args.processes}, but this process may use"
            f" {len(usable)} cores: give at most so many."
        )
    if args.seconds <= 0:
        raise FtflError(f"--seconds was given as {args.seconds:g}, but must be above 0.")
    workers.check_task(config)
    if not args.json:
        print(f"measuring {config.algo} on {config.task.name}, about"
              f" {25 + 8 * args.seconds:.0f} s …", flush=True)  # fmt: skip
    found = _measure(config, args.seconds, usable[: args.processes])
    if args.json:
        total = sum(one["steps_per_second"] for one in found)
        facts = collect(["ftfl", "speed", *argv])
        print_json(found[0] | {"processes": found, "total_steps_per_second": total,
                               "algo": config.algo, "task": config.task.name,
                               "profile": config.profile, "machine": facts})  # fmt: skip
    else:
        print("\n".join(_table(found)))
    return 0


def _arguments(description: str, add_help: bool) -> Parser:
    parser = Parser("speed", description, add_help=add_help, usage="ftfl speed [TASK] [options]")
    parser.add_argument("task", nargs="?", default="dmc/hopper-stand",
                        help="task whose sizes are used [dmc/hopper-stand]")  # fmt: skip
    parser.add_argument(
        "--algo", default="ftfl", help=f"preset: {', '.join(presets.PRESETS)} [ftfl]"
    )
    parser.add_argument(
        "--profile", default="paper", help=f"compute: {', '.join(presets.PROFILES)} [paper]"
    )
    parser.add_argument(
        "--seconds", type=number, default=2.0, metavar="X",
        help="timed per component, after compiling [2]",
    )  # fmt: skip
    parser.add_argument(
        "--processes", type=at_least(1), default=1, metavar="N",
        help="measure so many at once, one per core [1]",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    return parser


def _measure(config: Config, seconds: float, on: Sequence[int]) -> list[dict[str, Any]]:
    environment = launch.child_environment(os.environ)
    what = json.dumps(cfg.to_dict(config))
    children = [
        subprocess.Popen(
            [sys.executable, "-m", "ftfl.bench.speed", what, str(seconds), str(core)],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for core in on
    ]  # fmt: skip
    found = []
    for child in children:
        out, err = child.communicate()
        if child.returncode:
            last = err.strip().splitlines()[-1] if err.strip() else f"exit {child.returncode}"
            raise FtflError(f"measuring failed: {last}")
        found.append(json.loads(out))
    return found


def _table(found: Sequence[dict[str, Any]]) -> list[str]:
    first = found[0]
    lines = [
        f"{'component':<16}{'median':>11}{'a step':>8}{'share':>7}{'GFLOP/s':>9}{'of peak':>9}"
    ]
    for name, part in first["components"].items():
        rate, peak = part["gflops"], part["share_of_matmul_peak"]
        lines.append(
            f"{name:<16}{_duration(part['median_ms']):>11}{part['calls_per_step']:>8.3g}"
            f"{part['share']:>7.0%}" + (f"{rate:>9.1f}{peak:>9.0%}" if rate is not None else "")
        )
    peaks = ", ".join(f"{v:.0f} GFLOP/s in {k}" for k, v in first["matmul_peak_gflops"].items())
    rates = " + ".join(f"{one['steps_per_second']:.3g}" for one in found)
    together = sum(one["steps_per_second"] for one in found)
    lines += [
        f"a plain matrix product on this core: {peaks}",
        f"a step is {first['gflop_per_step']:.3g} GFLOP of matrix products",
        f"{rates} environment steps a second"
        + (f" = {together:.3g}" if len(found) > 1 else "")
        + ", with all that they pay for",
    ]
    return lines


def _duration(ms: float) -> str:
    return f"{ms:.3g} ms" if ms >= 1 else f"{1e3 * ms:.3g} µs"
