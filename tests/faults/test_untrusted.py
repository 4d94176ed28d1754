"""Files that nobody vouches for are read without running anything in them."""

import ast
import os
import pickle
from pathlib import Path

import pytest
import torch

from lit_credit.cli import main
from lit_credit.rules import DFA
from lit_credit.runs.checkpoints import checkpoint_step
from lit_credit.runs.weight_files import read_saved
from lit_credit.tasks import Classification
from tests.support.resumable import fit, mlp, rule

ROOTS = ("lit_credit", "examples", "benchmarks")
FILES = [path for root in ROOTS for path in sorted(Path(root).rglob("*.py"))]
UNSAFE_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


UNSAFE_CALLS = {"eval", "exec", "compile", "__import__", "os.system"}
UNSAFE_CALLS |= {"yaml.load", "yaml.unsafe_load", "yaml.full_load"}


def keyword(node, name):
    found = [word.value for word in node.keywords if word.arg == name]
    return ast.unparse(found[0]) if found else None


def imported(node):
    if isinstance(node, ast.ImportFrom):
        return [node.module or ""]
    return [alias.name for alias in node.names]


def is_unsafe(node):
    """Whether it runs, or may run, what it reads."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        return any(name.split(".")[0] in UNSAFE_MODULES for name in imported(node))
    if not isinstance(node, ast.Call):
        return False
    name = ast.unparse(node.func)
    if name == "torch.load":
        return keyword(node, "weights_only") != "True"
    return name in UNSAFE_CALLS or keyword(node, "allow_pickle") == "True"


def unsafe(tree):
    return [ast.unparse(node) for node in ast.walk(tree) if is_unsafe(node)]


@pytest.mark.parametrize("path", FILES, ids=str)
def test_no_line_runs_what_it_reads(path):
    assert unsafe(ast.parse(path.read_text())) == []


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from joblib import load",
        "eval('1')",
        "exec(text)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "yaml.load(text, yaml.Loader)",
        "np.load(path, allow_pickle=True)",
    ],
)
def test_the_search_finds(line):
    assert unsafe(ast.parse(line))
    assert not unsafe(ast.parse("net.eval(); torch.load(path, weights_only=True)"))


class Evil:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder):
        self.folder = str(folder)

    def __reduce__(self):
        return os.mkdir, (self.folder,)


@pytest.fixture
def evil(tmp_path):
    """A checkpoint that fits, but for its last entry, and what reading it would make."""
    module = rule()
    fit(module, tmp_path, max_epochs=1)
    path, trace = tmp_path / "checkpoints" / "evil.ckpt", tmp_path / "trace"
    whole = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    torch.save({**whole, "evil": Evil(trace)}, path)
    yield path, trace
    assert not trace.exists()


def test_the_command_line_runs_no_code_of_a_checkpoint(evil, tmp_path, capsys):
    path, _ = evil
    words = ["--config", "configs/residual_explosion/bp.yaml", "--trainer.accelerator=cpu"]
    words += ["--trainer.default_root_dir", str(tmp_path / "run"), "--ckpt_path", str(path)]
    for command in ("fit", "validate", "test", "predict"):
        assert main([command, *words]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert "reading that can run code" in line
        assert "mkdir" in line


def test_python_runs_no_code_of_a_checkpoint(evil, tmp_path):
    path, _ = evil
    for load in (
        lambda: fit(rule(), tmp_path / "other", ckpt_path=path),
        lambda: DFA.load_from_checkpoint(path, net=mlp(), task=Classification(5)),
        lambda: read_saved(path, argument="reference"),
        lambda: checkpoint_step(path),
    ):
        with pytest.raises(ValueError, match=r"evil\.ckpt .*holds \w+\.mkdir.*can run code"):
            load()


def test_a_bare_pickle_is_refused_too(tmp_path):
    path = tmp_path / "a.ckpt"
    path.write_bytes(pickle.dumps(Evil(tmp_path / "trace")))
    with pytest.raises(ValueError, match=r"a\.ckpt"):
        read_saved(path, argument="reference")
    assert not (tmp_path / "trace").exists()


def test_a_file_that_is_trusted_is_read_and_its_code_runs(evil):
    path, trace = evil
    load = {"net": mlp(), "task": Classification(5), "weights_only": False}
    assert isinstance(DFA.load_from_checkpoint(path, **load), DFA)
    trace.rmdir()  # which its code has made
