"""What a training process is started with: one thread, no display, a cache of compiled programs."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path


def child_environment(base: Mapping[str, str], accelerator: bool = False) -> dict[str, str]:
    """Environment of a training process: one thread, no display, the user's flags kept."""
    env = dict(base)
    if not accelerator:
        env.setdefault("JAX_PLATFORMS", "cpu")
    env.setdefault("MUJOCO_GL", "disabled")
    flags = env.get("XLA_FLAGS", "")
    if "xla_cpu_multi_thread_eigen" not in flags:
        env["XLA_FLAGS"] = f"{flags} --xla_cpu_multi_thread_eigen=false".strip()
    # Compiling takes longer than a short run. JAX keys its cache by program, flags and version, but
    # not by the CPU that machine code was made for, so the folder carries that.
    env.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache_folder(env)))
    env.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        env.setdefault(name, "1")
    # A custom environment is found where the command was given.
    paths = [os.getcwd(), *filter(None, [env.get("PYTHONPATH")])]
    env["PYTHONPATH"] = os.pathsep.join(paths)
    return env


def cache_folder(env: Mapping[str, str]) -> Path:
    """Where compiled programs are kept: per jaxlib version and kind of CPU."""
    home = env.get("XDG_CACHE_HOME") or str(Path(env.get("HOME", "."), ".cache"))
    cpu = platform.processor()
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as file:
        facts = {line for line in file if line.startswith(("model name", "flags", "Features"))}
        cpu = "".join(sorted(facts))
    kind = hashlib.sha256(f"{platform.machine()} {cpu}".encode()).hexdigest()[:12]
    return Path(home, "ftfl", "xla", f"{metadata.version('jaxlib')}-{kind}")
