"""docs/paper.md: all blocks of the page run in an empty folder, in order, with one epoch."""

import re
import shlex
import sys
from itertools import product
from pathlib import Path

import pytest

from lit_credit.cli import main

PAGE = Path("docs/paper.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
SHORT = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
SHORT += ["--trainer.max_epochs=1"]


def commands(block):
    """The commands of a block, loops written out."""
    loops = {}
    for line in block.splitlines():
        words = shlex.split(line)
        if words[:1] == ["for"]:
            loops[words[1]] = line.partition(" in ")[2].removesuffix("; do").split()
        elif words == ["done"]:
            loops.popitem()
        else:
            for values in product(*loops.values()):
                given = dict(zip(loops, values, strict=True))
                yield re.sub(r"\$(\w+)", lambda name, given=given: given[name[1]], line)


def lit_credit(monkeypatch, capsys, command):
    """The command of a terminal in this process; what it prints goes to the file behind ``>``."""
    command, _, file = command.partition(" > ")
    program, *words = shlex.split(command)
    assert program == "lit-credit"
    if words[0] == "fit":
        words += SHORT
    monkeypatch.setattr(sys, "argv", ["lit-credit", *words])
    capsys.readouterr()
    code = main()
    text, error = capsys.readouterr()
    assert code == 0, (command, error)
    if file:
        Path(file).write_text(text)
    return text


@pytest.mark.filterwarnings("ignore::UserWarning")  # of Lightning, about small data
def test_the_page_from_its_configurations_to_its_table(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    texts = []
    for kind, block in BLOCKS:
        if kind == "yaml":
            name = block.partition("\n")[0].removeprefix("# ")
            (tmp_path / name).write_text(block)
        elif kind == "sh":
            texts += [lit_credit(monkeypatch, capsys, command) for command in commands(block)]
        else:
            assert kind == "python"
            exec(block, {})
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
