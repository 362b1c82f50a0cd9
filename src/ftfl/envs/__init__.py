"""Environments: one way in for DeepMind Control, Gymnasium and your own."""

from ftfl.envs.faults import EnvFault
from ftfl.envs.guard import Guarded
from ftfl.envs.make import list_tasks, make_env
from ftfl.envs.spec import Environment, EnvSpec, require_termination

__all__ = [
    "EnvFault",
    "EnvSpec",
    "Environment",
    "Guarded",
    "list_tasks",
    "make_env",
    "require_termination",
]
