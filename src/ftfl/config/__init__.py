"""What a run is (``fields``, ``rollouts``), as data (``convert``), what may change (``resume``)."""

from ftfl.config.convert import content_hash, difference, flatten, from_dict, replace, to_dict
from ftfl.config.fields import (
    Config,
    DynamicsConfig,
    Precision,
    SacConfig,
    Scale,
    Target,
    TaskConfig,
)
from ftfl.config.resume import EXTENDABLE, FREE, resume_class, resumed
from ftfl.config.rollouts import RolloutConfig, ScreenConfig

__all__ = [
    "EXTENDABLE",
    "FREE",
    "Config",
    "DynamicsConfig",
    "Precision",
    "RolloutConfig",
    "SacConfig",
    "Scale",
    "ScreenConfig",
    "Target",
    "TaskConfig",
    "content_hash",
    "difference",
    "flatten",
    "from_dict",
    "replace",
    "resume_class",
    "resumed",
    "to_dict",
]
