"""Options of the optimizer for a part of the parameters."""

import pytest
import torch

from lit_credit.models import ResidualMLP
from lit_credit.rules import BP, KolenPollack, LocalLosses
from lit_credit.tasks import Classification
from tests.support import images, loader, quiet_trainer, seeded


def rule(kind=BP, options=None, **kwargs):
    def make():
        net = ResidualMLP(20, width=12, num_classes=5, depth=2)
        return kind(net, Classification(5), group_options=options, **kwargs)

    return seeded(make)


def groups(r):
    """Options and parameters of each group, which must hold every parameter of the rule once."""
    found = r.configure_optimizers().param_groups
    held = [id(p) for group in found for p in group["params"]]
    assert sorted(held) == sorted({id(p) for p in r.parameters()})
    return {group["name"]: group for group in found}


def names_in(r, group):
    held = {id(p) for p in group["params"]}
    return {name for name, p in r.net.named_parameters() if id(p) in held}


def test_a_group_and_the_biases_have_their_own_options():
    r = rule(options={"readout": {"lr": 0.5}, "biases": {"weight_decay": 0.0, "lr": 0.25}})
    found = groups(r)
    assert {name: group["lr"] for name, group in found.items()} == {
        "units": 1e-3,
        "readout": 0.5,
        "biases": 0.25,
    }
    assert {name: group["weight_decay"] for name, group in found.items()} == {
        "units": 0.01,
        "readout": 0.01,
        "biases": 0.0,
    }
    every = {name for name, _ in r.net.named_parameters()}
    assert names_in(r, found["biases"]) == {name for name in every if name.endswith("bias")}


def test_parameters_of_a_pattern_are_a_group_of_its_name():
    found = groups(r := rule(options={"blocks.*.w1.weight": {"lr": 0.5}}))
    assert names_in(r, found["blocks.*.w1.weight"]) == {"blocks.0.w1.weight", "blocks.1.w1.weight"}
    assert found["blocks.*.w1.weight"]["lr"] == 0.5
    assert found["units"]["lr"] == 1e-3


def test_matrices_that_learn_and_heads_are_groups():
    assert groups(rule(KolenPollack, {"feedback": {"lr": 0.5}}))["feedback"]["lr"] == 0.5
    r = rule(LocalLosses, {"heads": {"weight_decay": 0.5}}, loss="pred")
    r.prepare(images())
    assert groups(r)["heads"]["weight_decay"] == 0.5


def test_a_group_that_stands_still_is_the_only_one():
    r = rule(options={"biases": {"lr": 0.0}}, optimizer=lambda p: torch.optim.SGD(p, lr=0.1))
    before = {name: p.detach().clone() for name, p in r.net.named_parameters()}
    quiet_trainer(max_steps=3).fit(r, loader())
    for name, parameter in r.net.named_parameters():
        assert torch.equal(parameter, before[name]) == name.endswith("bias"), name


def test_a_scheduler_keeps_the_ratios():
    def halve(optimizer):
        return torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)

    r = rule(options={"readout": {"lr": 0.01}}, lr_scheduler=halve, lr_interval="step")
    trainer = quiet_trainer(max_steps=3)
    trainer.fit(r, loader())
    rates = {group["name"]: group["lr"] for group in trainer.optimizers[0].param_groups}
    assert rates == {"units": pytest.approx(1e-3 / 8), "readout": pytest.approx(0.01 / 8)}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"readout": {"lrr": 0.1}}, r"`group_options\['readout'\]` has 'lrr'.* Choose from: .*lr"),
        ({"feedback": {"lr": 0.1}}, r"'feedback' is not a parameter group .*units, readout"),
        ({"block.*": {"lr": 0.1}}, r"'block\.\*' is not a parameter group and matches no"),
        ({"biases": {"lr": 0.1}, "blocks.*": {"lr": 0.2}}, r"'blocks\.\*' and 'biases' match the"),
        ({"readout": {"lr": float("nan")}}, "nan"),
        ({"readout": {"lr": -1.0}}, r"`group_options\['readout'\]`: `lr` is -1.0, expected"),
        (
            {"readout": {"lr": "fast"}},
            r"`group_options\['readout'\]`: `lr` is 'fast', expected a nu",
        ),
        ({"readout": 0.1}, r"`group_options\['readout'\]` is 0.1, expected options"),
        ([0.1], r"`group_options` is \[0.1\], expected options by the name of a group"),
    ],
)
def test_what_does_not_fit_is_refused(options, words):
    with pytest.raises(ValueError, match=words):
        rule(options=options).configure_optimizers()
