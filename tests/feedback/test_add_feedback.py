"""What is converted, shared, left exact, refused."""

import copy
import pickle
import re

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

from lit_credit.feedback import add_feedback, feedback_layers


class OwnForward(nn.Linear):
    def forward(self, input):
        return 2 * super().forward(input)


class OwnInit(nn.Linear):
    def __init__(self, width):
        super().__init__(width, width)
        self.note = "kept"

    def double_weight(self):
        return 2 * self.weight


class Tokens(nn.Module):
    """A raw matrix, a tied embedding and readout, and layers that are exact by nature."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(7, 4)
        self.position = nn.Parameter(torch.zeros(1, 3, 4))
        self.body = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm((3, 4)), nn.PReLU())
        self.readout = nn.Linear(4, 7)
        self.readout.weight = self.embedding.weight

    def forward(self, tokens):
        return self.readout(self.body(self.embedding(tokens) + self.position))


def test_parameters_keep_objects_and_names():
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Sequential(OwnInit(4)))
    parameters, modules = dict(net.named_parameters()), list(net.modules())
    keys = list(net.state_dict())
    assert add_feedback(net) is net
    assert all(parameter is parameters[name] for name, parameter in net.named_parameters())
    assert all(a is b for a, b in zip(net.modules(), modules, strict=True))
    assert set(net.state_dict()) == {*keys, "0.feedback", "2.0.feedback"}
    assert type(net[1]) is nn.BatchNorm1d
    assert isinstance(net[2][0], OwnInit)
    assert torch.equal(net[2][0].double_weight(), 2 * net[2][0].weight)
    assert not net[0].feedback.requires_grad


def test_state_dict_round_trip_and_strict_plain_weights():
    first, second = (add_feedback(nn.Sequential(nn.Linear(3, 4)), seed=seed) for seed in (0, 1))
    assert not torch.equal(first[0].feedback, second[0].feedback)
    second.load_state_dict(first.state_dict())
    assert torch.equal(first[0].feedback, second[0].feedback)
    plain = nn.Sequential(nn.Linear(3, 4))
    missing, unexpected = second.load_state_dict(plain.state_dict(), strict=False)
    assert (missing, unexpected) == (["0.feedback"], [])


def test_deepcopy_and_moves():
    net = add_feedback(nn.Sequential(nn.Linear(3, 4), OwnInit(4)), sign="weight")
    twin = copy.deepcopy(net).to(torch.float64)
    assert twin[0].feedback.dtype == torch.float64
    assert twin[0].recipe == net[0].recipe
    x = torch.randn(2, 3, dtype=torch.float64)
    twin(x).sum().backward()
    assert net[0].weight.grad is None
    layer = pickle.loads(pickle.dumps(net[0]))
    assert torch.equal(layer.feedback, net[0].feedback)
    assert layer.recipe == net[0].recipe
    assert net.to("meta")[0].feedback.is_meta


def test_seeds_and_names_make_the_matrices():
    make = lambda: nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))  # noqa: E731
    state = torch.get_rng_state()
    plain = make()
    torch.set_rng_state(state)
    net = add_feedback(make(), seed=1)
    assert torch.equal(plain[1].weight, net[1].weight)
    assert not torch.equal(net[0].feedback, net[1].feedback)
    assert torch.equal(net[1].feedback, add_feedback(make(), seed=1)[1].feedback)
    assert not torch.equal(net[1].feedback, add_feedback(make(), seed=2)[1].feedback)
    before = torch.get_rng_state()
    add_feedback(plain, distribution="orthogonal")
    assert torch.equal(torch.get_rng_state(), before)


def test_tied_weights_share_one_feedback():
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4))
    net[1].weight = net[0].weight
    net.append(net[2])
    add_feedback(net)
    assert net[1].feedback is net[0].feedback
    assert net[3] is net[2]
    assert net[2].feedback is not net[0].feedback
    twin = copy.deepcopy(net)
    assert twin[1].feedback is twin[0].feedback
    for name in ("0", "1", "2"):
        assert torch.equal(feedback_layers(net)[name].feedback, net.get_submodule(name).feedback)


@pytest.mark.parametrize("leave_exact", [[], ["position"]])
def test_tied_embedding_and_an_added_parameter_are_exact(leave_exact):
    net = add_feedback(Tokens(), leave_exact=leave_exact)
    assert list(feedback_layers(net)) == ["body.0", "readout"]
    assert net.embedding.weight is net.readout.weight
    assert type(net.embedding) is nn.Embedding
    net(torch.tensor([[1, 2, 3]])).sum().backward()
    assert net.position.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("pattern", "left"),
    [
        ("0", {"1", "2.0", "2.1"}),
        ("2", {"0", "1"}),
        ("2.*", {"0", "1"}),
        ("1.weight", {"0", "2.0", "2.1"}),
        ("1.bias", {"0", "1", "2.0", "2.1"}),
    ],
)
def test_leave_exact(pattern, left):
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Sequential(OwnInit(2), OwnInit(2)))
    assert set(feedback_layers(add_feedback(net, leave_exact=[pattern]))) == left


def test_leave_exact_must_match():
    message = "`leave_exact`: 'fc' matches nothing. Choose from: 0, 0.weight, 0.bias."
    with pytest.raises(ValueError, match=re.escape(message)):
        add_feedback(nn.Sequential(nn.Linear(2, 2)), leave_exact=["fc"])


def pruned():
    return prune.identity(nn.Linear(3, 3), "weight")


REFUSED = {
    "rnn": (nn.LSTM(3, 3), "`rnn.weight_ih_l0` (a parameter of LSTM)"),
    "bilinear": (nn.Bilinear(3, 3, 3), "`bilinear.weight` (a parameter of Bilinear)"),
    "up": (nn.ConvTranspose1d(3, 3, 2), "`up.weight` (a parameter of ConvTranspose1d)"),
    "whole": (
        nn.ParameterList([nn.Parameter(torch.ones(3, 3, dtype=torch.long), False)]),
        "`whole.0` (a parameter of Para",
    ),
    "own": (OwnForward(3, 3), "`own` (OwnForward: its forward is its own)"),
    "lazy": (nn.LazyLinear(3), "`lazy` (LazyLinear: not initialized"),
    "lazy_up": (nn.LazyConvTranspose1d(3, 2), "`lazy_up.weight` (a parameter of LazyConvTr"),
    "normed": (parametrizations.weight_norm(nn.Linear(3, 3)), "`normed` (ParametrizedLinear: its"),
    "pruned": (pruned(), "`pruned` (Linear: its weight is computed from other parameters)"),
    "complex": (nn.Linear(3, 3, dtype=torch.complex64), "`complex` (Linear: its weight is compl"),
    "bias_kv": (nn.MultiheadAttention(4, 2, add_bias_kv=True), "`bias_kv` (MultiheadAttention: ad"),
    "zero": (nn.MultiheadAttention(4, 2, add_zero_attn=True), "`zero` (MultiheadAttention: add_z"),
}


def test_all_refusals_at_once_and_nothing_changed():
    net = nn.ModuleDict({"fine": nn.Linear(3, 3), **{k: m for k, (m, _) in REFUSED.items()}})
    with pytest.raises(ValueError, match="leave_exact") as caught:
        add_feedback(net)
    for _, message in REFUSED.values():
        assert message in str(caught.value)
    assert type(net["fine"]) is nn.Linear
    assert "`fine" not in str(caught.value)
    add_feedback(net, leave_exact=list(REFUSED))
    assert list(feedback_layers(net)) == ["fine"]


def test_a_patched_forward_is_refused():
    layer = nn.Linear(3, 3)
    layer.forward = lambda x: x
    with pytest.raises(ValueError, match=re.escape("`the module itself` (Linear: its forward")):
        add_feedback(layer)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sign": "both"}, "`sign` is 'both'"),
        ({"distribution": "cauchy"}, "`distribution` is 'cauchy'"),
        ({"scale": float("inf")}, "`scale` is inf"),
    ],
)
def test_bad_arguments_change_nothing(arguments, message):
    net = nn.Sequential(nn.Linear(3, 3))
    with pytest.raises(ValueError, match=message):
        add_feedback(net, **arguments)
    assert type(net[0]) is nn.Linear
    assert list(net[0].buffers()) == []


def test_twice_is_refused():
    net = add_feedback(nn.Sequential(nn.Linear(3, 3)))
    with pytest.raises(ValueError, match="has feedback already, first in '0'"):
        add_feedback(net)


def test_an_optimizer_never_sees_the_feedback():
    net = add_feedback(nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)))
    before = net[1].feedback.clone()
    optimizer = torch.optim.AdamW(net.parameters(), weight_decay=0.5)
    net(torch.randn(2, 3)).sum().backward()
    optimizer.step()
    assert torch.equal(net[1].feedback, before)
    assert len(list(net.parameters())) == 4
