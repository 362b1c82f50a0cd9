"""Whether a run may go on, with which configuration, and what is written down about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftfl.config import Config, difference, from_dict, resumed, to_dict
from ftfl.errors import FtflError
from ftfl.store.files import replace_json
from ftfl.store.listing import list_checkpoints, step_of
from ftfl.store.provenance import collect, compare
from ftfl.store.rundir import RunDir
from ftfl.training.workers import known_status


@dataclass(frozen=True)
class Plan:
    """How one run would go on."""

    run_dir: RunDir
    config: Config
    env_steps: int
    """Step of its newest checkpoint; it is verified when it is loaded."""
    changes: dict[str, tuple[Any, Any]]
    notes: tuple[str, ...]
    """What has changed around the run since: bits are not promised then."""
    provenance: dict[str, Any]

    finished: bool
    """Nothing is left to do."""


def find_runs(path: Path) -> list[RunDir]:
    """The run at ``path``, or all runs one level below it (…/ALGO holds seed_0, seed_1, …).

    Raises:
        FtflError: there is none.
    """
    below = sorted(path.glob("*/config.json")) if path.is_dir() else []
    if below and not (path / "config.json").is_file():
        return [RunDir.open(config.parent) for config in below]
    return [RunDir.open(path)]


def plan(
    run_dir: RunDir,
    changes: Mapping[str, Any],
    argv: Sequence[str],
    allow_version_change: bool = False,
) -> Plan:
    """Check everything that can be checked before a process is started.

    Raises:
        FtflError: another process trains the run, a frozen field would change, or a package has
            changed so that it would be another experiment.
    """
    run_dir.require_free()
    config = from_dict(run_dir.config())
    env_steps = max(map(step_of, list_checkpoints(run_dir.checkpoints_path)), default=0)
    after = resumed(config, changes, env_steps)
    now = collect(argv)
    verdict = compare(_newest_provenance(run_dir), now)
    done = known_status(run_dir).get("state") == "done" and env_steps >= after.steps
    if done:
        return Plan(run_dir, after, env_steps, {}, (), now, finished=True)
    if verdict.refused and not allow_version_change:
        raise FtflError(
            f"{run_dir.path} was trained with other versions ({', '.join(verdict.refused)}), which"
            " change trajectories: install the old ones (provenance.json names them), or accept the"
            " break with --allow-version-change."
        )
    notes = (*verdict.refused, *verdict.notes)
    changes = difference(config, after)
    return Plan(run_dir, after, env_steps, changes, notes, now, finished=False)


def begin(plan: Plan) -> None:
    """Write the configuration and the history entry that make the plan true."""
    entry = {
        "event": "resumed",
        "env_steps": plan.env_steps,
        "changes": {name: list(pair) for name, pair in plan.changes.items()},
        "notes": list(plan.notes),
        "provenance": plan.provenance,
    }
    with plan.run_dir.lock():
        plan.run_dir.append_history(entry)  # first: a change is never made unrecorded
        if plan.changes:
            replace_json(plan.run_dir.config_path, to_dict(plan.config), durable=True)


def _newest_provenance(run_dir: RunDir) -> Mapping[str, Any]:
    known = [entry["provenance"] for entry in run_dir.read_history() if "provenance" in entry]
    return known[-1] if known else run_dir.provenance()
