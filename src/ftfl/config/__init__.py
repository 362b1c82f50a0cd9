"""What a run is (``fields``), and what can be done with it as data (``convert``)."""

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

__all__ = [
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
    "to_dict",
]
