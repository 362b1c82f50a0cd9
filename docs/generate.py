"""Writes the pages that say what the code says: presets, metrics, configuration.

``python docs/generate.py`` (``make docs``) rewrites them; a test compares them with the code.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ftfl import config as cfg
from ftfl.config import Config, TaskConfig
from ftfl.presets import PRESETS, PROFILES, Changes, build, lineage
from ftfl.store.metrics import METRICS

DOCS = Path(__file__).resolve().parent
MARK = "<!-- Written by docs/generate.py from {source}; change that and run `make docs`. -->"

AREAS = {
    "train": "Acting in the real environment while learning",
    "env": "Faults of the environment",
    "eval": "Evaluation",
    "agent": "The SAC agent",
    "model": "The dynamics model",
    "rollout": "Synthetic data",
    "termination": "The termination function against the environment",
    "sentinel": "What went wrong: see [sentinels](sentinels.md)",
    "time": "Wall-clock time",
}
UNITS = (
    "Names are `area/quantity_unit`. Unit `reward` is what the environment pays; `scaled` is what"
    " the agent sees, after the reward scale and with entropy; `raw` and `unit` are a model's"
    " target in physical units and in standard deviations of that target."
)


def show(value: Any) -> str:
    """A value as a reader of the configuration would write it."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, tuple | list):
        return ", ".join(show(v) for v in value)
    return str(value)


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table."""
    head = list(head)
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines
    )


def page(title: str, source: str, *parts: str) -> str:
    """A whole page, its mark first."""
    return "\n\n".join([MARK.format(source=source), f"# {title}", *parts]) + "\n"


def presets() -> str:
    """What each preset and profile changes, and where that comes from."""
    default = Config(task=TaskConfig(name="any task"))
    cells = []
    for name, preset in PRESETS.items():
        config = cfg.replace(default, preset.changes)
        model, rollouts = config.dynamics, config.rollouts
        if model is None or rollouts is None:
            cells.append([f"`{name}`", "–", "–", "–", "–"])
        else:
            _, _, before, after = rollouts.length
            steps = show(before) if before == after else f"{before} to {after}"
            if any("rollouts.length" in changes for changes in preset.per_task.values()):
                steps += ", by task"
            cells.append([f"`{name}`", model.target, model.scale, rollouts.screen, steps])
    parts = [
        "An algorithm is data: named changes to the defaults of [the configuration](config.md)."
        " Applied in this order: profile, preset, the preset's values for the task, your own"
        " options. Nothing else in the code knows an algorithm's name.",
        "## Target cells",
        table(["preset", "target", "scale", "screen", "rollout length"], cells),
        "## Presets",
    ]
    for name, preset in PRESETS.items():
        parts += [f"### `{name}`", preset.summary, f"Source: {preset.source}."]
        if preset.own_compute:
            parts.append(
                "Stands for a publication: brings its own compute and ignores the profile; a run"
                " that overrides the compute is labelled `own, scaled`."
            )
        parts.append(changed(default, preset.changes))
        if preset.per_task:
            parts.append(
                table(
                    ["task", "changes"],
                    [
                        [f"`{task}`", "; ".join(f"`{k}` = {show(v)}" for k, v in changes.items())]
                        for task, changes in preset.per_task.items()
                    ],
                )
            )
    parts += ["## Profiles", "A profile sets compute, not the algorithm."]
    for name, profile in PROFILES.items():
        parts += [f"### `{name}`", profile.summary, changed(default, profile.changes)]
    return page("Presets and profiles", "ftfl.presets", *parts)


def changed(default: Config, changes: Changes) -> str:
    """The table of what these changes set, with the default beside it."""
    if not changes:
        return "Changes nothing: these are the defaults."
    old = cfg.flatten(default)
    groups = {name.split(".")[0] for name in old if "." in name}
    return table(
        ["field", "default", "here"],
        [
            [f"`{name}`", "a group" if name in groups else show(old[name]), show(value)]
            for name, value in changes.items()
        ],
    )


def metrics() -> str:
    """Every registered metric, by area."""
    parts = [UNITS]
    for area, title in AREAS.items():
        rows = [
            [f"`{m.name}`", m.unit, m.meaning]
            for m in METRICS.values()
            if m.name.startswith(area + "/")
        ]
        parts += [f"## {title}", table(["metric", "unit", "how to read it"], rows)]
    missing = {name.split("/")[0] for name in METRICS} - AREAS.keys()
    if missing:
        raise SystemExit(f"docs/generate.py: give these areas a title in AREAS: {missing}")
    return page("Metrics", "ftfl.store.metrics", *parts)


def documented(cls: type) -> Iterator[tuple[str, str, str, str]]:
    """Name, type, default and docstring of each field of a dataclass, from its source."""
    body = ast.parse(inspect.getsource(cls)).body[0]
    if not isinstance(body, ast.ClassDef):
        raise TypeError(cls)
    following: Mapping[ast.stmt, ast.stmt] = dict(zip(body.body, body.body[1:], strict=False))
    defaults = cls()
    for node in body.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            after = following.get(node)
            text = ""
            if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
                text = " ".join(str(after.value.value).split())
            name = node.target.id
            yield name, ast.unparse(node.annotation), show(getattr(defaults, name)), text


CONTROL = "mbpo-h5"
COMPONENTS: dict[str, tuple[str, ...]] = {
    "target cell": ("dynamics.target", "dynamics.scale"),
    "screen": ("rollouts.screen", "rollouts.screening."),
    "critic targets": ("rollouts.value_steps",),
    "branches": ("rollouts.length", "rollouts.per_step", "rollouts.every"),
    "synthetic replay": ("rollouts.retention", "rollouts.retention_", "rollouts.capacity_share"),
    "update batches": ("rollouts.real_", "sac.batch_size"),
    "number of updates": ("sac.updates_per_step", "rollouts.updates"),
    "exploration": ("sac.exploration", "warmup_steps"),
    "model": ("dynamics.",),
    "agent": ("sac.",),
    "evaluation": ("eval_",),
}
"""What a variant can change: whole names of fields, or beginnings that end in . or _; the first
that fits."""


def component(name: str) -> str:
    """The component a configuration field belongs to."""
    for title, names in COMPONENTS.items():
        if any(name == n or (n[-1] in "._" and name.startswith(n)) for n in names):
            return title
    raise SystemExit(f"docs/generate.py: give the field {name} a place in COMPONENTS")


def by_component(name: str) -> dict[str, str]:
    """What a preset changes of the control, by component; under the profile ``paper``.

    Of its screen it also shows the constants that are the defaults.
    """
    control, variant = (build("any task", n, "paper") for n in (CONTROL, name))
    values, preset = cfg.flatten(variant), PRESETS[name]
    found = [n for n in cfg.difference(control, variant) if n not in ("algo", "profile")]
    found += [n for n in preset.changes if component(n) == "screen" and n not in found]
    per_task = {field for changes in preset.per_task.values() for field in changes}
    cells: dict[str, list[str]] = {title: [] for title in COMPONENTS}
    for field in sorted({*found, *per_task}):
        text = f"`{field}`" + (f" = {show(values[field])}" if field in found else "")
        cells[component(field)].append(text + (", by task" if field in per_task else ""))
    return {title: "; ".join(parts) for title, parts in cells.items() if parts}


def modifications() -> str:
    """What each variant of the MBPO lineage changes of the control, component by component."""
    shared, own = list(lineage.presets()), [n for n, p in PRESETS.items() if p.own_compute]

    def rows(names: list[str]) -> list[list[str]]:
        changed = {name: by_component(name) for name in names}
        used = [title for title in COMPONENTS if any(title in c for c in changed.values())]
        return [
            [f"[`{name}`](presets.md#{name})", *(changed[name].get(t, "–") for t in used),
             PRESETS[name].source]
            for name in names
        ]  # fmt: skip

    def head(names: list[str]) -> list[str]:
        used = {title for name in names for title in by_component(name)}
        return ["variant", *(title for title in COMPONENTS if title in used), "source"]

    return page(
        "Table of modifications",
        "ftfl.presets",
        f"What each variant changes of the control `{CONTROL}`, component by component; – is the"
        " control's. Everything a configuration can say is compared, so what stands in no column is"
        " the same: networks, optimisers, data, seeds, code.",
        "## On one backbone",
        "Tests hold each variant to its screen, and each `-ftfl` to its target cell.",
        table(head(shared), rows(shared)),
        "## As published",
        "These bring the publication's compute, by task where it says so; what cannot be said here"
        " stands on each one's page in `docs/algorithms`. Under the profile `paper`.",
        *(
            f"### `{name}`\n\nSource: {PRESETS[name].source}.\n\n"
            + table(["component", "changes"], [[t, c] for t, c in by_component(name).items()])
            for name in own
        ),
    )


GROUPS = {
    "": cfg.Config,
    "task": cfg.TaskConfig,
    "sac": cfg.SacConfig,
    "dynamics": cfg.DynamicsConfig,
    "rollouts": cfg.RolloutConfig,
    "rollouts.screening": cfg.ScreenConfig,
}
TYPES = {"Target": "residual, direct", "Scale": "raw, unit"}


def configuration() -> str:
    """Every field with its default and meaning."""
    parts = [
        "Defaults are those of the preset `mbpo` under the profile `paper`; see"
        " [presets](presets.md) for what changes them. Any field can be set by its dotted name."
    ]
    for prefix, cls in GROUPS.items():
        rows = []
        for name, kind, default, text in documented(cls):
            dotted = f"{prefix}.{name}" if prefix else name
            if dotted in GROUPS:
                continue
            if kind.startswith("Literal["):
                kind = ", ".join(str(v) for v in ast.literal_eval(kind.removeprefix("Literal")))
            rows.append([f"`{dotted}`", TYPES.get(kind, kind), default, text])
        summary = (inspect.getdoc(cls) or "").splitlines()[0]
        parts += [
            f"## {prefix or 'The run'}",
            summary,
            table(["field", "type", "default", "meaning"], rows),
        ]
    return page("Configuration", "ftfl.config", *parts)


def pages() -> dict[Path, str]:
    """The text of every generated page by its path."""
    return {
        DOCS / "presets.md": presets(),
        DOCS / "metrics.md": metrics(),
        DOCS / "config.md": configuration(),
        DOCS / "modifications.md": modifications(),
    }


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")
