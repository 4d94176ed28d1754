"""Weights of other projects into a net."""

import argparse

import pytest
import torch

from lit_credit.cli import main
from lit_credit.models import ResidualMLP
from lit_credit.rules import BP, FA
from lit_credit.runs.foreign_weights import load_weights
from lit_credit.tasks import Classification
from tests.support.resumable import mlp, same

PREFIXES = ["", "net.", "model.", "module.", "_orig_mod.", "student.net.", "model.module."]
WRAPPERS = [None, "state_dict", "model_state_dict", "model"]


def written(path, state, prefix="", wrapper=None, **others):
    named = {f"{prefix}{name}": value for name, value in state.items()}
    torch.save(named | others if wrapper is None else {wrapper: named | others, "epoch": 3}, path)
    return path


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_weights_load_below_any_prefix(prefix, wrapper, tmp_path):
    state, net = mlp().state_dict(), mlp()
    others = {"loss.weight": torch.ones(3)} if prefix else {}
    load_weights(net, written(tmp_path / "a.pt", state, prefix, wrapper, **others))
    same(net.state_dict(), state)


def test_what_a_rule_has_saved_is_such_a_file_too(tmp_path):
    source, net = BP(mlp(), Classification(5)), mlp()
    load_weights(net, written(tmp_path / "a.pt", source.state_dict(), wrapper="state_dict"))
    same(net.state_dict(), source.net.state_dict())


def test_fixed_feedback_stays_as_drawn(tmp_path):
    state, rule = mlp().state_dict(), FA(mlp(), Classification(5))
    drawn = {n: v.clone() for n, v in rule.net.state_dict().items() if n not in state}
    assert drawn
    load_weights(rule.net, written(tmp_path / "a.pt", state))
    same(rule.net.state_dict(), state | drawn)


def test_a_misfit_lists_the_tensors_and_changes_nothing(tmp_path):
    net = mlp(depth=3)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    for state, says in (
        (mlp().state_dict(), r"6 missing \(blocks\.2\."),
        (mlp(depth=4).state_dict(), r"6 unexpected \(model\.blocks\.3\."),
        (mlp(depth=3, width=9).state_dict(), r"embed\.weight \(9, 20\) there, \(8, 20\) here"),
    ):
        path = written(tmp_path / "a.pt", state, "model.")
        with pytest.raises(ValueError, match=says) as raised:
            load_weights(net, path, "init_from")
        assert "`init_from`" in str(raised.value)
        assert "\n" not in str(raised.value)
        same(net.state_dict(), before)


def test_a_missing_buffer_is_a_misfit(tmp_path):
    net = torch.nn.BatchNorm1d(2)
    state = {name: value for name, value in net.state_dict().items() if name != "running_mean"}
    with pytest.raises(ValueError, match=r"1 missing \(running_mean\)"):
        load_weights(net, written(tmp_path / "a.pt", state))


@pytest.mark.parametrize("content", [{}, {"epoch": 3}, {"model": {"lr": 0.1}}, [1.0]])
def test_a_file_without_weights_is_refused(content, tmp_path):
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(ValueError, match=r"`path`: .*"):
        load_weights(mlp(), tmp_path / "a.pt")


WORDS = ["--model=BP", "--model.task=Classification", "--data=Digits"]
WORDS += ["--model.net=ResidualMLP", "--model.net.in_features=64", "--model.net.depth=1"]
WORDS += ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]


def test_the_command_line_starts_from_them(tmp_path, capsys):
    net = ResidualMLP(64, depth=1)
    path = written(tmp_path / "a.pt", net.state_dict(), "model.", "state_dict")
    place = [*WORDS, f"--trainer.default_root_dir={tmp_path}"]
    fit = ["fit", *place, "--trainer.max_epochs=1", "--trainer.limit_train_batches=1"]
    for command in (fit, ["test", *place]):
        assert main([*command, f"--ckpt_path={path}"]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert "no state of a run" in line
        assert "`--init_from`" in line
    start = [f"--init_from={path}", "--model.optimizer=torch.optim.SGD", "--model.optimizer.lr=0"]
    assert main([*fit, *start]) == 0
    saved = tmp_path / "BP" / "seed_42" / "checkpoints" / "last.ckpt"
    state = torch.load(saved, weights_only=True)["state_dict"]
    same({name: state[f"net.{name}"] for name in net.state_dict()}, net.state_dict())
    assert main(["test", *place, f"--init_from={path}"]) == 0
    # The same command goes on after a kill: its own checkpoint has the weights of now.
    assert main([*fit, *start, "--ckpt_path=last", "--trainer.max_epochs=2"]) == 0
    capsys.readouterr()
    assert main([*fit, *start, f"--ckpt_path={saved}"]) == 1
    assert "Leave one of them out" in capsys.readouterr().err


@pytest.mark.parametrize("key", ["net", "weights", "params", "generator"])
def test_the_only_state_dict_of_a_file_is_taken_whatever_its_key(key, tmp_path):
    state, net = mlp().state_dict(), mlp()
    torch.save({key: state, "optimizer": {"state": {}}, "epoch": 3}, tmp_path / "a.pt")
    load_weights(net, tmp_path / "a.pt")
    same(net.state_dict(), state)


def test_of_two_nets_none_is_guessed(tmp_path):
    """A student and its teacher: which one was taken hung on the hash of their names."""
    net, state = mlp(), mlp().state_dict()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    both = {f"{who}.{n}": v for who in ("student", "teacher") for n, v in state.items()}
    for holds in ({"state_dict": both}, {"student": state, "teacher": state}):
        torch.save(holds, tmp_path / "a.pt")
        with pytest.raises(ValueError, match=r"2 nets.*student.*teacher"):
            load_weights(net, tmp_path / "a.pt")
        same(net.state_dict(), before)
    other = {f"teacher.{n}": v for n, v in mlp(width=9).state_dict().items()}
    torch.save({f"student.{n}": v for n, v in state.items()} | other, tmp_path / "a.pt")
    load_weights(net, tmp_path / "a.pt")  # the other one is of other shapes
    same(net.state_dict(), state)


def test_of_a_shared_tensor_one_name_is_enough(tmp_path):
    def tied():
        net = torch.nn.ModuleDict({"a": torch.nn.Linear(3, 3), "b": torch.nn.Linear(3, 3)})
        net["b"].weight = net["a"].weight
        return net

    source, net = tied(), tied()
    state = source.state_dict()
    del state["b.weight"]
    torch.save(state, tmp_path / "a.pt")
    load_weights(net, tmp_path / "a.pt")
    same(net.state_dict(), source.state_dict())


def test_code_in_a_file_is_named(tmp_path):
    torch.save({"model": mlp().state_dict(), "of": argparse.Namespace(a=1)}, tmp_path / "a.pt")
    with pytest.raises(ValueError, match=r"holds argparse\.Namespace, and reading that can run"):
        load_weights(mlp(), tmp_path / "a.pt")
