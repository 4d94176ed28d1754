"""A checkpoint of plain data that names code: refused before anything is imported or called."""

import copy
import sys

import pytest
import torch
import yaml

from lit_credit.cli import main
from lit_credit.models import ResidualMLP
from lit_credit.rules import BP, DFA
from lit_credit.rules.base import CreditRule

WORDS = ["--model=BP", "--model.task=Classification", "--data=Digits"]
WORDS += ["--model.net=ResidualMLP", "--model.net.in_features=64", "--model.net.depth=1"]
WORDS += ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]
WORDS += ["--trainer.limit_train_batches=1"]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    place = f"--trainer.default_root_dir={folder}"
    assert main(["fit", *WORDS, place, "--trainer.max_epochs=1"]) == 0
    path = folder / "BP" / "seed_42" / "checkpoints" / "last.ckpt"
    return torch.load(path, weights_only=True)


@pytest.fixture
def trap(tmp_path, monkeypatch):
    """A module that leaves a file when it is imported, and a command that would leave one."""
    trace = tmp_path / "trace"
    lines = [f"open({str(trace)!r}, 'w').close()", "import torch", "class X(torch.nn.Module): ..."]
    (tmp_path / "evil_mod.py").write_text("\n".join(lines) + "\ndef call(*_, **__): ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield trace
    assert not trace.exists()
    assert "evil_mod" not in sys.modules


def command(trace):
    return {"class_path": "os.system", "init_args": {"command": f"touch {trace}"}}


def evil(at):
    """A change of the arguments at ``at``, given the file that must not be made."""

    def of(value):
        def change(arguments, trace):
            made = value(trace) if callable(value) else value
            *path, last = at.split(".")
            node = arguments
            for name in path:
                node = node[name]
            node[last] = made

        return change

    return of


NESTED = {
    "class_path": "lit_credit.models.Ensemble",
    "init_args": {"net": {"class_path": "evil_mod.X"}},
}
CASES = {
    "an instantiator": evil("_instantiator")("evil_mod.call"),
    "os.system as instantiator": evil("_instantiator")("os.system"),
    "an instantiator that is no text": evil("_instantiator")(["evil_mod.call"]),
    "the class": evil("_class_path")("evil_mod.X"),
    "a class that is no rule": evil("_class_path")("subprocess.Popen"),
    "the net": evil("net")({"class_path": "evil_mod.X"}),
    "the net's name alone": evil("net")("evil_mod.X"),
    "the net as text": evil("net")("{class_path: evil_mod.X}"),
    "the net as text with escapes": evil("net")('{"class\\x5fpath": "evil_mod.X"}'),
    "a net in a net": evil("net")(NESTED),
    "the task": evil("task")({"class_path": "evil_mod.X"}),
    "the optimizer": evil("optimizer")({"class_path": "evil_mod.call"}),
    "os.system as optimizer": evil("optimizer")(command),
    "os.system by way of torch": evil("optimizer")(
        lambda trace: {**command(trace), "class_path": "torch.os.system"}
    ),
    "torch's own loader of code": evil("net")(
        {"class_path": "torch.hub.load", "init_args": {"repo_or_dir": "a/b"}}
    ),
    "a process as schedule": evil("lr_scheduler")(
        lambda trace: {
            "class_path": "subprocess.Popen",
            "init_args": {"args": ["touch", str(trace)]},
        }
    ),
    "an argument's name of a function": evil("task.init_args")({"loss": "evil_mod.call"}),
}


def changed(saved, folder, case, trace):
    checkpoint = {**saved, "hyper_parameters": copy.deepcopy(saved["hyper_parameters"])}
    CASES[case](checkpoint["hyper_parameters"], trace)
    torch.save(checkpoint, folder / "evil.ckpt")
    return folder / "evil.ckpt"


@pytest.mark.parametrize("case", CASES)
def test_it_is_refused_before_anything_is_imported(case, saved, tmp_path, trap):
    path = changed(saved, tmp_path, case, trap)
    for kind in (BP, CreditRule):
        with pytest.raises(ValueError, match="Nothing was imported or run") as raised:
            kind.load_from_checkpoint(path)
        assert "\n" not in str(raised.value)
        assert str(path) in str(raised.value)
    with path.open("rb") as file, pytest.raises(ValueError, match="Nothing was imported or run"):
        BP.load_from_checkpoint(file)


@pytest.mark.parametrize(
    "case", ["an instantiator", "the class", "the net", "os.system as optimizer"]
)
def test_the_command_line_refuses_it_too(case, saved, tmp_path, trap, capsys):
    path = changed(saved, tmp_path, case, trap)
    words = [*WORDS, f"--trainer.default_root_dir={tmp_path / 'run'}", f"--ckpt_path={path}"]
    for command in (["fit"], ["fit", "--on_resume=checkpoint"], ["test"]):
        assert main([*command, *words]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert "Nothing was imported or run" in line


def test_data_of_a_checkpoint_are_checked_before_they_are_taken(saved, tmp_path, trap, capsys):
    configuration = {
        **saved["configuration"],
        "data": {"class_path": "evil_mod.X", "init_args": {}},
    }
    path = tmp_path / "evil.ckpt"
    torch.save({**saved, "configuration": configuration}, path)
    words = [*WORDS, f"--trainer.default_root_dir={tmp_path / 'run'}", f"--ckpt_path={path}"]
    assert main(["fit", "--on_resume=checkpoint", *words]) == 1
    assert "`data.class_path`" in capsys.readouterr().err


def test_a_file_of_hyperparameters_is_checked_too(saved, tmp_path, trap):
    path = tmp_path / "good.ckpt"
    torch.save(saved, path)
    file = tmp_path / "hparams.yaml"
    file.write_text(
        yaml.safe_dump({**saved["hyper_parameters"], "net": {"class_path": "evil_mod.X"}})
    )
    with pytest.raises(ValueError, match=r"hparams\.yaml names 'evil_mod\.X'"):
        BP.load_from_checkpoint(path, hparams_file=file)


def test_what_is_of_the_rule_loads(saved, tmp_path):
    path = tmp_path / "good.ckpt"
    torch.save(saved, path)
    assert isinstance(BP.load_from_checkpoint(path).net, ResidualMLP)
    with pytest.raises(ValueError, match="of the rule BP, and this is DFA"):
        DFA.load_from_checkpoint(path)


class OwnNet(ResidualMLP):
    """Somebody's own, of a module that is loaded."""


def test_a_class_of_ones_own_loads_when_its_module_is_loaded(saved, tmp_path):
    arguments = copy.deepcopy(saved["hyper_parameters"])
    arguments["net"]["class_path"] = f"{__name__}.OwnNet"
    arguments["units"] = ["blocks.0"]
    torch.save({**saved, "hyper_parameters": arguments}, tmp_path / "own.ckpt")
    assert isinstance(BP.load_from_checkpoint(tmp_path / "own.ckpt").net, OwnNet)
