"""MuonAdamW against torch's two optimizers side by side."""

import copy

import pytest
import torch
from torch import nn

from lit_credit.models import ResidualMLP
from lit_credit.optimizers import MuonAdamW
from lit_credit.rules import DFA, FA
from lit_credit.tasks import Classification
from tests.support import seeded

pytestmark = pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch before 2.9")

X, Y = torch.randn(16, 8, generator=torch.Generator().manual_seed(0)), torch.arange(16) % 3


def net():
    return seeded(lambda: nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3)))


def groups(of):
    named = (("units", of[0]), ("readout", of[2]))
    return [{"params": list(part.parameters()), "name": name} for name, part in named]


def train(of, *optimizers, steps=5):
    for _ in range(steps):
        of.zero_grad()
        nn.functional.cross_entropy(of(X), Y).backward()
        for optimizer in optimizers:
            optimizer.step()


def same(a, b):
    return all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


def test_it_equals_muon_on_matrices_beside_adamw_on_the_rest():
    one, two = net(), net()
    train(one, MuonAdamW(groups(one), lr=0.01, weight_decay=0.1))
    options = {"lr": 0.01, "weight_decay": 0.1}
    muon = torch.optim.Muon([two[0].weight], **options, adjust_lr_fn="match_rms_adamw")
    train(two, muon, torch.optim.AdamW([two[0].bias, *two[2].parameters()], **options))
    assert same(one, two)
    assert not same(one, net())


def test_groups_have_an_algorithm_and_options_of_their_own():
    of = net()
    optimizer = MuonAdamW([{**group, "lr": 0.5} for group in groups(of)])
    found = [(g["name"], g["algorithm"], g["lr"], len(g["params"])) for g in optimizer.param_groups]
    assert found == [
        ("units", "muon", 0.5, 1),
        ("units", "adamw", 0.5, 1),
        ("readout", "adamw", 0.5, 2),
    ]
    optimizer = MuonAdamW(groups(of), adamw_groups=("units",))
    assert [g["algorithm"] for g in optimizer.param_groups] == ["adamw", "muon", "adamw"]


@pytest.mark.parametrize("kept", ["muon", "adamw"])
def test_one_of_the_two_may_have_no_parameters(kept):
    shape = (4, 3) if kept == "muon" else (4,)
    parameter = nn.Parameter(torch.ones(shape))
    optimizer = MuonAdamW([parameter])
    parameter.grad = torch.ones(shape)
    optimizer.step()
    assert [group["algorithm"] for group in optimizer.param_groups] == [kept]
    assert not torch.equal(parameter, torch.ones(shape))


@pytest.mark.parametrize("way", ["state_dict", "deepcopy"])
def test_a_loaded_or_copied_optimizer_goes_on_to_the_bit(way):
    of = net()
    optimizer = MuonAdamW(groups(of), lr=0.01)
    train(of, optimizer)
    if way == "state_dict":
        other = copy.deepcopy(of)
        again = MuonAdamW(groups(other), lr=0.7)
        again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    else:
        other, again = copy.deepcopy((of, optimizer))
    train(of, optimizer)
    train(other, again)
    assert same(of, other)


def test_a_parameter_group_can_be_added_later():
    of = net()
    optimizer = MuonAdamW(groups(of)[:1])
    optimizer.add_param_group(groups(of)[1])
    before = copy.deepcopy(of)
    train(of, optimizer, steps=1)
    assert not any(
        torch.equal(*pair) for pair in zip(of.parameters(), before.parameters(), strict=True)
    )


def test_the_closure_is_called_once_with_gradients():
    of, calls = net(), []
    optimizer = MuonAdamW(of.parameters())

    def closure():
        calls.append(torch.is_grad_enabled())
        loss = nn.functional.cross_entropy(of(X), Y)
        loss.backward()
        return loss

    assert torch.isfinite(optimizer.step(closure))
    assert calls == [True]


@pytest.mark.parametrize("rule", [FA, DFA])
def test_a_rule_trains_the_matrices_of_its_units_by_muon(rule):
    module = rule(
        task=Classification(),
        net=ResidualMLP(8, 6, 3, depth=2),
        optimizer=lambda params: MuonAdamW(params, lr=0.01),
    )
    (optimizer,) = [module.configure_optimizers()]
    found = optimizer["optimizer"] if isinstance(optimizer, dict) else optimizer
    muon = [p for g in found.param_groups if g["algorithm"] == "muon" for p in g["params"]]
    names = {name for name, p in module.named_parameters() if any(p is q for q in muon)}
    weights = ["blocks.0.w1", "blocks.0.w2", "blocks.1.w1", "blocks.1.w2", "embed"]
    assert names == {f"net.{name}.weight" for name in weights}


def test_without_torchs_muon_an_error_says_what_to_install(monkeypatch):
    monkeypatch.delattr(torch.optim, "Muon")
    with pytest.raises(ImportError, match=r"Install torch 2\.9"):
        MuonAdamW(net().parameters())
