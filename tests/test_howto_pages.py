"""README.md, the tutorial and the short pages: every block runs, in order, in an empty folder."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from tests.support.pages import blocks, run_page

DOCS = Path("docs").absolute()
SHORT = ["--trainer.max_epochs=1"]
TESTED_ELSEWHERE = {"paper", "rule", "task", "data"}
"""In test_paper_page.py and test_your_own_page.py."""


def data_folder(folder):
    """Three files of rows, as docs/howto/stream.md reads them."""
    (folder / "shards").mkdir()
    rng = np.random.default_rng(0)
    for i in range(3):
        x = rng.standard_normal((64, 20)).astype(np.float32)
        np.savez(folder / "shards" / f"{i}.npz", x=x, y=x[:, :5].argmax(1))


@pytest.fixture
def page(tmp_path, monkeypatch, capsys):
    """Run a page in an empty folder; returns what its commands printed, and the names it set."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    data_folder(tmp_path)
    torch.manual_seed(0)
    before = set(sys.modules)

    def run(name, names=None, **kwargs):
        names = {} if names is None else names
        printed = run_page(DOCS / name, monkeypatch, capsys, names, SHORT, **kwargs)
        return printed, names

    yield run
    for name in {path.stem for path in tmp_path.glob("*.py")} - before:
        sys.modules.pop(name, None)


PAGES = [
    *(f"howto/{path.name}" for path in sorted(DOCS.glob("howto/*.md"))),
    *(f"explain/{path.name}" for path in sorted(DOCS.glob("explain/*.md"))),
    "index.md",
    "../README.md",
]


@pytest.mark.few(3)
@pytest.mark.filterwarnings("ignore")  # of Lightning, about small data
@pytest.mark.parametrize("name", [p for p in PAGES if Path(p).stem not in TESTED_ELSEWHERE])
def test_every_block_of_the_page_runs(name, page):
    rows = TensorDataset(torch.randn(32, 3, 64, 64), torch.randint(1000, (32,)))
    loaders = {"train_loader": DataLoader(rows, 16), "val_loader": DataLoader(rows, 16)}
    printed, _ = page(name, loaders)
    assert all(printed)


def test_a_how_to_page_is_short():
    for path in DOCS.glob("howto/*.md"):
        prose = sum(len(text.splitlines()) for _, text in blocks(path))
        assert len(path.read_text().splitlines()) - prose < 100, path.name


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_tutorial_runs_from_its_first_run_to_its_finding(page):
    """With one epoch; the runs of the sweep are those of the page with one epoch too."""
    printed, _ = page("tutorial.md", replace={"max_epochs: 10": "max_epochs: 1"})
    tables = [text for text in printed if text.startswith("rule") or "scale_penalty" in text]
    assert len(tables) >= 2
    assert all(rule in tables[0] for rule in ("BP", "DFA", "FrozenUnits"))
    assert "paired by seed" in tables[-1]
