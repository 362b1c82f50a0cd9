"""``ftfl doctor [TASK]``: is this machine ready, and does a task keep its word?"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from ftfl.cli.options import Parser
from ftfl.cli.text import print_json, wrapped
from ftfl.errors import FtflError

DESCRIPTION = """Check versions, JAX, cores, memory, disk and rendering of this machine and, with a
TASK, an environment: spaces, determinism, throughput (agent steps per second), termination.

A task is stepped about 1,250 times with random actions: not for hardware that must not move at
random. It is looked at in a process of its own, which may hang (a step or reset of more than 10
seconds) or die. Every line is ok, a note (something works less well) or a problem (exit status 1),
with what to do about it."""

PACKAGES = ("jax", "jaxlib", "numpy", "equinox", "optax", "mujoco", "dm-control", "gymnasium")
EXTRAS = {
    "tensorboard": ("tensorboardX",),
    "video": ("imageio_ffmpeg", "pygame"),
}
"""Modules by the extra of ftfl that brings them."""
PYTHONS = ((3, 11), (3, 13))
TASK_SECONDS = 10.0
_GIB = 2**30
_MISSING = "not installed"
_JAX_SECONDS = 120
_JAX = """
import json, jax
value = float(jax.jit(lambda x: (x * x).sum())(jax.numpy.arange(4.0)))
print(json.dumps({"devices": [str(d) for d in jax.devices()], "value": value}))
"""


@dataclass(frozen=True)
class Row:
    """One thing that was looked at."""

    name: str
    status: Literal["ok", "note", "problem"]
    what: str
    fix: str = ""


def run(argv: Sequence[str]) -> int:
    """Print every row as soon as it is known; 1 if there is a problem."""
    parser = Parser("doctor", DESCRIPTION)
    parser.add_argument("task", nargs="?", metavar="TASK", help="also check this environment")
    parser.add_argument(
        "--out", default="runs", metavar="DIR",
        help="folder that runs will go to, whose disk is looked at [runs]",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    args = parser.parse(argv)
    rows = []
    for row in _rows(args.task, Path(args.out)):
        rows.append(row)
        if not args.json:
            print(_line(row), flush=True)
    problems = sum(row.status == "problem" for row in rows)
    notes = sum(row.status == "note" for row in rows)
    if args.json:
        print_json({"problems": problems, "notes": notes, "rows": [asdict(row) for row in rows]})
    else:
        print(f"\n{_count(problems, 'problem')}, {_count(notes, 'note')}.")
    return 1 if problems else 0


def _rows(task: str | None, out: Path) -> Iterator[Row]:
    yield python()
    found = list(packages())
    yield from found
    if any(row.what == _MISSING for row in found):
        yield Row("the rest", "note", "not looked at while a package is missing")
        return
    jax = jax_works()
    yield jax
    yield from machine()
    yield disk(out)
    yield rendering()
    yield from extras()
    if task is not None and jax.status == "problem":
        yield Row("environment", "note", f"{task} was not looked at: JAX does not run")
    elif task is not None:
        yield from environment(task)


def _line(row: Row) -> str:
    text = f"{row.name}: {row.what}" + (f" → {row.fix}" if row.fix else "")
    return wrapped(text, hanging=2, lead=f"{row.status:<9}")


def _count(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


def python() -> Row:
    """Python's version."""
    low, high = PYTHONS
    if low <= sys.version_info[:2] <= high:
        return Row("python", "ok", platform.python_version())
    allowed = f"{low[0]}.{low[1]} to {high[0]}.{high[1]}"
    return Row(
        "python", "problem", f"{platform.python_version()}, but ftfl runs on {allowed}",
        f"make a fresh environment with Python {allowed}",
    )  # fmt: skip


def version(package: str) -> str | None:
    """The installed version, read without importing."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def packages() -> Iterator[Row]:
    """Versions against what ftfl itself asks for."""
    wanted = requirements()
    for package in PACKAGES:
        have, limits = version(package), wanted.get(package, "")
        fix = f'pip install "{package}{limits}" in a fresh environment'
        if have is None:
            yield Row(package, "problem", _MISSING, fix)
        elif satisfies(have, limits):
            yield Row(package, "ok", have)
        elif package == "mujoco" and satisfies(have, ">=4"):
            control = version("dm-control")
            what = f"{have}: dm-control {control} fails on every task with mujoco 4"
            yield Row(package, "problem", what, fix)
        else:
            yield Row(package, "problem", f"{have}, but ftfl needs {package}{limits}", fix)


def requirements() -> dict[str, str]:
    """Version limits by package, as ftfl's own metadata states them, such as ``>=3.17,<4``."""
    found = {}
    for text in metadata.requires("ftfl") or ():
        match = re.fullmatch(r"([\w.-]+)(\[[^]]*\])?\s*([^;]*?)\s*(;.*)?", text)
        if match and not match[4]:
            found[match[1].lower()] = ",".join(sorted(match[3].split(","), reverse=True))
    return found


