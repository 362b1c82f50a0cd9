"""Pages written from committed raw results say what these results say."""

import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", ["findings", "lineage", "probes", "taxonomy"])
def test_page_is_what_its_report_writes(name, monkeypatch, tmp_path):
    folder = ROOT / "benchmarks" / name
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setattr(sys, "path", list(sys.path))  # reports append to it
    spec = importlib.util.spec_from_file_location(f"{name}_report", folder / "report.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    committed = module.PAGE.read_text(encoding="utf-8")
    monkeypatch.setattr(module, "PAGE", tmp_path / "page.md")
    monkeypatch.setattr(module, "FIGURES", tmp_path, raising=False)
    module.main()
    assert (tmp_path / "page.md").read_text(encoding="utf-8") == committed, (
        f"run benchmarks/{name}/report.py"
    )
