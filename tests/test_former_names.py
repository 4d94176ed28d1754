"""Import paths, configurations and checkpoints of the version before the rooms (commit 3c38ee6).

``files_before`` holds three short runs of that version, and what each of its modules exported.
"""

import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch
import yaml

from lit_credit.cli import main
from lit_credit.former_names import current_path, with_current_paths
from lit_credit.rules import BP
from lit_credit.runs.history import read_history
from lit_credit.studies.addition import AdditionTask, MicroAdder

BEFORE = Path("tests/files_before")
MODULES = [line.split() for line in BEFORE.joinpath("names.txt").read_text().splitlines()]
PANELS = {
    "attention": ("draw_ratio_history", "draw_sources"),
    "errors": ("draw_differences", "draw_errors", "draw_errors_by_carry"),
    "geometry": ("draw_digits", "draw_factors", "draw_gains", "draw_keys", "draw_queries"),
}
GONE = {
    "lit_credit.rules.clipping.positive",
    "lit_credit.utils.checkpoints.read_weights",
    *(
        f"lit_credit.plotting._adder_{file}.{name}"
        for file, names in PANELS.items()
        for name in names
    ),
}
"""Helpers that nothing outside of lit_credit had a use for.

``utils/ranges.py`` and ``runs/weight_files.py`` do the work of the first two. The numbers of the
panels are in the tables of ``AdderAnatomy``.
"""
RUNS = {"addition": "adder_anatomy", "copying": "circuit_matching", "ngram": "log_prob_theory"}


@pytest.mark.filterwarnings("ignore:.*The former path will go:DeprecationWarning")
@pytest.mark.parametrize(("module", "names"), [(m, names) for m, *names in MODULES])
def test_a_former_module_has_what_it_exported(module, names):
    found = import_module(module)
    assert found is import_module(found.__name__)
    for name in names:
        if f"{module}.{name}" in GONE:
            continue
        current = current_path(f"{module}.{name}")
        home, _, last = current.rpartition(".")
        assert getattr(found, name) is getattr(import_module(home), last), current


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("lit_credit.utils.history", "History"),
        ("lit_credit.callbacks", "AdderAnatomy"),
        ("lit_credit.models", "MicroAdder"),
        ("lit_credit.sweep.grid", "read_grid"),
    ],
)
@pytest.mark.filterwarnings("ignore:lit_credit.sweep is:DeprecationWarning")  # the package's own
def test_a_former_path_warns_and_names_the_present_one(path, name):
    with pytest.warns(DeprecationWarning, match=rf"{path}\S* is lit_credit\.\S+ now"):
        exec(f"import sys; sys.modules.pop('{path}', None); from {path} import {name}")


FRESH = """
from importlib import import_module
import lit_credit, lit_credit.compare
assert callable(lit_credit.compare)
for path in "functional.digit_readout", "plotting.adder_sheet", "plotting.attention_grid":
    package, _, name = f"lit_credit.{path}".rpartition(".")
    import_module(f"{package}.{name}")
    assert callable(getattr(import_module(package), name)), path
for path in "callbacks.head_targets", "callbacks.base.named", "rules.metrics", "feedback.credit":
    package, _, name = f"lit_credit.{path}".rpartition(".")
    package = import_module(package)
    assert type(getattr(package, name)) is type(package), path
"""


def test_functions_and_former_modules_are_attributes_of_their_packages():
    """In a fresh interpreter; a function outlives the import of a former module of its name."""
    words = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FRESH]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_name_that_never_was_is_no_former_name():
    with pytest.raises(AttributeError, match=r"'lit_credit.models' has no attribute 'Micro'"):
        import_module("lit_credit.models").Micro  # noqa: B018


@pytest.fixture(params=RUNS)
def run(request, tmp_path):
    """A run folder of before, and the words that go on with it."""
    folder = tmp_path / "BP" / f"seed_{yaml.safe_load(_config(request.param))['seed_everything']}"
    shutil.copytree(BEFORE / request.param, folder)
    (folder / "checkpoints").mkdir()
    (folder / "last.ckpt").rename(folder / "checkpoints" / "last.ckpt")
    words = [f"--config={folder / 'config.yaml'}", f"--trainer.default_root_dir={tmp_path}"]
    return folder, [*words, "--trainer.enable_progress_bar=false"], RUNS[request.param]


def _config(name):
    return BEFORE.joinpath(name, "config.yaml").read_text()


@pytest.mark.few(1)
@pytest.mark.filterwarnings("ignore:The dirpath has changed")
def test_a_run_of_before_goes_on(run):
    folder, words, diagnostic = run
    before = read_history(folder / f"{diagnostic}.jsonl")
    steps = torch.load(folder / "checkpoints" / "last.ckpt")["global_step"]
    more = ["--trainer.max_epochs=-1", f"--trainer.max_steps={2 * steps}", "--on_resume=configured"]
    assert main(["fit", *words, *more, "--ckpt_path=last"]) == 0
    after = read_history(folder / f"{diagnostic}.jsonl")
    assert after[: len(before)] == before
    assert after[-1]["step"] > before[-1]["step"]
    newest = yaml.safe_load((folder / "config-1.yaml").read_text())
    assert newest == with_current_paths(newest)


@pytest.mark.few(1)
@pytest.mark.filterwarnings("ignore:The dirpath has changed")
def test_a_checkpoint_of_before_is_validated(run, capsys):
    folder, words, _ = run
    assert main(["validate", *words, f"--ckpt_path={folder / 'checkpoints' / 'last.ckpt'}"]) == 0
    assert "val/" in capsys.readouterr().out


def test_a_run_of_before_is_compared(run, capsys):
    folder, _, _ = run
    assert main(["compare", str(folder), "--out", str(folder / "out")]) == 0
    assert "BP" in capsys.readouterr().out


def test_a_checkpoint_of_before_is_loaded_in_python():
    rule = BP.load_from_checkpoint(BEFORE / "addition" / "last.ckpt")
    assert type(rule.net) is MicroAdder
    assert type(rule.task) is AdditionTask
