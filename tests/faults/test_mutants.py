"""Known faults, put in on purpose, must turn a test red: the tests are tested here.

Each mutant changes one place in a copy of the package (``mutants.py``), and one narrow selection of
the ordinary tests runs against the copy in a process of its own.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from mutants import MUTANTS, QUICK

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "ftfl"
PASSED, FAILED = 0, 1  # pytest's exit statuses; the others say that nothing was tested
AT_MOST_SECONDS = 1_800
HASHES = next(mutant for mutant in MUTANTS if mutant.fault == "hashes are not compared")


def each(mutants):
    ids = [mutant.fault.replace(" ", "-") for mutant in mutants]
    return pytest.mark.parametrize("mutant", mutants, ids=ids)


class Outcome(NamedTuple):
    status: int
    tested: Path
    """The package that was imported."""
    broken: list[str]
    """Tests that failed by an assertion."""
    output: str


@pytest.fixture(scope="session")
def compiled(tmp_path_factory):
    """What the unchanged code compiles to serves all mutants: three times as fast."""
    return tmp_path_factory.mktemp("compiled")


@pytest.fixture
def copy(tmp_path):
    """The package, alone in a folder."""
    package = tmp_path / "mutated" / "ftfl"
    shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
    return package


def run_tests(selection, package, compiled):
    findings = package.parents[1] / "findings.json"
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")} | {
        "PYTHONPATH": os.pathsep.join([str(package.parent), str(Path(__file__).parent)]),
        "HYPOTHESIS_STORAGE_DIRECTORY": str(package.parents[1] / "hypothesis"),
        "JAX_COMPILATION_CACHE_DIR": str(compiled),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    options = ["-q", "--tb=short", "-p", "no:cacheprovider", "-p", "witness"]
    options += [f"--witness={findings}"]
    result = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *selection],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=AT_MOST_SECONDS,
    )  # fmt: skip
    output = result.stdout + result.stderr
    assert findings.exists(), f"pytest did not come to an end:\n{output}"
    found = json.loads(findings.read_text())
    return Outcome(result.returncode, Path(found["tested"]), found["broken"], output)


def require_caught(mutant, package, compiled):
    mutant.put_into(package)
    outcome = run_tests([mutant.test], package, compiled)
    assert outcome.tested == package / "__init__.py"
    assert outcome.status != PASSED, f"{mutant.test} does not see this fault: {mutant.fault}"
    assert outcome.status == FAILED, outcome.output
    assert outcome.broken, f"no assertion failed, the mutant is no program:\n{outcome.output}"


@each(QUICK)
def test_a_known_fault_turns_a_test_red(mutant, copy, compiled):
    require_caught(mutant, copy, compiled)


@pytest.mark.long
def test_without_a_fault_the_same_tests_are_green(copy, compiled):
    """In the same surroundings, so that it is the fault and nothing else that turns them red."""
    outcome = run_tests(dict.fromkeys(m.test for m in MUTANTS), copy, compiled)
    assert outcome.tested == copy / "__init__.py"
    assert outcome.status == PASSED, outcome.output


@pytest.mark.long
@each(MUTANTS)
def test_every_known_fault_turns_its_test_red(mutant, copy, compiled):
    require_caught(mutant, copy, compiled)


def test_every_mutant_still_applies_and_is_a_program(copy):
    for mutant in MUTANTS:
        original = (PACKAGE / mutant.file).read_text(encoding="utf-8")
        mutant.put_into(copy)
        compile((copy / mutant.file).read_text(encoding="utf-8"), mutant.file, "exec")
        (copy / mutant.file).write_text(original, encoding="utf-8")


def test_every_mutant_names_a_test_that_exists():
    for mutant in MUTANTS:
        file, _, name = mutant.test.partition("::")
        defined = re.findall(r"^def (test_\w+)\(", (ROOT / file).read_text(), re.MULTILINE)
        assert name.partition("[")[0] in defined, f"mutant {mutant.fault!r}: no test {mutant.test}"
    assert len({mutant.fault for mutant in MUTANTS}) == len(MUTANTS)


def test_a_mutant_whose_code_has_moved_says_so(copy):
    mutant = MUTANTS[0]._replace(old="no such line")
    with pytest.raises(AssertionError, match=r"no longer applies: .* 0 times in src/ftfl/sac\.py"):
        mutant.put_into(copy)


@pytest.mark.long
def test_a_mutant_that_is_no_program_is_not_a_caught_one(copy, compiled):
    """A wrong name turns every test red and proves nothing."""
    mutant = HASHES._replace(new="if digest_ != spec.sha256:")
    with pytest.raises(AssertionError, match="no assertion failed"):
        require_caught(mutant, copy, compiled)


@pytest.mark.long
def test_a_fault_that_nobody_sees_is_reported(copy, compiled):
    mutant = HASHES._replace(new="if spec.sha256 != digest:")
    with pytest.raises(AssertionError, match="does not see this fault"):
        require_caught(mutant, copy, compiled)
