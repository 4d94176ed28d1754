"""Tensors at the borders of submodules."""

from typing import NamedTuple

import pytest
import torch
from torch import nn

from lit_credit.inspect.capture import Point, capture
from lit_credit.utils.nested import first_tensor, is_plain, map_tensors, replace_first


class Pair(NamedTuple):
    label: str
    value: torch.Tensor


class Outputs(dict):
    """A dict read by attribute, as some libraries return."""

    def __getattr__(self, name):
        return self[name]


class Unit(nn.Module):
    """Doubles, in the structure that it is told."""

    def __init__(self, form="tensor"):
        super().__init__()
        self.form = form

    def forward(self, h=None, *, extra=None):
        y = 2 * (first_tensor(h) if h is not None else first_tensor(extra))
        forms = {
            "tensor": y,
            "tuple": (y, None),
            "nested": [("text", {"a": y}), y + 1],
            "named": Pair("text", y),
            "dict": {"hidden": y, "n": 3},
            "mapping": Outputs(hidden=y),
        }
        return forms[self.form]


class Net(nn.Module):
    def __init__(self, form="tensor"):
        super().__init__()
        self.first = nn.Linear(3, 3)
        self.unit = Unit(form)

    def forward(self, x, style="argument"):
        h = self.first(x)
        y = self.unit(extra={"h": h}) if style == "keyword" else self.unit((h, 1))
        if self.unit.form == "mapping":
            assert isinstance(y, Outputs)
            y = y.hidden
        return first_tensor(y).square().sum()


@pytest.mark.parametrize("style", ["argument", "keyword"])
@pytest.mark.parametrize("form", ["tensor", "tuple", "nested", "named", "dict", "mapping"])
def test_structures_are_kept_and_gradients_are_exact(form, style):
    net, x = Net(form), torch.randn(4, 3)
    points = [Point("unit", "input"), Point("unit", "output")]
    with capture(net, points) as tensors:
        loss = net(x, style)
    h = net.first(x)
    torch.testing.assert_close(tensors[points[0]], h)
    torch.testing.assert_close(tensors[points[1]], 2 * h)
    gradients = torch.autograd.grad(loss, [tensors[point] for point in points])
    torch.testing.assert_close(gradients, (8 * h, 4 * h))


def test_behind_a_frozen_front_a_leaf_takes_the_place():
    net = Net().requires_grad_(False)
    x = torch.randn(4, 3)
    for side in ("input", "output"):
        point = Point("unit", side)
        with capture(net, [point]) as tensors:
            loss = net(x)
        assert tensors[point].is_leaf
        (gradient,) = torch.autograd.grad(loss, tensors[point])
        torch.testing.assert_close(gradient, (8 if side == "input" else 4) * net.first(x))
    assert not x.requires_grad


def test_without_autograd_only_values_are_read():
    net, point = Net(), Point("unit", "input")
    with torch.no_grad(), capture(net, [point]) as tensors:
        net(torch.ones(1, 3))
    assert not tensors[point].requires_grad


def test_operations_in_place_do_not_change_what_was_recorded():
    net = nn.Sequential(nn.Linear(3, 3), nn.ReLU(inplace=True), nn.Linear(3, 1))
    x = torch.randn(8, 3)
    points = [Point("0", "output"), Point("1", "input"), Point("1", "output")]
    with capture(net, points) as tensors:
        loss = net(x).sum()
    h = net[0](x)
    assert (h < 0).any()
    expected = [h, h, h.relu()]
    torch.testing.assert_close([tensors[p] for p in points], expected)
    before, inside, after = torch.autograd.grad(loss, [tensors[point] for point in points])
    torch.testing.assert_close(before, net[2].weight * (h > 0))
    torch.testing.assert_close(inside, before)
    torch.testing.assert_close(after, net[2].weight.expand(8, 3))


def test_the_first_of_several_passages_counts_and_a_point_not_passed_has_no_entry():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.idle = nn.Linear(2, 2), nn.Linear(2, 2)

        def forward(self, x):
            return self.layer(self.layer(x))

    net, x = Twice(), torch.randn(1, 2)
    with capture(net, [Point("layer", "output"), Point("idle", "output")]) as tensors:
        net(x)
    assert list(tensors) == [Point("layer", "output")]
    torch.testing.assert_close(tensors[Point("layer", "output")], net.layer(x))


def test_integers_are_not_captured():
    net = nn.Embedding(5, 3)
    with capture(net, [Point("", "input"), Point("", "output")]) as tensors:
        net(torch.tensor([1, 2]))
    assert list(tensors) == [Point("", "output")]


class Failing(Net):
    def forward(self, x):
        super().forward(x)
        raise RuntimeError("the net fails")


def hook_count(net):
    return sum(len(child._forward_hooks) + len(child._forward_pre_hooks) for child in net.modules())


@pytest.mark.parametrize("points", [["unit"], ["unit", "nowhere"]])
def test_no_hook_is_left_after_an_exception(points):
    net = Failing()
    with (
        pytest.raises((RuntimeError, AttributeError), match=r"the net fails|nowhere"),
        capture(net, [Point(name, side) for name in points for side in ("input", "output")]),
    ):
        net(torch.ones(1, 3))
    assert hook_count(net) == 0


def test_nested_structures():
    a, b = torch.zeros(1), torch.ones(1)
    value = {"text": "a", "pair": Pair("b", a), "list": [(b,), 3]}
    assert first_tensor(value) is a
    assert first_tensor({"text": ["a"]}) is None
    mapped = map_tensors(value, lambda t: t + 1)
    assert isinstance(mapped["pair"], Pair)
    assert mapped["pair"].value == 1
    assert mapped["list"] == [(torch.full((1,), 2.0),), 3]
    replaced = replace_first(value, b)
    assert replaced["pair"] == Pair("b", b)
    assert value["pair"].value is a
    assert isinstance(map_tensors(Outputs(x=a), torch.clone), Outputs)
    assert is_plain({"a": [a, (1, "b", None)]})
    assert not is_plain({"a": Pair("b", a)})
    assert not is_plain(Outputs(x=a))
