"""What may change when a run goes on: most of a configuration is frozen once it has begun."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from ftfl.config.convert import difference, flatten, replace
from ftfl.config.fields import Config
from ftfl.errors import FtflError

Change = Literal["frozen", "extendable", "free"]

EXTENDABLE = frozenset({"steps"})
"""Fields a resumed run may raise: what was done stays what it was."""
FREE = frozenset(
    {
        "eval_every", "eval_episodes", "log_every", "checkpoint_every",
        "faults_allowed", "on_divergence", "on_full_disk", "task.step_limit_seconds",
    }
)  # fmt: skip
"""Fields that change nothing that is learned."""


def resume_class(name: str) -> Change:
    """How a field may change at resume; a field nobody thought of is frozen, which is safe."""
    if name in EXTENDABLE:
        return "extendable"
    return "free" if name in FREE else "frozen"


def resumed(config: Config, changes: Mapping[str, Any], env_steps: int) -> Config:
    """``config`` with what a resumed run may change at ``env_steps``.

    Raises:
        FtflError: a frozen field would change (the difference is shown), or ``steps`` would end
            before what was already done.
    """
    after = replace(config, changes)
    changed = difference(config, after)
    frozen = {k: v for k, v in changed.items() if resume_class(k) == "frozen"}
    if frozen:
        shown = ", ".join(f"{k}: {old} → {new}" for k, (old, new) in frozen.items())
        flags = " ".join(f"--set {k}={new}" for k, (_, new) in frozen.items())
        raise FtflError(
            f"a run keeps its configuration when it is resumed, and this would change {shown}; to"
            f" start a new run from its checkpoint use `ftfl fork RUN_DIR {flags}`."
        )
    if after.steps < env_steps:
        raise FtflError(
            f"steps was given as {after.steps}, but the run has already done {env_steps}: give more"
            " to go on."
        )
    return after


def classes() -> dict[str, Change]:
    """Every field of a model-based configuration with its class, for documentation."""
    return {name: resume_class(name) for name in flatten(Config())}
