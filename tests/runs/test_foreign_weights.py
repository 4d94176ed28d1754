"""Weights of other projects into a net."""

import argparse
import re

import pytest
import torch
from lightning.pytorch import LightningModule
from torch import nn

from lit_credit.cli import main
from lit_credit.inspect.plain_module import plain_module
from lit_credit.models import ResidualMLP
from lit_credit.rules import BP, DFA, FA
from lit_credit.runs.foreign_weights import copied_equal, fitted, load_weights
from lit_credit.runs.weight_files import read_saved
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


def test_a_key_says_which_net_is_meant(tmp_path):
    state, other = mlp().state_dict(), mlp().state_dict()
    flat = {
        f"{w}.{n}": v for w, s in (("student", state), ("teacher", other)) for n, v in s.items()
    }
    for holds, key in (
        ({"student": state, "teacher": other}, "student"),
        ({"state_dict": flat}, "student"),
        ({"train": {"ema": other, "model": state}}, "train.model"),
        ({"model.raw": state, "model.ema": other}, "model.raw"),
        ({"train": {"state_dict": state}, "other": other}, "train"),
    ):
        net = mlp()
        torch.save(holds, tmp_path / "a.pt")
        load_weights(net, tmp_path / "a.pt", key=key)
        same(net.state_dict(), state)
        with pytest.raises(ValueError, match=r"`key` is 'tacher'.*Choose from"):
            load_weights(net, tmp_path / "a.pt", key="tacher")


@pytest.mark.parametrize("extra", [{"rng": torch.get_rng_state()}, {"losses": torch.ones(3)}])
def test_tensors_beside_the_weights_are_not_the_weights(extra, tmp_path):
    state, net = mlp().state_dict(), mlp()
    torch.save({"generator": {"net": state}, **extra}, tmp_path / "a.pt")
    load_weights(net, tmp_path / "a.pt")
    same(net.state_dict(), state)


WHOLE = {
    "bare": lambda net: net,
    "plain module": plain_module,
    "rule": lambda net: BP(net, Classification(5)),
    "compiled": torch.compile,
    "compiled inside": lambda net: plain_module(torch.compile(net)),
    "data parallel": nn.DataParallel,
    "averaged": torch.optim.swa_utils.AveragedModel,
}
"""Modules that hold a net as all that they train."""


@pytest.mark.parametrize("there", WHOLE)
@pytest.mark.parametrize("here", [name for name in WHOLE if name != "averaged"])
def test_names_of_wrappers_count_on_neither_side(there, here):
    source, net = mlp(), mlp()
    module, saved = WHOLE[here](net), WHOLE[there](source).state_dict()
    found = fitted(module, {"state_dict": saved}, "a.pt")
    assert copied_equal(module, found.tensors) is False
    same(net.state_dict(), source.state_dict())
    assert found.ignored == (["n_averaged"] if there == "averaged" else [])


def test_names_of_wrappers_count_in_the_middle_too():
    net = nn.ModuleDict({"a": mlp(), "b": nn.Linear(2, 2)})
    for inner in ("_orig_mod.", "module.", "_fsdp_wrapped_module._checkpoint_wrapped_module."):
        state = {n.replace("a.", f"a.{inner}", 1): v for n, v in net.state_dict().items()}
        assert fitted(net, {"state_dict": state}, "a.pt").tensors.keys() == net.state_dict().keys()


def layered(layers="blocks", first="fc1"):
    parts = [nn.ModuleDict({first: nn.Linear(3, 3)}) for _ in range(12)]
    return nn.ModuleDict({layers: nn.ModuleList(parts), "head": nn.Linear(3, 1)})


def below(*path):
    """A net of two layers at a path of names, beside a head."""
    inner = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    for name in reversed(path):
        inner = nn.ModuleDict({name: inner})
    inner.add_module("head", nn.Linear(2, 2))
    return inner


def renamed(net, **names):
    state = net.state_dict()
    return {".".join(names.get(p, p) for p in name.split(".")): v for name, v in state.items()}


def part(net, prefix):
    return {n[len(prefix) :]: v for n, v in net.state_dict().items() if n.startswith(prefix)}


NORMS = nn.ModuleList([nn.LayerNorm(3), nn.LayerNorm(3)])
MISFITS = {
    "one part": (layered(), layered("layers").state_dict(), "`layers` renamed to `blocks`"),
    "two parts": (layered(), layered("layers", "lin").state_dict(), "`blocks` and `lin` renamed"),
    "ends": (NORMS, renamed(NORMS, weight="gamma", bias="beta"), "`gamma` renamed to `weight`"),
    "inserted": (below("a", "mlp"), below("a").state_dict(), "`0` renamed to `mlp.0`"),
    "removed": (below("a"), below("a", "mlp").state_dict(), "`mlp.0` renamed to `0`"),
    "of a part": (below("a", "b"), part(below("a", "b"), "a."), "fit below `a.`: they are a part"),
    "feedback": (mlp(), FA(mlp(), Classification(5)).net.state_dict(), "They are feedback"),
    "another net": (layered(), mlp().state_dict(), "Build the net that they were saved from"),
}


@pytest.mark.parametrize("kind", MISFITS)
def test_a_misfit_names_what_would_fit(kind):
    net, state, says = MISFITS[kind]
    with pytest.raises(ValueError, match=re.escape(says)):
        fitted(net, {"state_dict": state}, "a.pt")


