"""What a release promises: hashed pins, one version, a licence, nobody's own paths."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from sources import ROOT

import ftfl

LOCKS = ("requirements.lock", "requirements-dev.lock")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def pins(name: str) -> dict[str, tuple[str, list[str]]]:
    """Version and hashes by package."""
    text = (ROOT / name).read_text(encoding="utf-8").replace("\\\n", " ")
    found = {}
    for line in filter(None, (line.strip() for line in text.splitlines())):
        match = re.match(r"([a-z0-9.-]+)==(\S+)", line)
        assert match, f"{name}: not a pin: {line[:80]}"
        found[match[1]] = (match[2], re.findall(r"--hash=sha256:([0-9a-f]{64})\b", line))
    return found


def canonical(requirement: str) -> str:
    name = re.split(r"[\s<>=!~;\[]", requirement, maxsplit=1)[0]
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.mark.parametrize("name", LOCKS)
def test_every_pin_has_a_hash_and_no_address(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    assert "://" not in text
    assert "--index" not in text
    assert "--find-links" not in text
    bare = [package for package, (_, hashes) in pins(name).items() if not hashes]
    assert not bare
    assert len(pins(name)) > 40


def test_the_locks_cover_the_project() -> None:
    runtime, development = (pins(name) for name in LOCKS)
    needed = {canonical(r) for r in PROJECT["project"]["dependencies"]}
    needed |= {canonical(r) for r in PROJECT["build-system"]["requires"]}
    assert needed <= runtime.keys()
    extras = PROJECT["project"]["optional-dependencies"]
    wanted = {canonical(r) for group in extras.values() for r in group} - {"ftfl"}
    assert wanted <= development.keys()


def test_both_locks_pin_the_same_versions() -> None:
    runtime, development = (pins(name) for name in LOCKS)
    assert {name: development.get(name) for name in runtime} == runtime


def test_the_locks_leave_torch_out() -> None:
    for name in LOCKS:
        assert not {"torch", "torchvision", "tensorflow"} & pins(name).keys()


def test_one_version() -> None:
    version = PROJECT["project"]["version"]
    assert ftfl.__version__ == version
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.search(rf"^version: {re.escape(version)}$", citation, re.MULTILINE)
    assert f"[{version}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_licence_and_citation() -> None:
    assert (ROOT / "LICENSE").read_text(encoding="utf-8").startswith("MIT License\n")
    assert PROJECT["project"]["license"] == "MIT"
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    for paper in ("2510.01457", "2412.14312", "1906.08253", "1812.05905"):
        assert paper in citation


def tracked() -> list[Path]:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        check=True,
        text=True,
    ).stdout
    return [ROOT / name for name in listing.split("\0") if name and (ROOT / name).is_file()]


def test_no_path_of_somebodys_machine() -> None:
    folders = "|".join(["work", "root", "tmp", "home", "Users"])
    pattern = re.compile(rf"(?<![\w.*$)}}>-])/(?:{folders})/[\w.-]")
    found = []
    for path in tracked():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        for number, line in enumerate(text.splitlines(), 1):
            if pattern.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:80]}")
    assert found == []


def test_continuous_integration_runs_the_tests() -> None:
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o100
    assert "make test" in script.read_text(encoding="utf-8")
