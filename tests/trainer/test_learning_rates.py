import math
from types import SimpleNamespace

import pytest
import torch

from lit_credit.trainer.learning_rates import learning_rate


def parameters(count=3):
    return [torch.nn.Parameter(torch.ones(2)) for _ in range(count)]


def rate(optimizer, some):
    return learning_rate(SimpleNamespace(optimizers=[optimizer]), some)


@pytest.mark.parametrize(
    ("options", "limit"),
    [
        ({}, 2),
        ({"momentum": 0.9}, 3.8),
        ({"momentum": 0.5, "nesterov": True}, 1.5),
        ({"momentum": 0.9, "dampening": 0.5}, math.nan),
    ],
)
def test_limit_of_gradient_descent_is_where_a_quadratic_begins_to_diverge(options, limit):
    found = rate(torch.optim.SGD(some := parameters(), lr=0.1, **options), some)
    assert found == (0.1, "SGD", pytest.approx(limit, nan_ok=True))
    if math.isnan(limit):
        return
    for factor, grows in ((0.98, False), (1.02, True)):
        x = torch.nn.Parameter(torch.ones(1, dtype=torch.float64))
        optimizer = torch.optim.SGD([x], lr=0.1, **options)
        for _ in range(2000):
            x.grad = limit * factor / 0.1 * x.detach()
            optimizer.step()
        assert (abs(x.item()) > 1) == grows


def test_adam_has_a_rate_and_no_limit():
    found = rate(torch.optim.AdamW(some := parameters(), lr=1e-3), some)
    assert (found.rate, found.optimizer) == (1e-3, "AdamW")
    assert math.isnan(found.limit)


def test_largest_rate_of_the_groups_that_hold_the_parameters():
    a, b, feedback = parameters()
    groups = [{"params": [a], "lr": 0.1}, {"params": [b], "lr": torch.tensor(0.5)}]
    optimizer = torch.optim.SGD([*groups, {"params": [feedback], "lr": 9.0}], lr=1.0)
    assert rate(optimizer, [a, b]).rate == 0.5
    assert rate(optimizer, [a]).rate == 0.1


@pytest.mark.parametrize("trainer", [None, SimpleNamespace(), SimpleNamespace(optimizers=[])])
def test_without_an_optimizer_the_rate_is_not_known(trainer):
    found = learning_rate(trainer, parameters())
    assert math.isnan(found.rate)
    assert math.isnan(found.limit)
