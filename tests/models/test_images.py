"""LeNet and ResNet: the papers' sizes, units that end behind the nonlinearity, learning rules."""

import pytest
import torch

from lit_credit.models import LeNet, ResNet
from lit_credit.rules import BP, DFA, FA, BlockFA
from lit_credit.tasks import Classification
from tests.support import seeded


def parameters(net):
    return sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize(
    ("make", "count"),
    [
        (LeNet, 61_706),
        (lambda: LeNet(3, 32), 62_006),
        (lambda: ResNet(20), 269_722),  # .27M in the paper, as .46M, .66M, .85M and 1.7M below
        (lambda: ResNet(32), 464_154),
        (lambda: ResNet(44), 658_586),
        (lambda: ResNet(56), 853_018),
        (lambda: ResNet(110), 1_727_962),
        (lambda: ResNet(20, shortcut="B"), 272_474),
    ],
)
def test_parameters_are_those_of_the_papers(make, count):
    with torch.device("meta"):
        assert parameters(make()) == count


SMALL = {
    "lenet": (lambda: LeNet(3, 32, (2, 3), (8, 6)), (3, 32, 32)),
    "lenet mnist": (lambda: LeNet(activation="relu", pooling="max"), (1, 28, 28)),
    "resnet A": (lambda: ResNet(8, width=4), (3, 32, 32)),
    "resnet B": (lambda: ResNet(8, width=4, shortcut="B"), (3, 32, 32)),
}


@pytest.mark.parametrize("kind", [BP, FA, DFA, BlockFA])
@pytest.mark.parametrize("name", SMALL)
def test_every_parameter_learns_under_every_rule(name, kind):
    make, shape = SMALL[name]
    rule = kind(seeded(make), Classification(10))
    batch = torch.randn(4, *shape), torch.arange(4)
    assert rule.net(batch[0]).shape == (4, 10)
    rule.surrogate(batch)[1].backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in rule.net.parameters())


def test_units_end_behind_the_nonlinearity():
    net, seen = ResNet(8, width=4), {}
    for name in net.credit_units:
        net.get_submodule(name).register_forward_hook(
            lambda module, args, output, name=name: seen.update({name: output})
        )
    net(torch.randn(2, 3, 32, 32))
    assert all((output >= 0).all() and (output == 0).any() for output in seen.values())
    assert [output.shape[1:] for output in seen.values()] == [
        (4, 32, 32),
        (4, 32, 32),
        (8, 16, 16),
        (16, 8, 8),
    ]


def test_the_shortcut_without_parameters_subsamples_and_appends_zero_channels():
    block = ResNet(8, width=4).blocks[1].eval()
    torch.nn.init.zeros_(block.conv2.weight)
    h = torch.rand(2, 4, 6, 6)
    output = block(h)
    assert torch.equal(output[:, :4], h[:, :, ::2, ::2])
    assert not output[:, 4:].any()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ResNet(18), r"`depth` is 18, expected 6 n \+ 2"),
        (lambda: ResNet(2), r"`depth` is 2, expected 6 n"),
        (lambda: ResNet(shortcut="C"), r"`shortcut` is 'C', expected 'A' or 'B'"),
        (lambda: LeNet(image_size=64), r"`image_size` is 64, expected 28"),
        (lambda: LeNet(channels=[6]), r"`channels` is \[6\], expected two"),
        (lambda: LeNet(pooling="sum"), r"`pooling` is 'sum'"),
        (lambda: LeNet()(torch.zeros(2, 3, 32, 32)), r"takes images \(N, 1, 28, 28\).*\(2, 3, 32"),
        (lambda: ResNet(8)(torch.zeros(2, 3072)), r"takes images \(N, 3, H, W\).*\(2, 3072\)"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
