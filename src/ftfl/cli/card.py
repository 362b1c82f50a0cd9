"""The card of an exported policy: what it is, as data and as a page."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ftfl.errors import FtflError
from ftfl.store.files import plain
from ftfl.store.metrics_file import read_metrics
from ftfl.store.rundir import RunDir
from ftfl.training.policy import LoadedPolicy

_EVALUATION = {
    "eval/return_mean_reward": "return_mean",
    "eval/return_std_reward": "return_std_over_episodes",
    "eval/return_min_reward": "return_min",
    "eval/return_max_reward": "return_max",
    "eval/length_mean_steps": "length_mean_steps",
    "eval/episodes_count": "episodes",
}

LIMITS = (
    "It was trained and evaluated in the task named above and nowhere else: another simulator, "
    "another robot or other parameters are outside of what is known.",
    "One seed of one run. Another seed can score very differently.",
    "Deterministic and without memory: it sees one observation and knows nothing of delays.",
    "Actions stay within their bounds, but nothing limits how fast they change; on hardware, add "
    "limits and an emergency stop of your own.",
    "Observations must come in the order, units and range of training; a value that is not "
    "finite or a wrong shape is refused, an unusual value is not.",
)


def card(run_dir: RunDir, policy: LoadedPolicy, version: int) -> dict[str, Any]:
    """Everything known about an exported policy, as plain JSON."""
    config, spec = policy.config, policy.spec
    source = _provenance(run_dir)
    seconds = spec.seconds_per_step
    facts = {
        "format": version,
        "task": config.task.name,
        "algo": config.algo,
        "profile": config.profile,
        "seed": config.seed,
        "env_steps": policy.step,
        "action_repeat": config.task.action_repeat,
        "seconds_per_action": seconds,
        "actions_per_second": 1.0 / seconds if seconds else None,
        "observation": [{"index": i, "name": name} for i, name in enumerate(spec.obs_names)],
        "action": {
            "low": list(spec.action_low) or [-1.0] * spec.act_dim,
            "high": list(spec.action_high) or [1.0] * spec.act_dim,
        },
        "evaluation": _evaluation(run_dir, policy),
        "hidden": list(config.sac.hidden),
        "versions": {
            "ftfl": source.get("ftfl"),
            "python": source.get("python"),
            **(source.get("packages") or {}),
        },
        "trained": {k: source.get(k) for k in ("started", "command", "git")},
        "limits": list(LIMITS),
    }
    return plain(facts)


def _provenance(run_dir: RunDir) -> dict[str, Any]:
    try:
        return run_dir.provenance()
    except FtflError:
        return {}


def _evaluation(run_dir: RunDir, policy: LoadedPolicy) -> dict[str, Any] | None:
    """The run's own evaluation at the checkpoint or the last one before it, if there is one."""
    found: Mapping[str, Any] = {}
    if run_dir.metrics_path.is_file():
        for record in read_metrics(run_dir.metrics_path):
            if "eval/return_mean_reward" in record and record["env_steps"] <= policy.step:
                found = record
    if not found:
        return None
    numbers = {ours: found.get(theirs) for theirs, ours in _EVALUATION.items()}
    return {"env_steps": found["env_steps"], "policy": "deterministic", **numbers}


def readme(facts: Mapping[str, Any]) -> str:
    """The card as a Markdown page."""
    low, high = facts["action"]["low"], facts["action"]["high"]
    names = [entry["name"] for entry in facts["observation"]]
    lines = [
        f"# {facts['algo']} on {_code(facts['task'])}",
        "",
        "A trained policy that needs Python and NumPy, nothing else.",
        "",
        "```python",
        "from policy import Policy",
        "",
        "policy = Policy()",
        f"action = policy(obs)       # obs: {len(names)} numbers; action: {len(low)}, in the"
        " actuators' bounds",
        "action = policy.unit(obs)  # the same action in [-1, 1]",
        "```",
        "",
        "## Training",
        "",
        f"- {facts['env_steps']:,} environment steps, seed {facts['seed']}, profile"
        f" {facts['profile']}, action repeat {facts['action_repeat']}",
        f"- {_period(facts)}",
        f"- {_score(facts['evaluation'])}",
        "- versions: " + ", ".join(f"{k} {v}" for k, v in facts["versions"].items() if v),
    ]
    if facts["trained"].get("command"):
        lines.append(f"- command: {_code(facts['trained']['command'])}")
    lines += ["", "## Actions", "", "| index | low | high |", "|---|---|---|"]
    lines += [f"| {i} | {a:g} | {b:g} |" for i, (a, b) in enumerate(zip(low, high, strict=True))]
    lines += ["", "## Observations", "", "In the environment's own units, as float32:", ""]
    lines += ["| index | name |", "|---|---|"]
    lines += [f"| {i} | {_code(name)} |" for i, name in enumerate(names)]
    lines += ["", "## Limits", "", *(f"- {limit}" for limit in facts["limits"]), ""]
    return "\n".join(lines)


def _period(facts: Mapping[str, Any]) -> str:
    seconds = facts["seconds_per_action"]
    if not seconds:
        return "time between actions: not stated by the task"
    return f"one action every {seconds:g} seconds ({1.0 / seconds:g} per second)"


def _score(evaluation: Mapping[str, Any] | None) -> str:
    if evaluation is None or evaluation["return_mean"] is None:
        return "never evaluated"
    mean, std = evaluation["return_mean"], evaluation["return_std_over_episodes"]
    spread = "" if std is None or math.isnan(std) else f" ± {std:.4g} (standard deviation)"
    return (
        f"return {mean:.4g}{spread} over {evaluation['episodes']:g} deterministic episodes at step"
        f" {evaluation['env_steps']:,}, in the task's own unit of reward"
    )


def _code(text: str) -> str:
    """As Markdown code; a backtick or line break in it cannot end it."""
    return "`" + " ".join(str(text).split()).replace("`", "'").replace("|", "\\|") + "`"
