"""What a run is (``fields``), as data (``convert``), and what may change later (``resume``)."""

from ftfl.config.convert import content_hash, difference, flatten, from_dict, replace, to_dict
from ftfl.config.fields import (
    Config,
    DynamicsConfig,
    RolloutConfig,
    SacConfig,
    Scale,
    Target,
    TaskConfig,
)
from ftfl.config.resume import EXTENDABLE, FREE, resume_class, resumed

__all__ = [
    "EXTENDABLE",
    "FREE",
    "Config",
    "DynamicsConfig",
    "RolloutConfig",
    "SacConfig",
    "Scale",
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
