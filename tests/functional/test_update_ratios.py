"""Relative updates, and units that do nothing, against loops."""

import math

import pytest
import torch

from lit_credit.functional import dead_share, joint_norm, saturated_share, update_ratio


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_the_ratio_is_that_of_the_long_vectors():
    weights, updates = [drawn(3, 4), drawn(5, seed=1)], [drawn(3, 4, seed=2), drawn(5, seed=3)]
    squares = [sum(float(x) ** 2 for t in ts for x in t.flatten()) for ts in (updates, weights)]
    assert float(joint_norm(weights)) == pytest.approx(math.sqrt(squares[1]))
    assert float(update_ratio(updates, weights)) == pytest.approx(
        math.sqrt(squares[0] / squares[1])
    )


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_the_ratio_does_not_depend_on_the_unit(scale):
    weights, updates = [drawn(4)], [drawn(4, seed=1)]
    scaled = update_ratio([u * scale for u in updates], [w * scale for w in weights])
    assert float(scaled) == pytest.approx(float(update_ratio(updates, weights)), rel=1e-5)


@pytest.mark.parametrize(
    ("updates", "weights"),
    [([], []), ([torch.ones(2)], [torch.zeros(2)]), ([torch.tensor([math.inf])], [torch.ones(1)])],
)
def test_an_undefined_ratio_is_nan(updates, weights):
    assert math.isnan(update_ratio(updates, weights))


def test_dead_units_give_one_value_on_all_samples():
    values = drawn(50, 6).relu()
    values[:, 1] = 0.0
    values[:, 4] = 2.5  # constant, though not zero
    values[:, 5] = 1e-9 * drawn(50, seed=3)  # vanishes beside the others
    dead = [len({round(float(x), 5) for x in values[:, c]}) == 1 for c in range(6)]
    assert dead == [False, True, False, False, True, True]
    assert float(dead_share(values.amin(0), values.amax(0))) == 0.5
    assert float(dead_share(torch.zeros(3), torch.zeros(3))) == 1.0
    assert math.isnan(dead_share(torch.zeros(0), torch.zeros(0)))
    assert math.isnan(dead_share(torch.zeros(2), torch.tensor([1.0, math.inf])))


def test_saturated_values_lie_within_a_hundredth_of_a_bound():
    x = 4 * drawn(1000)
    for values, low, high in ((x.tanh(), -1, 1), (x.sigmoid(), 0, 1)):
        room = 0.01 * (high - low)
        at = sum(1 for v in values.tolist() if v <= low + room or v >= high - room)
        assert 100 < at < 900
        assert float(saturated_share(values, low, high)) == at / 1000
    assert math.isnan(saturated_share(torch.zeros(0), -1, 1))
