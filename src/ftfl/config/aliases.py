"""Shorter names on the command line for the fields that are set most."""

from __future__ import annotations

ALIASES = {
    "task.action_repeat": "--action-repeat",
    "task.reward_unit": "--reward-unit",
    "dynamics.target": "--target",
    "dynamics.scale": "--scale",
    "rollouts.screen": "--screen",
}
"""By field; every field also has the long name, ``--`` and its path with hyphens."""


def option_of(field: str) -> str:
    """How advice names a field: by its alias, where it has one."""
    return ALIASES.get(field, "--" + field.replace("_", "-"))
