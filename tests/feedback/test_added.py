"""Parameters that no layer owns: those that are added are exact, those that multiply refused."""

import copy
import pickle
import re

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from lit_credit.feedback import add_feedback, exact_backward, feedback_layers

D, T = 4, 3
X = torch.randn(2, T, D, generator=torch.Generator().manual_seed(0))


class Around(nn.Module):
    """A layer, then something done with a parameter, then a layer."""

    def __init__(self, does, *shape):
        super().__init__()
        self.first, self.last = nn.Linear(D, D), nn.Linear(D, 2)
        self.p = nn.Parameter(torch.randn(shape, generator=torch.Generator().manual_seed(1)))
        self.norm = nn.LayerNorm(D)
        self.register_buffer("index", torch.arange(T).flip(0))
        self.gain = nn.Parameter(torch.ones(D))
        self.does = does

    def forward(self, x):
        return self.last(self.does(self, self.first(x)))


def written(m, h):
    h = h.clone()
    h[:, :1] = m.p
    return h


def scores(h, bias):
    return (h @ h.mT + bias).softmax(-1) @ h


def biased(h, bias):
    return F.scaled_dot_product_attention(h[:, None], h[:, None], h[:, None], bias)[:, 0]


def interpolated(m, h):
    return h + F.interpolate(m.p.mT, size=T, mode="linear").mT


def latents(m, h):
    q = m.first(m.norm(m.p)).expand(len(h), -1, -1)
    return F.scaled_dot_product_attention(q, h, h)


ADDED = {
    "position": (lambda m, h: h + m.p, (1, T, D)),
    "position of rows": (lambda m, h: h + m.p[m.index], (T, D)),
    "class token": (lambda m, h: torch.cat([m.p.expand(len(h), -1, -1), h], 1), (1, 1, D)),
    "stacked": (lambda m, h: torch.stack([h, m.p.expand_as(h)], 1), (1, T, D)),
    "written in place": (written, (1, D)),
    "added in place": (lambda m, h: h.clone().add_(m.p), (T, D)),
    "padded": (lambda m, h: h + F.pad(m.p, (0, 0, 0, 1)), (1, T - 1, D)),
    "interpolated": (interpolated, (1, 2, D)),
    "mask token": (lambda m, h: torch.where(h > 0, m.p, h), (1, 1, D)),
    "table of biases": (lambda m, h: scores(h, m.p[m.index][:, m.index]), (T, T)),
    "mask of attention": (lambda m, h: biased(h, m.p), (1, 1, T, T)),
    "scaled": (lambda m, h: h + 0.1 * m.gain * m.norm(m.p).tanh(), (1, T, D)),
    "latents": (latents, (1, 2, D)),
    "layer scale": (lambda m, h: h * m.p, (1, D)),
    "gain of channels": (lambda m, h: (h.mT * m.p).mT, (D, 1)),
    "divided": (lambda m, h: h / (m.p.square() + 1), (1, D)),
    "norm of two dimensions": (lambda m, h: F.layer_norm(h, (T, D), m.p, m.p), (T, D)),
    "lookup": (lambda m, h: h + F.embedding(m.index, m.p), (T, D)),
}


@pytest.mark.parametrize("case", ADDED)
def test_what_is_added_or_a_gain_is_exact(case):
    does, shape = ADDED[case]
    plain = Around(does, *shape)
    for net in (
        add_feedback(copy.deepcopy(plain), distribution="weight"),
        add_feedback(copy.deepcopy(plain)),
    ):
        exact = all(torch.equal(p.feedback, p.weight) for p in feedback_layers(net).values())
        net(X).sum().backward()
        plain.zero_grad()
        plain(X).sum().backward()
        for (name, mine), true in zip(net.named_parameters(), plain.parameters(), strict=True):
            if (exact or name.startswith("last")) and true.grad is not None:
                torch.testing.assert_close(mine.grad, true.grad)


MATRICES = {
    "matmul": (lambda m, h: h @ m.p, (D, D), "MmBackward0|BmmBackward0"),
    "einsum": (lambda m, h: torch.einsum("nti,oi->nto", h, m.p), (D, D), "BmmBackward0"),
    "linear": (lambda m, h: F.linear(h, m.p, m.gain), (D, D), "Addmm|View"),
    "left": (lambda m, h: m.p @ h, (T, T), "MmBackward0|BmmBackward0"),
    "convolution": (lambda m, h: F.conv1d(h.mT, m.p).mT, (D, D, 1), "ConvolutionBackward0"),
    "query": (lambda m, h: (m.p @ h.mT).softmax(-1) @ h, (2, 2, D), "BmmBackward0"),
    "query of attention": (
        lambda m, h: F.scaled_dot_product_attention(m.p.expand_as(h), h, h),
        (1, T, D),
        "Backward0",
    ),
    "computed": (lambda m, h: h @ (m.p.tanh() + torch.eye(D)), (D, D), "MmBackward0|BmmBackward0"),
    "sum of products": (lambda m, h: (h[..., None, :] * m.p).sum(-1), (D, D), "several copies"),
    "expanded": (
        lambda m, h: (h[..., None, :].expand(-1, -1, D, -1) * m.p).sum(-1),
        (D, D),
        "several copies",
    ),
    "distances": (lambda m, h: torch.cdist(h, m.p), (D, D), "not known that it adds"),
    "also added": (lambda m, h: (h + m.p[:T]) @ m.p, (D, D), "MmBackward0|BmmBackward0"),
}


