"""Dyna-style model-based RL that says when, where and why synthetic data helps or hurts.

>>> import ftfl
>>> run = ftfl.train("gym/Pendulum-v1", "ftfl", profile="probe", steps=2_500, out="runs/first")
>>> run.policy(obs)                                     # action in [−1, 1]
>>> steps, returns = run.series("eval/return_mean_reward")

Names are loaded on first use, so that ``import ftfl`` is quick and ``ftfl list`` needs no JAX.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from ftfl.envs import make_env as make_env
    from ftfl.errors import FtflError as FtflError
    from ftfl.presets import PRESETS as PRESETS
    from ftfl.presets import PROFILES as PROFILES
    from ftfl.presets import build as build
    from ftfl.training.api import Run as Run
    from ftfl.training.api import evaluate as evaluate
    from ftfl.training.api import fork as fork
    from ftfl.training.api import load as load
    from ftfl.training.api import resume as resume
    from ftfl.training.api import train as train

_HOMES = {
    "FtflError": "ftfl.errors",
    "PRESETS": "ftfl.presets",
    "PROFILES": "ftfl.presets",
    "Run": "ftfl.training.api",
    "build": "ftfl.presets",
    "evaluate": "ftfl.training.api",
    "fork": "ftfl.training.api",
    "load": "ftfl.training.api",
    "make_env": "ftfl.envs",
    "resume": "ftfl.training.api",
    "train": "ftfl.training.api",
}

__all__ = sorted(_HOMES)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'ftfl' has no attribute {name!r}; it has {__all__}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
