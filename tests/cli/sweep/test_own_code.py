"""Source files of one's own behind the classes of a configuration."""

import importlib
import sys

import pytest

from lit_credit.cli.sweep.own_code import SourceFiles, code_notes, read_code, write_code


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package with a class in a folder and a helper beside it, and a module alone."""
    for name in ("own_pkg/__init__", "own_pkg/nets/__init__", "own_pkg/nets/net", "own_pkg/help"):
        path = tmp_path / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("class Net: pass\n")
    (tmp_path / "own_alone.py").write_text("class Rule: pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    names = ["own_pkg.nets.net", "own_pkg.help", "own_alone"]
    for name in names:
        importlib.import_module(name)
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("own_")]:
        del sys.modules[name]


def config(path):
    return {"model": {"class_path": "lit_credit.rules.BP", "init_args": {"net": [path]}}}


def test_files_of_the_whole_package_count(package):
    found = SourceFiles().of(config({"class_path": "own_pkg.nets.net.Net"}))
    assert {path.removeprefix(f"{package}/") for path in found} == {
        "own_pkg/__init__.py",
        "own_pkg/nets/__init__.py",
        "own_pkg/nets/net.py",
        "own_pkg/help.py",
    }


def test_classes_of_installed_packages_do_not_count(package):
    assert SourceFiles().of(config({"class_path": "torch.nn.Linear"})) == {}
    assert SourceFiles().of(config({"class_path": "not.there"})) == {}
    assert f"{package}/own_alone.py" in SourceFiles().of(config({"class_path": "own_alone.Rule"}))


def test_a_changed_file_is_told_once_with_its_runs(package):
    before = SourceFiles().of(config({"class_path": "own_pkg.nets.net.Net"}))
    runs = [package / "run_1", package / "run_2"]
    for run in runs:
        run.mkdir()
        write_code(run, before)
    assert code_notes((run, before) for run in runs) == []
    (package / "own_pkg" / "help.py").write_text("class Net: x = 1\n")
    now = SourceFiles().of(config({"class_path": "own_pkg.nets.net.Net"}))
    (note,) = code_notes((run, now) for run in runs)
    assert note.startswith(f"{package}/own_pkg/help.py has changed since 2 finished runs")
    (runs[0] / "code.json").write_text("{")
    assert read_code(runs[0]) == {}
    assert "1 finished run," in code_notes((run, now) for run in runs)[0]
