"""Running a page of docs/ as a reader would: its files, its Python, its commands, in order."""

import re
import shlex
import sys
from itertools import product
from pathlib import Path

from lit_credit.cli import main

__all__ = ["blocks", "commands", "lit_credit", "run_page"]

BLOCK = re.compile(r"^( *)```(\w+)\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)
FILE = re.compile(r"# (\S+\.(?:py|yaml))(?=[\n:])")
QUIET = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
ELSEWHERE = ("pip", "tensorboard", "make", "git", "cd", "source", "sbatch")
"""Commands that begin like these are for a terminal, and are not run."""


def blocks(page):
    """Pairs of language and text."""
    found = BLOCK.findall(Path(page).read_text())
    return [
        (kind, re.sub(rf"^{indent}", "", text, flags=re.MULTILINE)) for indent, kind, text in found
    ]


def commands(block):
    """The commands of a block, lines joined and loops written out."""
    loops = {}
    for line in block.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words[:1] == ["for"]:
            loops[words[1]] = line.partition(" in ")[2].removesuffix("; do").split()
        elif words == ["done"]:
            loops.popitem()
        elif words:
            for values in product(*loops.values()):
                given = dict(zip(loops, values, strict=True))
                yield re.sub(r"\$(\w+)", lambda name, given=given: given[name[1]], line)


def lit_credit(monkeypatch, capsys, command, short=()):
    """The command of a terminal in this process; what it prints goes to the file behind ``>``."""
    command, _, file = command.partition(" > ")
    program, *words = shlex.split(command, comments=True)
    assert program == "lit-credit"
    if words[0] == "fit":
        words += [*QUIET, *short]
    monkeypatch.setattr(sys, "argv", ["lit-credit", *words])
    capsys.readouterr()
    code = main()
    text, error = capsys.readouterr()
    assert code == 0, (command, error)
    if file:
        Path(file).write_text(text)
    return text


def run_page(page, monkeypatch, capsys, names, short=(), replace=None):
    """Run the blocks of a page in the working directory; returns what its commands printed.

    A block of Python or YAML that begins with a file's name, as ``# my_rules.py``, is written to
    that file. All other Python runs in ``names``, which blocks share. ``short`` is added to every
    ``fit``, and ``replace`` says what stands for what in all blocks, so that tests are short.
    """
    printed = []
    for kind, text in blocks(page):
        for old, new in (replace or {}).items():
            text = text.replace(old, new)
        file = FILE.match(text)
        if file:
            Path(file[1]).write_text(text)
        elif kind == "python":
            exec(compile(text, f"{page}: {text[:40]!r}", "exec"), names)
        elif kind == "sh":
            for command in commands(text):
                if not command.startswith(ELSEWHERE):
                    printed.append(lit_credit(monkeypatch, capsys, command, short))
        else:
            assert kind in ("yaml", "text"), (page, kind)
    return printed