@pytest.mark.parametrize("case", MATRICES)
@pytest.mark.parametrize("frozen", [False, True])
def test_what_multiplies_as_a_matrix_is_refused_by_name(case, frozen):
    does, shape, where = MATRICES[case]
    net = Around(does, *shape)
    net.p.requires_grad_(not frozen)
    add_feedback(net)
    message = rf"`p` \(a parameter of Around that .*({where}).*`leave_exact`"
    with pytest.raises(ValueError, match=message):
        net(X)
    assert net.p.requires_grad != frozen
    add_feedback(Around(does, *shape), leave_exact=["p"])(X).sum().backward()


def test_a_raw_product_with_the_data_itself_is_refused():
    class Raw(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.ParameterList([torch.randn(D, D), torch.randn(D, D)])

        def forward(self, x):
            return (x @ self.w[0]).relu() @ self.w[1]

    with pytest.raises(ValueError, match=re.escape("`w.0` (a parameter of ParameterList that")):
        add_feedback(Raw())(X)


def test_an_input_of_a_layer_that_is_left_exact_is_added():
    net = Around(lambda m, h: h + m.first(m.norm(m.p)), 1, T, D)
    add_feedback(net, leave_exact=["first"])(X).sum().backward()
    assert net.p.grad.abs().sum() > 0


def test_nothing_is_asked_without_gradients_and_exact_passes_prove_too():
    does, shape, _ = MATRICES["matmul"]
    net = add_feedback(Around(does, *shape))
    with torch.no_grad():
        net(X)
    with exact_backward(net), pytest.raises(ValueError, match="MmBackward0"):
        net(X)


def test_a_parameter_that_did_not_run_is_asked_when_it_does():
    class Late(Around):
        late = False

        def forward(self, x):
            h = self.first(x)
            return self.last(h @ self.p if self.late else h)

    net = add_feedback(Late(None, D, D))
    net(X).sum().backward()
    net.late = True
    with pytest.raises(ValueError, match="`p`"):
        net(X)


@pytest.mark.parametrize("case", ["hidden", "parts"])
def test_what_no_graph_shows_gets_no_gradient_in_silence(case):
    def hidden(m, h):
        return checkpoint(lambda x: x @ m.p, h, use_reentrant=True)

    net = add_feedback(Around(hidden if case == "hidden" else lambda m, h: h + m.p, D, D))
    x = torch.randn(2, D, D)
    output = net(x) if case == "hidden" else net.last(net.does(net, net.first(x)))
    with pytest.raises(ValueError, match=r"`p` got a gradient, but.*`leave_exact`"):
        output.sum().backward()


def test_a_frozen_one_stays_frozen_and_gets_no_gradient():
    does, shape = ADDED["position"]
    net = Around(does, *shape)
    net.p.requires_grad_(False)
    add_feedback(net)(X).sum().backward()
    assert not net.p.requires_grad
    assert net.p.grad is None


def test_the_note_comes_once_and_names_them(monkeypatch):
    notes = []
    monkeypatch.setattr("lit_credit.feedback.added.rank_zero_info", notes.append)
    does, shape = ADDED["position"]
    net = add_feedback(Around(does, *shape))
    for _ in range(2):
        net(X).sum().backward()
    assert len(notes) == 1
    assert notes[0].endswith("have no B and keep their true backward: p.")


def test_a_weight_that_is_tied_to_a_layer_is_refused_at_once():
    net = Around(lambda m, h: h @ m.p, D, D)
    net.p = net.first.weight
    with pytest.raises(ValueError, match=re.escape("`p` (a parameter of Around)")):
        add_feedback(net)


def test_copies_look_on_too():
    does, shape, _ = MATRICES["matmul"]
    net = add_feedback(Around(None, *shape))  # a lambda could not be pickled
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        other.does = does
        with pytest.raises(ValueError, match=r"`p` .a parameter of Around"):
            other(X)


SWINS = {
    "swin": {},
    "swin_v2": {
        "block": torchvision.models.swin_transformer.SwinTransformerBlockV2,
        "downsample_layer": torchvision.models.swin_transformer.PatchMergingV2,
    },
}


@pytest.mark.parametrize("kind", SWINS)
def test_swin_trains_by_feedback(kind):
    make = torchvision.models.SwinTransformer
    net = make([2, 2], 8, [1, 2], [2, 2], [2, 2], num_classes=3, **SWINS[kind])
    plain = copy.deepcopy(net).eval()
    add_feedback(net, distribution="weight").eval()
    x = torch.randn(2, 3, 16, 16)
    for model in (net, plain):
        F.cross_entropy(model(x), torch.tensor([0, 1])).backward()
    for mine, true in zip(net.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, true.grad)


def test_a_compiled_net_is_proved_eagerly():
    does, shape = ADDED["position"]
    net = add_feedback(torch.compile(Around(does, *shape), backend="eager"))
    for _ in range(2):
        net(X).sum().backward()
    assert net._orig_mod.p.grad is not None
    does, shape, _ = MATRICES["matmul"]
    net = add_feedback(torch.compile(Around(does, *shape), backend="eager"))
    with pytest.raises(ValueError, match=r"`_orig_mod\.p` .*MmBackward0"):
        net(X)
