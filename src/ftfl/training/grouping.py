"""Which seeds one process trains together, and whether on an accelerator (docs/seeds.md)."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata

from ftfl.config import Config
from ftfl.errors import FtflError
from ftfl.store.listing import list_checkpoints, step_of
from ftfl.store.rundir import RunDir

_TINY_WIDTH = 64
"""Networks up to this wide cost less in arithmetic than in overhead, which seeds can share."""
_START_SECONDS = 120
_QUESTION = "import jax; print(0 if jax.default_backend() == 'cpu' else jax.local_device_count())"


def arrange(
    run_dirs: Sequence[RunDir],
    configs: Sequence[Config],
    together: bool | None,
    cores: int,
    accelerator: bool | None = None,
) -> tuple[list[list[int]], bool]:
    """Groups of runs by their numbers, in order, and whether they are for an accelerator.

    Together are seeds of one configuration whose newest checkpoints are of the same step; on CPU
    they are dealt out to the cores.

    Args:
        run_dirs: of all runs.
        configs: of all runs.
        together: as asked; None: on accelerators, and where networks are tiny.
        cores: processes that may run side by side on CPU.
        accelerator: whether JAX has one; None: it is asked, unless all are to be apart.

    Raises:
        FtflError: together was asked for and cannot be, or the accelerator does not start.
    """
    if accelerator is None:
        accelerator = together is not False and has_accelerator(os.environ)
    groups: list[list[int]] = []
    alike: dict[tuple[Config, int], list[int]] = {}
    for number, (run_dir, config) in enumerate(zip(run_dirs, configs, strict=True)):
        if together and config.update_between_episodes:
            raise FtflError(
                "--together was given, but with update_between_episodes each seed learns when its"
                " own episode ends: train them with --apart."
            )
        wanted = (accelerator or tiny(config)) if together is None else together
        if wanted and not config.update_between_episodes:
            step = max(map(step_of, list_checkpoints(run_dir.checkpoints_path)), default=0)
            alike.setdefault((dataclasses.replace(config, seed=0), step), []).append(number)
        else:
            groups.append([number])
    for numbers in alike.values():
        count = 1 if accelerator else min(cores, len(numbers))
        groups += [numbers[first::count] for first in range(count)]
    return sorted(groups), accelerator


def tiny(config: Config) -> bool:
    """Whether one core trains several seeds faster together than one after the other."""
    model = () if config.dynamics is None else config.dynamics.hidden
    return max((*config.sac.hidden, *model)) <= _TINY_WIDTH


def has_accelerator(env: Mapping[str, str]) -> bool:
    """Whether JAX's default device is not the CPU; a child is asked, so that none is held here.

    Raises:
        FtflError: there should be one, and it does not start.
    """
    if env.get("JAX_PLATFORMS", "") == "cpu":
        return False
    plugins = metadata.entry_points(group="jax_plugins")
    if not plugins and importlib.util.find_spec("libtpu") is None:
        return False  # only JAX for CPU is installed: no need to spend its start
    advice = "repair it, or train on CPU with JAX_PLATFORMS=cpu in the environment."
    try:
        asked = subprocess.run(
            [sys.executable, "-c", _QUESTION], env=dict(env), stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=_START_SECONDS, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise FtflError(
            f"JAX's accelerator did not start within {_START_SECONDS} s: {advice}"
        ) from None
    if asked.returncode:
        last = (asked.stderr.strip().splitlines() or ["no message"])[-1]
        raise FtflError(f"JAX's accelerator did not start ({last}): {advice}")
    return asked.stdout.strip() != "0"
