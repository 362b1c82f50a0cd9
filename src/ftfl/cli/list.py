"""``ftfl list tasks|algos|metrics``: what there is to choose from, and what numbers mean."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ftfl import presets
from ftfl.cli.options import Parser
from ftfl.cli.text import columns, print_json, wrapped
from ftfl.config import Config, flatten
from ftfl.errors import FtflError, unknown
from ftfl.store.metrics import METRICS

DESCRIPTION = """Say what there is: built-in tasks by suite, algorithms and compute profiles with
what they change, or every metric with its unit and how to read it."""

_DEFAULT = "the defaults"


def run(argv: Sequence[str]) -> int:
    """Print one of the lists."""
    parser = Parser("list", DESCRIPTION)
    parser.add_argument("what", nargs="?", metavar="|".join(_LISTS), help="which list")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    args = parser.parse(argv)
    if args.what is None:
        raise FtflError(f"list needs one of {', '.join(_LISTS)}.")
    if args.what not in _LISTS:
        raise unknown("list", args.what, _LISTS)
    collect, show = _LISTS[args.what]
    content = collect()
    print_json(content) if args.json else show(content)
    return 0


def _tasks() -> dict[str, Any]:
    from ftfl.envs.make import list_tasks

    return list_tasks()


def _show_tasks(suites: Mapping[str, Sequence[str]]) -> None:
    from ftfl.envs.probes import DIALS

    titles = {"dmc": "DeepMind Control", "gym": "Gymnasium"}
    for suite, title in titles.items():
        print(f"{title} ({len(suites[suite])} tasks)")
        print(columns(suites[suite]) + "\n")
    print(f"Probes (one small task, {len(DIALS)} dials no agent sees)")
    print("  probe/rest\n" + wrapped("the task itself: push a point mass to the origin", 4))
    for name, dial in DIALS.items():
        levels = ", ".join(f"{level:g}" for level in dial.levels)
        text = f"{dial.summary}; LEVEL: {dial.level} ({levels})"
        print(f"  probe/{name}@LEVEL\n" + wrapped(text, 4))
    print()
    print(
        wrapped(
            "Any other Gymnasium id works with sac as gym/ID. Your own environment is"
            " package.module:make_env; try it with `ftfl doctor package.module:make_env`."
        )
    )


def _algos() -> dict[str, Any]:
    algos = {
        name: {
            "summary": preset.summary,
            "source": preset.source,
            "changes": dict(preset.changes),
            "own_compute": preset.own_compute,
            "per_task": {task: dict(changes) for task, changes in preset.per_task.items()},
        }
        for name, preset in presets.PRESETS.items()
    }
    profiles = {
        name: {"summary": profile.summary, "changes": dict(profile.changes)}
        for name, profile in presets.PROFILES.items()
    }
    return {"algos": algos, "profiles": profiles}


def _show_algos(content: Mapping[str, Any]) -> None:
    print("Algorithms (--algo)")
    for name, algo in content["algos"].items():
        print(f"\n  {name}")
        print(wrapped(algo["summary"], 6, 2))
        print(wrapped(f"changes: {_changes(algo['changes'])}", 6, 2))
        if algo["per_task"]:
            print(wrapped(f"and more on: {', '.join(algo['per_task'])}", 6, 2))
        if algo["own_compute"]:
            print(wrapped("brings the publication's own compute; the profile is ignored", 6, 2))
        print(wrapped(f"source: {algo['source']}", 6, 2))
    print("\nProfiles (--profile): compute, not the algorithm")
    for name, profile in content["profiles"].items():
        print(f"\n  {name}")
        print(wrapped(profile["summary"], 6, 2))
        print(wrapped(f"changes: {_changes(profile['changes'])}", 6, 2))
    print()
    print(
        wrapped(
            "Changes are against the defaults of the configuration (MBPO at the papers' compute)."
            " Each is an option of `ftfl train`, such as --dynamics.target direct."
        )
    )


def _changes(changes: Mapping[str, Any]) -> str:
    defaults = flatten(Config())
    parts = []
    for name, value in changes.items():
        if value is None and name not in defaults:
            parts.append(f"no {name}")
        else:
            parts.append(f"{name}={_value(value)}")
    return ", ".join(parts) or f"nothing, {_DEFAULT}"


def _value(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _metrics() -> dict[str, Any]:
    return {
        name: {"unit": metric.unit, "meaning": metric.meaning} for name, metric in METRICS.items()
    }


def _show_metrics(metrics: Mapping[str, Any]) -> None:
    area = ""
    for name, metric in metrics.items():
        if name.partition("/")[0] != area:
            print("" if area else "Metrics of metrics.jsonl, name [unit]: how to read it\n")
            area = name.partition("/")[0]
        print(wrapped(f"{name} [{metric['unit']}]: {metric['meaning']}", 0, 4))
    print()
    print(
        wrapped(
            "Unit reward is the task's own; scaled is what the agent sees; raw and unit are a"
            " model's targets in physical units and in standard deviations."
        )
    )


_LISTS: dict[str, tuple[Callable[[], dict[str, Any]], Callable[[Any], None]]] = {
    "tasks": (_tasks, _show_tasks),
    "algos": (_algos, _show_algos),
    "metrics": (_metrics, _show_metrics),
}
