"""Every notebook runs from start to end, and is committed as run."""

import os
from pathlib import Path

import nbformat
import pytest
from nbconvert.preprocessors import ExecutePreprocessor

from tests.support.processes import HANG

NOTEBOOKS = sorted(Path("notebooks").glob("*.ipynb"))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=str)
def test_notebook_runs(path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", os.getcwd())
    notebook = nbformat.read(path, as_version=4)
    runner = ExecutePreprocessor(timeout=int(HANG), startup_timeout=int(HANG))
    runner.preprocess(notebook, {"metadata": {"path": str(path.parent)}})


@pytest.mark.parametrize("path", NOTEBOOKS, ids=str)
def test_notebook_is_committed_as_run(path):
    cells = [c for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert not any(o.output_type == "error" for cell in cells for o in cell.outputs)
