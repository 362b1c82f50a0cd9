"""Every promise is kept by tests that exist."""

from __future__ import annotations

import ast
import re

import pytest
from sources import ROOT

TEXT = (ROOT / "docs" / "promises.md").read_text(encoding="utf-8")
PROMISES = re.split(r"^(?=\d+\. )", TEXT, flags=re.MULTILINE)[1:]
NAMED = re.compile(r"`(tests/\S+?\.py)::(test_\w+)`( \(long\))?")


def test_there_are_ten() -> None:
    numbers = [int(promise.split(".")[0]) for promise in PROMISES]
    assert numbers == list(range(1, 11))


@pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: promise.split(".")[0])
def test_a_promise_names_tests_that_exist_in_the_tier_it_says(promise: str) -> None:
    named = NAMED.findall(promise)
    assert named, "a promise without a test is a wish"
    for path, name, said_long in named:
        tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
        found = [n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == name]
        assert found, f"{path} has no {name}"
        marks = [ast.unparse(decorator) for decorator in found[0].decorator_list]
        only_long = any(mark == "pytest.mark.long" for mark in marks)
        assert only_long == bool(said_long), f"{name} is{'' if only_long else ' not'} long"
