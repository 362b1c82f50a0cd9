"""The house rules that can be read off the source: rooms, forbidden constructs, metric names."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest
from sources import PACKAGE, ROOMS, Source, docstring_positions, dotted, imports, sources

from ftfl.store.metrics import METRICS

LINES = 300
LONGER = {
    "config/fields.py": (350, "every field of a run, with its meaning beside it"),
    "store/metrics.py": (450, "one table: every metric, one after another"),
}
SIMULATORS = {"gymnasium", "dm_control", "mujoco"}
UNSAFE_MODULES = {
    "pickle",
    "cPickle",
    "dill",
    "cloudpickle",
    "marshal",
    "shelve",
    "random",
    "torch",
}
UNSAFE_CALLS = {"eval", "exec", "compile", "__import__"}
OWN_GENERATORS = {"default_rng", "Generator", "SeedSequence", "RandomState", "PCG64"}
AREAS = {name.split("/")[0] for name in METRICS}


def each(find) -> list[str]:
    return [f"{source.where(node)}: {what}" for source in sources() for node, what in find(source)]


def test_the_walk_sees_the_package() -> None:
    names = {source.name for source in sources()}
    assert {"sac.py", "dynamics/fit.py", "envs/dmc.py"} <= names


def test_every_file_is_in_a_known_room() -> None:
    unknown = {s.name for s in sources() if s.room not in {*ROOMS, "__init__", "__main__"}}
    assert not unknown, f"give these files a room in tests/arch/sources.py: {unknown}"


def test_a_room_imports_only_rooms_above_it() -> None:
    def upwards(source: Source) -> Iterator[tuple[ast.AST, str]]:
        if source.room not in ROOMS:
            return
        for node, module in imports(source):
            head, _, rest = module.partition(".")
            room = rest.split(".")[0]
            if head == "ftfl" and room in ROOMS and ROOMS.index(room) > ROOMS.index(source.room):
                yield node, f"{source.room} imports {room}, which stands below it"

    assert each(upwards) == []


def test_imports_are_absolute() -> None:
    def relative(source: Source) -> Iterator[tuple[ast.AST, str]]:
        for node in ast.walk(source.tree):
            if isinstance(node, ast.ImportFrom) and node.level:
                yield node, "relative import, which hides the room it comes from"

    assert each(relative) == []


def test_only_envs_imports_a_simulator() -> None:
    def simulators(source: Source) -> Iterator[tuple[ast.AST, str]]:
        if source.room != "envs":
            for node, module in imports(source):
                if module.split(".")[0] in SIMULATORS:
                    yield node, f"imports {module}"

    assert each(simulators) == []


def test_no_unsafe_modules_or_calls() -> None:
    def unsafe(source: Source) -> Iterator[tuple[ast.AST, str]]:
        for node, module in imports(source):
            if module.split(".")[0] in UNSAFE_MODULES:
                yield node, f"imports {module}"
        for node in ast.walk(source.tree):
            if isinstance(node, ast.Call) and dotted(node.func) in UNSAFE_CALLS:
                yield node, f"calls {dotted(node.func)}"
            if isinstance(node, ast.ExceptHandler) and node.type is None:
                yield node, "bare except"
            if isinstance(node, ast.Call) and any(
                k.arg == "allow_pickle"
                and not (isinstance(k.value, ast.Constant) and not k.value.value)
                for k in node.keywords
            ):
                yield node, "allow_pickle"

    assert each(unsafe) == []


def test_no_global_numpy_generator() -> None:
    def random(source: Source) -> Iterator[tuple[ast.AST, str]]:
        for node in ast.walk(source.tree):
            match = re.fullmatch(r"(?:np|numpy)\.random\.(\w+)", dotted(node))
            if match and match[1] not in OWN_GENERATORS:
                yield node, dotted(node)

    assert each(random) == []


def at_import(body: list[ast.stmt]) -> Iterator[ast.AST]:
    """Nodes that run when a module is imported: everything outside functions."""
    stack: list[ast.AST] = list(body)
    while stack:
        node = stack.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        yield node
        stack.extend(ast.iter_child_nodes(node))


def test_importing_the_library_leaves_the_environment_alone() -> None:
    def writes(source: Source) -> Iterator[tuple[ast.AST, str]]:
        for node in at_import(source.tree.body):
            if isinstance(node, ast.Assign | ast.AugAssign | ast.Delete):
                targets = [node.target] if isinstance(node, ast.AugAssign) else node.targets
                for target in targets:
                    if isinstance(target, ast.Subscript) and dotted(target.value).endswith(
                        "environ"
                    ):
                        yield node, "writes os.environ"
            if isinstance(node, ast.Call):
                head, _, method = dotted(node.func).rpartition(".")
                changed = method in {"setdefault", "update", "pop", "clear"}
                if method in {"putenv", "unsetenv"} or (head.endswith("environ") and changed):
                    yield node, f"calls {dotted(node.func)}"
                if dotted(node.func) == "jax.config.update":
                    yield node, "changes JAX's configuration"

    assert each(writes) == []


def narrows(test: ast.expr) -> bool:
    if isinstance(test, ast.BoolOp):
        return isinstance(test.op, ast.And) and all(narrows(value) for value in test.values)
    if isinstance(test, ast.Call):
        return dotted(test.func) in {"isinstance", "callable"}
    return isinstance(test, ast.Compare) and any(
        isinstance(right, ast.Constant) and right.value is None for right in test.comparators
    )


def test_asserts_only_narrow_types() -> None:
    """``python -O`` drops asserts, so no check of anything a user gives may be one."""

    def checks(source: Source) -> Iterator[tuple[ast.AST, str]]:
        for node in ast.walk(source.tree):
            if isinstance(node, ast.Assert) and not narrows(node.test):
                yield node, f"assert {ast.unparse(node.test)}"

    assert each(checks) == []


@pytest.mark.parametrize("source", sources(), ids=lambda source: source.name)
def test_files_are_short(source: Source) -> None:
    limit, _ = LONGER.get(source.name, (LINES, ""))
    lines = source.text.count("\n")
    assert lines <= limit, f"{source.name} has {lines} lines; split it by what changes together"


def metric_names(source: Source) -> Iterator[tuple[ast.AST, re.Pattern[str]]]:
    """Metric names as the code writes them; an f-string counts for all names it can become."""
    docstrings = docstring_positions(source.tree)
    inside = {
        id(part)
        for node in ast.walk(source.tree)
        if isinstance(node, ast.JoinedStr)
        for part in ast.walk(node)
        if part is not node
    }
    for node in ast.walk(source.tree):
        if isinstance(node, ast.JoinedStr):
            parts = [
                re.escape(str(part.value)) if isinstance(part, ast.Constant) else r"\w+"
                for part in node.values
            ]
            text = "".join(parts)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            if id(node) in docstrings | inside:
                continue
            text = re.escape(node.value)
        else:
            continue
        area, slash, rest = text.partition("/")
        if slash and area in AREAS and re.fullmatch(r"(?:\\w\+|\w)+", rest):
            yield node, re.compile(text)


def written() -> list[tuple[str, re.Pattern[str]]]:
    return [
        (source.where(node), pattern)
        for source in sources()
        if source.name != "store/metrics.py"
        for node, pattern in metric_names(source)
    ]


def test_every_metric_in_the_code_is_registered() -> None:
    strange = [
        f"{where}: {pattern.pattern}"
        for where, pattern in written()
        if not any(pattern.fullmatch(name) for name in METRICS)
    ]
    assert not strange, "register these in store/metrics.py"


def test_every_registered_metric_is_written() -> None:
    patterns = [pattern for _, pattern in written()]
    unused = {name for name in METRICS if not any(p.fullmatch(name) for p in patterns)}
    assert not unused


def test_the_rules_notice_what_they_forbid() -> None:
    """The walkers above find a planted fault, so an empty list means something."""
    text = (
        "import os\nimport gymnasium\nfrom ftfl.cli import main\nos.environ['A'] = 'b'\n"
        "x = {'agent/no_such_metric': 1}\nassert x == 2\n"
    )
    planted = Source(PACKAGE / "nets.py", text, ast.parse(text))
    assert "ftfl.cli" in {module for _, module in imports(planted)}
    assert [p.pattern for _, p in metric_names(planted)] == ["agent/no_such_metric"]
    assert not narrows(planted.tree.body[-1].test)  # type: ignore[attr-defined]
    assert any(isinstance(node, ast.Subscript) for node in at_import(planted.tree.body))
