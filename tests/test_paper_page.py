"""docs/howto/paper.md: all blocks of the page run in an empty folder, in order, with one epoch."""

import sys
from pathlib import Path

import pytest

from tests.support.pages import run_page

PAGE = Path("docs/howto/paper.md").absolute()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")  # of Lightning, about small data
def test_the_page_from_its_configurations_to_its_table(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    texts = run_page(PAGE, monkeypatch, capsys, {}, ["--trainer.max_epochs=1"])
    assert {path.name for path in tmp_path.glob("*.yaml")} == {"bp.yaml", "fa.yaml", "dfa.yaml"}
    table = next(text for text in texts if text.startswith("rule"))
    lines = table.splitlines()
    assert [line.split()[:2] for line in lines[1:4]] == [["BP", "3"], ["FA", "3"], ["DFA", "3"]]
    assert "also differs" not in table
    assert "paired by seed" in table
    assert "resolves:" in table
    latex = (tmp_path / "table.tex").read_text()
    assert latex.count(r"\begin{tabular}") == latex.count(r"\bottomrule") == 2
    assert "rule & n & accuracy & cosine" in latex
    assert "resolves:" not in latex
    assert {path.name for path in (tmp_path / "comparison").iterdir()} == {
        *("comparison.csv", "comparison.png")
    }
    assert (tmp_path / "accuracy.pdf").stat().st_size > 1000
    assert "BP lr=0.0003" in texts[-1]
    assert (tmp_path / "rates" / "over_lr.png").is_file()
