"""The notebooks run from top to bottom, in a short form, in a folder without anything else."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

pytestmark = pytest.mark.program

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))
SHORT = {"ITERATIONS": 1, "HORIZON": 20, "STEPS": 10}
FEW = "".join(f', "--data.{phase}_updates=3"' for phase in ("teacher", "world_model", "policy"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path: Path, tmp_path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells)  # which would be out of date
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.source = re.sub(r"^([A-Z]+) = \d+$", _shorten, cell.source, flags=re.MULTILINE)
            cell.source = re.sub(r"build\(\[(.*)\]\)", rf"build([\1{FEW}])", cell.source)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    images = [out for cell in notebook.cells for out in cell.get("outputs", []) if "image/png" in out.get("data", {})]
    assert images


def _shorten(match: re.Match[str]) -> str:
    return f"{match[1]} = {SHORT[match[1]]}"
