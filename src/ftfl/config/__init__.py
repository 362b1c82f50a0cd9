"""What a run is (``fields``, ``rollouts``), and what can be done with it as data (``convert``)."""

from ftfl.config.convert import content_hash, difference, flatten, from_dict, replace, to_dict
from ftfl.config.fields import (
    Config,
    DynamicsConfig,
    SacConfig,
    Scale,
    Target,
    TaskConfig,
)
from ftfl.config.rollouts import RolloutConfig, ScreenConfig

__all__ = [
    "Config",
    "DynamicsConfig",
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
    "to_dict",
]
