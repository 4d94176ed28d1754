"""The schedule by hand."""

import math

import pytest
import torch

from lit_credit.rules import WarmupCosine


def test_rates_by_hand():
    weight = torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([{"params": [weight]}], lr=2.0)
    scheduler = WarmupCosine(optimizer, warmup=4, total=12, floor=0.1)
    rates = []
    for _ in range(16):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    falling = [0.1 + 0.9 * (1 + math.cos(math.pi * t / 8)) / 2 for t in range(9)]
    expected = [0.25, 0.5, 0.75, 1.0, *falling, 0.1, 0.1, 0.1]
    assert rates == pytest.approx([2 * x for x in expected])


def test_it_goes_on_from_its_state():
    def make():
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
        return optimizer, WarmupCosine(optimizer, warmup=2, total=9)

    (first, one), (second, other) = make(), make()
    for _ in range(5):
        first.step()
        one.step()
    other.load_state_dict(one.state_dict())
    second.load_state_dict(first.state_dict())
    for optimizer, scheduler in ((first, one), (second, other)):
        optimizer.step()
        scheduler.step()
    assert first.param_groups[0]["lr"] == second.param_groups[0]["lr"] != 1.0


def test_a_warmup_as_long_as_all_is_refused():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
    with pytest.raises(ValueError, match="`warmup` is 9"):
        WarmupCosine(optimizer, warmup=9, total=9)
    for floor in (-0.1, 10.0):
        with pytest.raises(
            ValueError, match=f"`floor` is {floor}, expected a number from 0 to 1. It is a share"
        ):
            WarmupCosine(optimizer, warmup=1, total=9, floor=floor)
