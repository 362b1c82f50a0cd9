"""The package's source files, parsed once for every architecture test."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "ftfl"

# Each room may import the rooms before it, and nothing after it.
ROOMS = (
    "errors named types config presets termination nets sac replay dynamics rollouts envs store"
    " sinks training forensics report bench cli"
).split()


@dataclass(frozen=True)
class Source:
    path: Path
    text: str
    tree: ast.Module

    @property
    def name(self) -> str:
        return self.path.relative_to(PACKAGE).as_posix()

    @property
    def room(self) -> str:
        return self.name.split("/")[0].removesuffix(".py")

    def where(self, node: ast.AST) -> str:
        return f"{self.name}:{getattr(node, 'lineno', 0)}"


@functools.cache
def sources() -> tuple[Source, ...]:
    paths = sorted(PACKAGE.rglob("*.py"))
    texts = [path.read_text(encoding="utf-8") for path in paths]
    return tuple(Source(p, t, ast.parse(t)) for p, t in zip(paths, texts, strict=True))


def imports(source: Source) -> Iterator[tuple[ast.AST, str]]:
    """Every imported module by dotted name, lazy ones included; ``from ftfl import sac`` is two."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            yield from ((node, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            yield node, module
            yield from ((node, f"{module}.{alias.name}") for alias in node.names)


def dotted(node: ast.AST) -> str:
    """``np.random.seed`` for that expression; empty for anything that is not a dotted name."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        head = dotted(node.value)
        return f"{head}.{node.attr}" if head else ""
    return ""


def docstring_positions(tree: ast.AST) -> set[int]:
    """Identities of the constants that are docstrings: bare strings as statements."""
    return {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