def satisfies(have: str, limits: str) -> bool:
    """Whether a version meets ``>=`` and ``<`` limits, by its release numbers."""
    for limit in filter(None, limits.split(",")):
        match = re.fullmatch(r"\s*(>=|<)\s*([\d.]+)", limit)
        if match is None:
            continue
        a, b = _release(have), _release(match[2])
        size = max(len(a), len(b))
        a, b = a + (0,) * (size - len(a)), b + (0,) * (size - len(b))
        if not (a >= b if match[1] == ">=" else a < b):
            return False
    return True


def _release(text: str) -> tuple[int, ...]:
    match = re.match(r"\d+(\.\d+)*", text)
    return tuple(int(part) for part in match[0].split(".")) if match else ()


def jax_works() -> Row:
    """Devices, and whether a tiny function compiles and runs (in a child: it may abort)."""
    fix = "read the message; an unknown flag in XLA_FLAGS or a broken install is most likely"
    try:
        child = subprocess.run(
            [sys.executable, "-c", _JAX], capture_output=True, text=True, timeout=_JAX_SECONDS
        )
    except subprocess.TimeoutExpired:
        return Row("jax runs", "problem", f"no answer within {_JAX_SECONDS} seconds", fix)
    lines = child.stdout.splitlines()
    if child.returncode == 0 and lines:
        found = json.loads(lines[-1])
        devices = ", ".join(found["devices"])
        if found["value"] == 14.0:
            return Row("jax runs", "ok", f"compiles on {devices}")
        return Row("jax runs", "problem", f"0+1+4+9 is {found['value']} on {devices}", fix)
    said = child.stderr.strip().splitlines() or [f"exit code {child.returncode}"]
    # XLA's own log lines begin with time, thread and source line.
    reason = re.sub(r"^[FEW]\d{4} \S+ +\d+ [^]]*\] ", "", said[-1])
    return Row("jax runs", "problem", reason, fix)


def machine() -> Iterator[Row]:
    """Cores and memory; training runs one process per core."""
    from ftfl.training.cores import available

    cores = len(available())
    yield Row("cores", "ok", f"{cores} usable: as many seeds train side by side")
    free = _free_memory()
    if free is None:
        yield Row("memory", "ok", "this system does not say how much is free")
    elif free < cores * _GIB:
        yield Row(
            "memory", "note", f"{free / _GIB:.1f} GiB free, less than 1 GiB per core",
            "train fewer seeds at once: --jobs",
        )  # fmt: skip
    else:
        yield Row("memory", "ok", f"{free / _GIB:.1f} GiB free")


def _free_memory() -> int | None:
    with contextlib.suppress(OSError), open("/proc/meminfo", encoding="ascii") as file:
        for line in file:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return None


def disk(out: Path) -> Row:
    """Room and permission where runs go."""
    place = out.absolute()
    while not place.exists():
        place = place.parent
    fix = "choose another folder: ftfl train … --out"
    if not place.is_dir() or not os.access(place, os.W_OK):
        return Row("disk", "problem", f"runs cannot be written to {out}", fix)
    free = shutil.disk_usage(place).free / 1e9
    what = f"{free:.1f} GB free where runs go ({out})"
    if free < 0.5:
        return Row("disk", "problem", what, fix)
    if free < 5:
        return Row("disk", "note", f"{what}; checkpoints of long runs take gigabytes", fix)
    return Row("disk", "ok", what)


def rendering() -> Row:
    """Whether MuJoCo can draw videos; training never needs it."""
    from ftfl.envs import rendering as gl

    failures = []
    for backend in gl.candidates():
        reason = gl.failure(backend)
        if not reason:
            return Row("rendering", "ok", f"MuJoCo draws with MUJOCO_GL={backend or 'its own'}")
        failures.append(f"{backend or 'default'}: {reason}")
    what = f"no videos of MuJoCo tasks here, training works ({'; '.join(failures)})"
    return Row("rendering", "note", what, gl.ADVICE)


def extras() -> Iterator[Row]:
    """Optional packages, and the extra that brings them."""
    for extra, modules in EXTRAS.items():
        missing = [name for name in modules if importlib.util.find_spec(name) is None]
        if missing:
            what = f"{', '.join(missing)} not installed"
            yield Row(extra, "note", what, f'pip install "ftfl[{extra}]"')
        else:
            yield Row(extra, "ok", f"{', '.join(modules)} installed")


def environment(task: str) -> Iterator[Row]:
    """What `ftfl.envs.check` finds."""
    try:
        from ftfl.envs.check import check_env
    except FtflError as error:
        yield Row("environment", "problem", str(error))
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the rows say it better
        checks = check_env(task, TASK_SECONDS)
    for check in checks:
        yield Row(check.name, check.status, check.detail, check.fix)
