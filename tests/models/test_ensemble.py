"""Members of an ensemble against the same nets alone."""

import pytest
import torch
from lightning import seed_everything
from torch import nn
from torch.nn.utils import clip_grad_norm_

from lit_credit.models import Ensemble
from lit_credit.rules import BP, FA
from lit_credit.studies.addition import Addition, AdditionTask, MicroAdder
from lit_credit.tasks import EachMember
from tests.support import quiet_trainer

NETS = {
    "57p": {"norm": "shared", "tie_ffn": True},
    "62p": {},
    "wide": {"norm": "separate", "output": "full", "hidden": 16, "ffn_bias": True},
}


def adder(name="57p"):
    return MicroAdder(digits=4, **NETS[name])


def sums(**kwargs):
    options = {"batch_size": 64, "steps_per_epoch": 20, "val_size": 50, "val_chains": 5}
    return Addition(digits=4, seed=1, **options | kwargs)


def adamw(parameters):
    return torch.optim.AdamW(parameters, lr=0.01, weight_decay=0.01)


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("updates", [1, 5])
def test_a_member_learns_what_it_learns_alone(name, updates):
    def fit(net, task, updates_per_step):
        rule = BP(net, task, adamw, clip_norm=0.5, updates_per_step=updates_per_step)
        quiet_trainer(max_epochs=1).fit(rule, datamodule=sums())
        return net

    task = AdditionTask(4)
    together = Ensemble(lambda: adder(name), members=3, first_seed=5)
    start = together.member_state(1)
    fit(together, EachMember(task, 3), updates)
    seed_everything(6, verbose=False)
    alone = adder(name)
    for key, value in alone.state_dict().items():
        assert torch.equal(start[key], value), key
    fit(alone, task, 1)
    for key, value in alone.state_dict().items():
        torch.testing.assert_close(together.member_state(1)[key], value, rtol=1e-5, atol=1e-5)
    moved = (start["embed.digits.radius"] - alone.embed.digits.radius).abs().item()
    assert moved > 1e-2
    x = next(iter(sums().val_dataloader()))[0][:, :-1]
    torch.testing.assert_close(together(x)[1], together.member(1)(x))
    assert not torch.allclose(together(x)[0], together(x)[1])


def test_gradients_are_clipped_by_member():
    net = Ensemble(lambda: nn.Linear(3, 2), members=3, first_seed=0)
    torch.manual_seed(0)
    for p in net.parameters():
        p.grad = torch.randn_like(p) * torch.tensor([0.01, 1.0, 100.0]).view(
            -1, *[1] * (p.dim() - 1)
        )
    alone = [net.member(i) for i in range(3)]
    for i, one in enumerate(alone):
        one.weight.grad, one.bias.grad = (p.grad[i].clone() for p in net.parameters())
    norms = net.clip_grad_norm_(1.0)
    for i, one in enumerate(alone):
        torch.testing.assert_close(norms[i], clip_grad_norm_(one.parameters(), 1.0))
        torch.testing.assert_close(net.stacked.weight.grad[i], one.weight.grad)
        torch.testing.assert_close(net.stacked.bias.grad[i], one.bias.grad)
    assert norms[0] < 1 < norms[1] < norms[2]


def test_members_are_drawn_from_their_own_seeds_without_touching_the_global_one():
    state = torch.get_rng_state()
    first = Ensemble(adder, members=3, first_seed=7)
    second = Ensemble(adder, members=2, first_seed=8)
    assert torch.equal(torch.get_rng_state(), state)
    assert first.seeds.tolist() == [7, 8, 9]
    second.load_state_dict(Ensemble(adder, members=2, first_seed=3).state_dict())
    assert second.seeds.tolist() == [3, 4]
    second = Ensemble(adder, members=2, first_seed=8)
    for i in range(2):
        one, other = first.member_state(i + 1), second.member_state(i)
        assert all(torch.equal(value, other[name]) for name, value in one.items())
    assert not torch.equal(first.stacked.head.weight[0], first.stacked.head.weight[1])


def test_modules_and_parameters_in_two_places_stay_one():
    net = Ensemble(lambda: adder("57p"), members=2, first_seed=0)
    assert sum(p.numel() for p in net.parameters()) == 2 * 57
    x = torch.zeros(3, 15, dtype=torch.long)
    net(x).sum().backward()
    net(x)
    assert net.stacked.block.norm1.weight is net.stacked.norm.weight
    assert net.stacked.block.ffn.head is net.stacked.head
    assert net.stacked.head.weight.shape == (2, 2, 5)
    assert all(p.grad is not None for p in net.parameters())


def test_a_member_has_the_precision_of_the_ensemble():
    net = Ensemble(adder, members=2, first_seed=0).double()
    with torch.no_grad():
        net.stacked.head.weight.add_(1e-12)
    x = torch.zeros(3, 15, dtype=torch.long)
    assert torch.equal(net.member(1).head.weight, net.stacked.head.weight[1])
    torch.testing.assert_close(net.member(1)(x), net(x)[1], rtol=1e-10, atol=1e-10)


def test_the_loss_over_batches_is_weighted_by_sums_and_not_by_members():
    rule = BP(Ensemble(adder, members=2, first_seed=0), EachMember(AdditionTask(4), 2, ["exact"]))
    losses = []
    for size in (1000, 60):  # of 70 sums, 60 and 10
        trainer = quiet_trainer()
        found = trainer.validate(rule, datamodule=sums(val_batch_size=size), verbose=False)
        losses.append(found[0]["val/loss"])
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)


class Noisy(nn.Linear):
    def __init__(self):
        super().__init__(3, 2)
        self.register_buffer("noise", torch.randn(2))


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="buffer `noise` depends on the seed"):
        Ensemble(Noisy, members=2, first_seed=0)
    for units in (None, ["stacked.block"]):
        task = EachMember(AdditionTask(4), 2)
        with pytest.raises(ValueError, match=r"`clip_per_unit` is 1\.0, .* together"):
            BP(Ensemble(adder, members=2), task, units=units, clip_per_unit=1.0)
    with pytest.raises(ValueError, match="`members` is 0"):
        Ensemble(adder, members=0)
    with pytest.raises(ValueError, match=r"`stacked\.head` .*stacked"):
        FA(Ensemble(adder, members=2), EachMember(AdditionTask(4), 2))
    task = EachMember(AdditionTask(4), 3)
    batch = next(iter(sums().val_dataloader()))
    with pytest.raises(ValueError, match="`members` of the task is 3, but the net has 2"):
        task.loss(Ensemble(adder, members=2)(*task.inputs(batch)), batch)
    with pytest.raises(ValueError, match="`metrics` has accuracy, expected some of exact"):
        EachMember(AdditionTask(4), 3, metrics=["accuracy"])
