"""Classes in files of one's own: where they are found, and what is said of broken ones."""

import sys
from contextlib import suppress

import pytest
import yaml

from lit_credit.cli import main
from lit_credit.cli.own_modules import find_own_modules
from tests.cli.parsed import with_value

NET = "model.init_args.net"
GOOD = "from torch import nn\n\n\nclass OwnNet(nn.Linear):\n    pass\n"


@pytest.fixture
def line(tmp_path, monkeypatch, capsys):
    """What `lit-credit` prints about a class of a file, given the file's text."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = set(sys.modules)

    def run(text, path="own_net.OwnNet", folder=".", **others):
        there = tmp_path / folder
        there.mkdir(exist_ok=True)
        for name, content in {"own_net": text, **others}.items():
            (there / f"{name}.py").write_text(content)
        net = {"class_path": path, "init_args": {"in_features": 64, "out_features": 10}}
        (there / "run.yaml").write_text(yaml.safe_dump(with_value(NET, net)))
        words = ["fit", "--config", f"{folder}/run.yaml", "--print_config"]
        monkeypatch.setattr(sys, "argv", ["lit-credit", *words])
        with suppress(SystemExit):  # after `--print_config`
            main()
        printed = capsys.readouterr()
        return printed.err or printed.out

    yield run
    for name in set(sys.modules) - before:
        if name.startswith("own_"):
            del sys.modules[name]


@pytest.mark.parametrize("folder", [".", "there"])
def test_a_file_beside_the_configuration_is_found(line, folder):
    assert "class_path: own_net.OwnNet" in line(GOOD, folder=folder)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("import own_missing", "own_net.py, line 1: No module named 'own_missing'"),
        ("x = 1\nx = 1 / 0", "own_net.py, line 2: ZeroDivisionError: division by zero"),
        ("class A\n    pass", "own_net.py, line 1: expected ':'"),
        ("from lit_credit.rules import Nope", "own_net.py, line 1: cannot import name 'Nope'"),
        ("raise ValueError('no')", "own_net.py, line 1: ValueError: no"),
        ("import sys\nsys.exit()", "own_net.py, line 2: SystemExit"),
        ("import own_other", "own_other.py, line 2: IndexError"),
        (GOOD.replace("OwnNet", "OwnNte"), "module 'own_net' has no 'OwnNet'. The module is "),
    ],
)
def test_a_broken_file_is_named_with_the_line(line, text, expected):
    printed = line(text, own_other="x = []\nx[1]\n")
    assert expected in printed
    assert "own_net" in printed


def test_a_misspelt_name_is_told_with_the_closest(line):
    assert "own_net.py. Did you mean OwnNet?" in line(GOOD, "own_net.OwnNte")
    expected = "No module named 'own_nte'. Put own_nte.py or the package own_nte into the working"
    assert expected in line(GOOD, "own_nte.OwnNet")
    assert "module 'torch.nn' has no 'modles'" in line(GOOD, "torch.nn.modles.Linear")


@pytest.mark.parametrize("option", ["--rule", "--suite", "--config"])
def test_a_file_beside_any_file_that_names_classes_is_found(option, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "rows.yaml").touch()
    find_own_modules(["benchmark", option, str(tmp_path / "rows.yaml")])
    assert str(tmp_path) in sys.path
