"""A pytest plugin for runs under a mutant: which ftfl they tested, and which promises broke.

A test that dies of anything but a broken promise (an import that fails, a wrong type) says only
that the mutant is no program.
"""

import json
from pathlib import Path

import pytest
from hypothesis import Phase, settings

broken: list[str] = []


def pytest_addoption(parser):
    parser.addoption("--witness", type=Path, required=True, help="file to write the findings to")


def pytest_configure():
    # The same examples every time, and none made smaller: red is all that is asked.
    settings.register_profile(
        "witness", derandomize=True, phases=[Phase.explicit, Phase.generate], database=None
    )
    settings.load_profile("witness")


def pytest_exception_interact(node, call, report):
    if report.when == "call" and _is_promise(call.excinfo.value):
        broken.append(node.nodeid)


def pytest_sessionfinish(session):
    import ftfl

    findings = {"tested": ftfl.__file__, "broken": broken}
    session.config.getoption("witness").write_text(json.dumps(findings))


def _is_promise(error):
    # Hypothesis gathers several in a group; pytest.raises fails with an exception of its own.
    if isinstance(error, BaseExceptionGroup):
        return all(_is_promise(one) for one in error.exceptions)
    return isinstance(error, (AssertionError, pytest.fail.Exception))
