"""What findings advise can be done: every option they name exists, and so does every value."""

from __future__ import annotations

import ast
import re

import pytest
from sources import ROOT

from ftfl import presets
from ftfl.cli.options import Parser, add_config_options
from ftfl.rollouts.registry import SCREENS

FORENSICS = sorted((ROOT / "src/ftfl/forensics").rglob("*.py"))
OPTION = re.compile(
    r"--[a-z][a-z0-9.-]*[a-z0-9](?![a-z0-9-]|\.$)"
)  # not the start of "--dynamics.{name}"
OF_COMMANDS = {"--algo", "--policy", "--data", "--steps", "--full", "--quick", "--forks"}
"""Of ``ftfl`` itself, not of the configuration; tests of the commands give them."""


def strings(path):
    """String literals of a module but its docstrings, neighbours joined as Python joins them."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    docs = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
            yield node.value


@pytest.fixture(scope="module")
def options():
    parser = Parser("train", "")
    add_config_options(parser, presets.build("gym/Pendulum-v1", "m2ac", "laptop"))
    return set(parser._option_string_actions)


def test_every_option_that_is_advised_exists(options):
    named = {o for path in FORENSICS for text in strings(path) for o in OPTION.findall(text)}
    assert {"--scale", "--dynamics.reward-model", "--rollouts.real-ratio"} <= named
    assert named - options - OF_COMMANDS == set()


@pytest.mark.parametrize(
    ("option", "values"),
    [
        ("--algo", set(presets.PRESETS)),
        ("--screen", set(SCREENS)),
        ("--target", {"residual", "direct", "innovation"}),
        ("--scale", {"raw", "unit"}),
        ("--dynamics.reward-model", {"joint", "separate", "given"}),
    ],
)
def test_every_value_that_is_advised_exists(option, values):
    told = re.compile(re.escape(option) + r" ([a-z][a-z0-9-]*)")
    named = {v for path in FORENSICS for text in strings(path) for v in told.findall(text)}
    assert named, f"no advice names {option}: drop it here"
    assert named <= values
