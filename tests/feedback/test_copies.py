"""Feedback layers that are pickled, copied and traced."""

import copy
import io
import pickle

import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from torch import nn

from lit_credit.feedback import add_feedback, feedback_layers
from lit_credit.models import MLP
from lit_credit.rules import DFA, FA, BlockFA
from lit_credit.tasks import Classification
from tests.support import loader, quiet_trainer


class OwnLinear(nn.Linear):
    """A layer of somebody's own."""


class OwnConv(nn.Conv2d):
    """A layer of somebody's own."""


class OwnAttention(nn.MultiheadAttention):
    """A layer of somebody's own."""


class Attending(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention, self.own = nn.MultiheadAttention(4, 2), OwnAttention(4, 2)

    def forward(self, x):
        x = self.attention(x, x, x, need_weights=False)[0]
        return self.own(x, x, x, need_weights=False)[0]


def weight_normed():
    normed = nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))
    return add_feedback(nn.Sequential(normed, OwnLinear(4, 2)), leave_exact=["0"])


NETS = {
    "plain": lambda: add_feedback(nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))),
    "subclasses": lambda: add_feedback(nn.Sequential(OwnLinear(4, 3), nn.Tanh(), OwnLinear(3, 2))),
    "convolution": lambda: add_feedback(
        nn.Sequential(OwnConv(3, 2, 2), nn.Tanh(), OwnConv(2, 2, 2))
    ),
    "attention": lambda: add_feedback(Attending()),
    "signs": lambda: add_feedback(nn.Sequential(OwnLinear(4, 3)), sign="weight"),
}


def saved(net):
    file = io.BytesIO()
    torch.save(net, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def pickled(net):
    return pickle.loads(pickle.dumps(net))


def gradients(net, x):
    x = x.clone().requires_grad_()
    return torch.autograd.grad(net(x).square().sum(), [x, *net.parameters()])


def assert_alike(net, other, x):
    assert [type(part) for part in other.modules()] == [type(part) for part in net.modules()]
    for name, pair in feedback_layers(net).items():
        assert torch.equal(feedback_layers(other)[name].feedback, pair.feedback)
        assert feedback_layers(other)[name].feedback is not pair.feedback
    for a, b in zip(gradients(net, x), gradients(other, x), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("copied", [saved, pickled, copy.deepcopy])
@pytest.mark.parametrize("name", NETS)
def test_a_copy_has_the_feedback_and_the_backward(name, copied):
    x = torch.randn((2, 3, 4, 4) if name == "convolution" else (5, 3, 4))
    net = NETS[name]()
    assert_alike(net, copied(net), x)
    assert_alike(net, copied(copied(net)), x)


def test_a_net_with_a_computed_weight_is_copied():
    net = weight_normed()
    assert_alike(net, copy.deepcopy(net), torch.randn(3, 4))


@pytest.mark.filterwarnings("ignore:.*torch.jit.trace:FutureWarning")
@pytest.mark.filterwarnings("ignore:.*torch.jit.trace:DeprecationWarning")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("name", ["plain", "subclasses", "attention"])
def test_a_trace_computes_what_the_net_computes(name):
    net, x = NETS[name](), torch.randn(5, 3, 4)
    before = gradients(net, x)
    traced = torch.jit.trace(net, x)
    torch.testing.assert_close(traced(x), net(x))
    for a, b in zip(before, gradients(net, x), strict=True):
        assert torch.equal(a, b)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*validation_step:UserWarning")
@pytest.mark.parametrize("kind", [FA, DFA, BlockFA])
def test_a_fit_whose_logger_draws_the_graph_trains_the_same(kind, tmp_path):
    def trained(logger):
        torch.manual_seed(0)
        net = MLP(in_features=20, hidden=[12, 12], num_classes=5)
        rule = kind(net, Classification(5), feedback_seed=0)
        rule.example_input_array = torch.ones(2, 20)
        trainer = quiet_trainer(max_epochs=1, logger=logger, limit_val_batches=0)
        trainer.fit(rule, loader())
        return rule.net.state_dict()

    logger = TensorBoardLogger(tmp_path / "graph", log_graph=True)
    with_graph = trained(logger)
    plain = trained(TensorBoardLogger(tmp_path / "plain"))
    for name, value in plain.items():
        assert torch.equal(with_graph[name], value)
    sizes = [
        sum(path.stat().st_size for path in (tmp_path / name).rglob("events*"))
        for name in ("graph", "plain")
    ]
    assert sizes[0] > sizes[1] + 500
