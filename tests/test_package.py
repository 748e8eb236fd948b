"""What the files beside the package say of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import lit_awm

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(("name", "line"), [("pyproject.toml", 'version = "{}"'), ("CITATION.cff", "version: {}")])
def test_the_version_is_the_same_everywhere(name: str, line: str) -> None:
    found = re.search(f"(?m)^{line.format('(.*)')}$", (ROOT / name).read_text(encoding="utf-8"))
    assert found is not None
    assert found[1] == lit_awm.__version__


@pytest.mark.parametrize("file", ["noxfile.py", "mkdocs.yml", "constraints.txt", "CHANGELOG.md"])
def test_a_source_distribution_has_what_its_sessions_need(file: str) -> None:
    assert file in (ROOT / "MANIFEST.in").read_text(encoding="utf-8").split()