def test_ten_names_of_each_side_are_shown():
    with pytest.raises(ValueError, match=r"24 missing \(.* and 14 more\), 24 unexpected") as raised:
        fitted(layered(), {"state_dict": layered("layers").state_dict()}, "a.pt")
    assert str(raised.value).count("layers.") == 10


class Rotary(nn.Module):
    """Buffers as libraries save them in one version, and not in another."""

    def __init__(self, saved):
        super().__init__()
        self.fc = nn.Linear(2, 2)
        self.register_buffer("inv_freq", torch.ones(2), persistent=saved)
        self.register_buffer("bias", torch.ones(1, 1, 4, 4).tril(), persistent=saved)
        self.register_buffer("masked_bias", torch.tensor(-1e4), persistent=saved)


def test_buffers_that_follow_from_the_arguments_may_be_saved_or_not():
    old, new = Rotary(True), Rotary(False)
    found = fitted(new, {"state_dict": old.state_dict()}, "a.pt")
    assert set(found.ignored) == {"inv_freq", "bias", "masked_bias"}
    assert fitted(old, {"state_dict": new.state_dict()}, "a.pt").ignored == []
    plain = nn.ModuleDict({"fc": nn.Linear(2, 2)})
    assert len(fitted(plain, {"state_dict": old.state_dict()}, "a.pt").ignored) == 3
    odd = {**old.state_dict(), "bias": torch.ones(1, 1, 4, 4)}  # not a mask, so it may be learned
    with pytest.raises(ValueError, match=r"1 unexpected \(bias\)"):
        fitted(plain, {"state_dict": odd}, "a.pt")


def test_what_is_ignored_is_said(tmp_path, caplog):
    torch.save(Rotary(True).state_dict(), tmp_path / "a.pt")
    with caplog.at_level("INFO"):
        load_weights(Rotary(False), tmp_path / "a.pt")
    assert "Rotary does not need inv_freq, bias, masked_bias" in caplog.text


def test_a_run_of_dfa_is_read_before_and_after_its_feedback_is_drawn():
    early, late = (DFA(mlp(), Classification(5)) for _ in range(2))
    late.surrogate((torch.ones(2, 20), torch.zeros(2).long()))[0].backward()
    drawn = late.state_dict()["feedback.matrix"]
    found = fitted(early, {"state_dict": late.state_dict()}, "a.pt")
    assert not copied_equal(early, found.tensors)
    assert torch.equal(early.state_dict()["feedback.matrix"], drawn)
    undrawn = DFA(mlp(), Classification(5)).state_dict()
    assert "feedback.matrix" in fitted(late, {"state_dict": undrawn}, "a.pt").feedback


def test_feedback_that_the_file_lacks_is_told():
    module = FA(mlp(), Classification(5))
    found = fitted(module, {"state_dict": mlp().state_dict()}, "a.pt")
    assert found.feedback == [n for n in module.state_dict() if n.endswith("feedback")]


NAMED = {
    "GPT2LMHeadModel": {"n_layer": 2, "n_embd": 16, "n_head": 2, "n_positions": 8},
    "GPTNeoXForCausalLM": {"num_hidden_layers": 2, "hidden_size": 16, "num_attention_heads": 2},
}
"""Models of Hugging Face; the second is saved under other names than it has."""


@pytest.mark.parametrize("name", NAMED)
def test_what_hugging_face_saves_fits_its_model(name, tmp_path):
    transformers = pytest.importorskip("transformers")
    kind = getattr(transformers, name)
    sizes = {"vocab_size": 20, "bos_token_id": 0, "eos_token_id": 0, **NAMED[name]}
    if name != "GPT2LMHeadModel":
        sizes["intermediate_size"] = 16
    source, other = (kind(kind.config_class(**sizes)) for _ in range(2))
    source.save_pretrained(tmp_path)
    saved, module = read_saved(tmp_path), plain_module(other)
    before = torch.get_rng_state()
    saved["state_dict"] |= {"transformer.h.0.attn.masked_bias": torch.tensor(-1e4)}
    found = fitted(module, saved, "a folder")
    assert torch.equal(torch.get_rng_state(), before)
    assert found.ignored == ["transformer.h.0.attn.masked_bias"]
    copied_equal(module, found.tensors)
    same(other.state_dict(), source.state_dict())
    del saved["state_dict"][next(iter(saved["state_dict"]))]
    with pytest.raises(ValueError, match=r"missing"):
        fitted(module, saved, "a folder")


def test_code_in_a_file_is_named(tmp_path):
    torch.save({"model": mlp().state_dict(), "of": argparse.Namespace(a=1)}, tmp_path / "a.pt")
    with pytest.raises(ValueError, match=r"holds argparse\.Namespace, and reading that can run"):
        load_weights(mlp(), tmp_path / "a.pt")


class Adapted(LightningModule):
    """Saves its head alone."""

    def __init__(self):
        super().__init__()
        self.back, self.head = nn.Linear(2, 2), nn.Linear(2, 1)


def test_a_module_that_loads_not_strictly_keeps_what_a_file_lacks():
    module = Adapted()
    head = {f"head.{name}": value for name, value in nn.Linear(2, 1).state_dict().items()}
    with pytest.raises(ValueError, match=r"2 missing \(back"):
        fitted(module, {"state_dict": head}, "file")
    module.strict_loading = False
    found = fitted(module, {"state_dict": head}, "file")
    assert (list(found.tensors), found.kept) == (list(head), ["back.weight", "back.bias"])
    with pytest.raises(ValueError, match="4 missing"):
        fitted(module, {"state_dict": {"other": head["head.weight"]}}, "file")
