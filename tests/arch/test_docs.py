"""The documentation says what the code says."""

from __future__ import annotations

import ast
import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest
from sources import PACKAGE, ROOT

from ftfl import config as cfg
from ftfl.cli import VERBS
from ftfl.presets import PRESETS, PROFILES, build, lineage
from ftfl.store.metrics import METRICS

# Fields whose name and default say all there is to say.
SELF_EXPLAINING = {
    "seed", "eval_every", "eval_episodes", "log_every", "checkpoint_every",
    "sac.actor_learning_rate", "sac.critic_learning_rate", "sac.temperature_learning_rate",
    "sac.discount", "sac.initial_temperature", "sac.target_entropy_per_action",
    "sac.log_std_min", "sac.log_std_max",
    "dynamics.logvar_max", "dynamics.logvar_penalty", "dynamics.members", "dynamics.elites",
    "dynamics.hidden", "dynamics.learning_rate", "dynamics.patience",
}  # fmt: skip


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


GENERATE = generator()
WRITTEN = sorted(
    path
    for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    if path not in GENERATE.pages()
)


@pytest.mark.parametrize("path", GENERATE.pages(), ids=lambda path: path.name)
def test_generated_pages_are_current(path: Path) -> None:
    committed = path.read_text(encoding="utf-8")
    assert committed == GENERATE.pages()[path], f"run `make docs`: docs/{path.name} is out of date"


def test_generated_pages_name_everything() -> None:
    presets, metrics, config, modifications = GENERATE.pages().values()
    assert all(f"### `{name}`" in presets for name in [*PRESETS, *PROFILES])
    assert all(f"`{name}`" in metrics for name in METRICS)
    assert "`dynamics.holdout_score`" in config
    assert "`rollouts.screening.units`" in config
    assert all(f"`{name}`" in modifications for name in [*lineage.presets(), "macura-own"])


def test_the_table_of_modifications_shows_every_change() -> None:
    """Each field in which a variant differs from the control stands in its row, in one column."""
    for name in lineage.presets():
        cells = GENERATE.by_component(name)
        control, variant = (build("t", n, "paper") for n in (GENERATE.CONTROL, name))
        changed = set(cfg.difference(control, variant)) - {"algo"}
        shown = re.findall(r"`([\w.]+)` = ", " ".join(cells.values()))
        assert len(set(shown)) == len(shown)
        constants = {n for n in PRESETS[name].changes if n.startswith("rollouts.screening.")}
        assert set(shown) == changed | constants
        other = {"mbpo": set(), "ftfl": set(), "mve": {"critic targets"}}
        repaired = {"target cell"} if name.startswith("ftfl") or name.endswith("-ftfl") else set()
        assert set(cells) == other.get(name.split("-")[0], {"screen"}) | repaired


def test_every_field_says_what_it_means() -> None:
    silent = {
        f"{prefix}.{name}" if prefix else name
        for prefix, cls in GENERATE.GROUPS.items()
        for name, _, _, text in GENERATE.documented(cls)
        if not text and (f"{prefix}.{name}" if prefix else name) not in GENERATE.GROUPS
    }
    assert silent <= SELF_EXPLAINING, "put a docstring under these fields of config/fields.py"


def defined(path: Path) -> set[str]:
    """Dotted names of functions, classes and assignments at any depth."""
    names: set[str] = set()

    def visit(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                names.add(prefix + node.name)
                visit(node.body, f"{prefix}{node.name}.")
            elif isinstance(node, ast.AnnAssign | ast.Assign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                names.update(prefix + t.id for t in targets if isinstance(t, ast.Name))

    visit(ast.parse(path.read_text(encoding="utf-8")).body, "")
    return names


@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: path.name)
def test_places_in_the_code_exist(path: Path) -> None:
    """``dynamics/fit.py:fit`` in a page is a file of the package and a name defined in it."""
    text = path.read_text(encoding="utf-8")
    wrong = []
    for name, symbol in re.findall(r"`(?:src/ftfl/)?([\w/]+\.py):([\w.]+)`", text):
        source = PACKAGE / name
        if not source.is_file() or symbol not in defined(source):
            wrong.append(f"{name}:{symbol}")
    assert wrong == []


@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: path.name)
def test_metrics_in_the_pages_exist(path: Path) -> None:
    areas = "|".join(sorted({name.split("/")[0] for name in METRICS}))
    named = set(re.findall(rf"`((?:{areas})/\w+)`", path.read_text(encoding="utf-8")))
    assert named <= METRICS.keys()


@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: path.name)
def test_links_between_pages_lead_somewhere(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    targets = [t.split("#")[0] for t in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in t]
    assert [t for t in targets if t and not (path.parent / t).exists()] == []


def test_every_verb_is_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [v for v in VERBS if not re.search(rf"(?:ftfl|make) {v}\b", readme)] == []
