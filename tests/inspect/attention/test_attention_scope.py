"""When the recorder listens, to whom, and that it leaves no trace."""

import sys
from types import ModuleType

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from lit_credit.inspect.attention.recording import recorded_attention

# In a container: a global of this file would be replaced too.
ORIGINAL = [F.scaled_dot_product_attention]
CALLED = {"by Fused": lambda *args: F.scaled_dot_product_attention(*args)}


class Fused(nn.Module):
    def forward(self, x):
        return CALLED["by Fused"](x, x, x)


class CausalSelfAttention(nn.Module):
    """Written out."""

    def __init__(self, width=4):
        super().__init__()
        self.project = nn.Linear(width, width)
        self.act = nn.Softmax(dim=-1)

    def forward(self, x):
        x = self.project(x)
        weights = self.act(x @ x.mT)
        return weights @ x


class Head(nn.Module):
    def forward(self, x):
        return F.softmax(x @ x.mT, dim=-1) @ x


class Failing(nn.Module):
    def forward(self, x):
        Fused()(x)  # no submodule of the net
        raise RuntimeError("broken")


class Net(nn.Module):
    """Attention of three makes, after a part that breaks and is caught."""

    def __init__(self):
        super().__init__()
        self.broken = Failing()
        self.blocks = nn.ModuleList([CausalSelfAttention(), CausalSelfAttention()])
        self.attn = nn.ModuleList([Head()])
        self.head = Head()
        self.last = Fused()

    def forward(self, x):
        try:
            self.broken(x)
        except RuntimeError:
            x = F.scaled_dot_product_attention(x, x, x)
        for block in [*self.blocks, *self.attn, self.head, self.last]:
            x = x + block(x)
        return x


NAMES = ["broken", "", "blocks.0", "blocks.1", "attn.0", "last"]


def draw(*shape):
    torch.manual_seed(0)
    return (torch.randn(shape) / 4).requires_grad_()


def traces(net):
    """All that a recorder changes while it is there."""
    return (
        F.scaled_dot_product_attention,
        torch.softmax,
        torch._C._nn.scaled_dot_product_attention,
        vars(torch.Tensor).get("softmax"),
        torch.backends.mha.get_fastpath_enabled(),
        sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in net.modules()),
    )


def test_names_are_right_after_an_exception_inside_the_net():
    net, x = Net(), draw(2, 2, 3, 4)
    expected = net(x)
    with recorded_attention(net) as calls:
        output = net(x)
    torch.testing.assert_close(output, expected)
    assert [call.module for call in calls] == NAMES
    gradients = torch.autograd.grad(output.sum(), [x, *(c.weights for c in calls[1:])])
    torch.testing.assert_close(gradients[0], torch.autograd.grad(expected.sum(), x)[0])
    assert all(gradient.abs().sum() > 0 for gradient in gradients)


def test_a_second_run_is_recorded_too():
    net = Net()
    with recorded_attention(net) as calls:
        net(draw(2, 2, 3, 4))
        net(draw(2, 2, 3, 4))
    assert [call.module for call in calls] == 2 * NAMES


def test_nothing_is_left_behind():
    net, x = Net(), draw(2, 2, 3, 4)
    before = traces(net)
    with recorded_attention(net):
        net(x)
        assert not set(map(id, before[:3])) & set(map(id, traces(net)[:3]))
    assert traces(net) == before
    with pytest.raises(KeyError, match="user"), recorded_attention(net), recorded_attention(net):
        raise KeyError("user")
    assert traces(net) == before
    with pytest.raises(RuntimeError, match="broken"), recorded_attention(net.broken):
        net.broken(x)
    assert traces(net) == before


def test_the_setting_of_the_fast_path_comes_back():
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with recorded_attention(nn.Identity()):
            pass
        assert not torch.backends.mha.get_fastpath_enabled()
    finally:
        torch.backends.mha.set_fastpath_enabled(True)


def test_recorders_inside_one_another_see_their_own():
    net, x = Net(), draw(2, 2, 3, 4)
    expected = net(x)
    with recorded_attention(net) as outer:
        with recorded_attention(net.blocks) as inner, recorded_attention(net) as same:
            output = net(x)
        assert F.scaled_dot_product_attention is not ORIGINAL[0]
        net.last(x)
    torch.testing.assert_close(output, expected)
    assert [call.module for call in outer] == [*NAMES, "last"]
    assert [call.module for call in same] == NAMES
    assert [call.module for call in inner] == ["0", "1"]
    for call in (outer[2], inner[0], same[2]):
        assert torch.autograd.grad(output.sum(), call.weights, retain_graph=True)[0].any()


def test_modules_of_python_that_hold_the_function_are_reached(monkeypatch):
    library = ModuleType("library_with_attention")
    exec("from torch.nn.functional import scaled_dot_product_attention as sdpa", vars(library))
    monkeypatch.setitem(sys.modules, library.__name__, library)
    monkeypatch.setitem(CALLED, "by Fused", lambda *args: library.sdpa(*args))
    net = Fused()
    with recorded_attention(net) as calls:
        net(draw(2, 2, 3, 4))
    assert [call.module for call in calls] == [""]
    assert library.sdpa is ORIGINAL[0]


def test_a_module_of_python_imported_meanwhile_works_on(monkeypatch):
    net, x = Fused(), draw(2, 2, 3, 4)
    with recorded_attention(net):
        late = F.scaled_dot_product_attention
    torch.testing.assert_close(late(x, x, x), ORIGINAL[0](x, x, x), rtol=0, atol=0)
    monkeypatch.setitem(CALLED, "by Fused", late)
    with recorded_attention(net) as calls:
        net(x)
    assert len(calls) == 1


class Checkpointed(nn.Module):
    def __init__(self, again):
        super().__init__()
        self.again = again
        self.block = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True)
        self.attn = CausalSelfAttention()

    def forward(self, x):
        for part in (self.block, self.attn):
            x = x + (checkpoint(part, x, use_reentrant=False) if self.again else part(x))
        return x


def test_the_second_run_of_a_checkpointed_block_is_not_recorded():
    torch.manual_seed(0)
    nets = [Checkpointed(again) for again in (False, True)]
    nets[1].load_state_dict(nets[0].state_dict())
    x, found = draw(2, 3, 4), []
    for net in nets:
        runs = []
        net.block.register_forward_pre_hook(lambda *_, runs=runs: runs.append(1))
        with recorded_attention(net) as calls:
            weights = [x, *net.parameters()]
            output = net(x)
            weights += [call.weights for call in calls]
            found.append(torch.autograd.grad(output.square().sum(), weights))
        assert len(runs) == 1 + net.again
        assert [call.module for call in calls] == ["block.self_attn", "attn"]
    torch.testing.assert_close(found[0], found[1])


def test_a_compiled_net_runs_uncompiled():
    net, x = nn.MultiheadAttention(4, 2, batch_first=True), draw(2, 3, 4)
    compiled = torch.compile(net, backend="eager")
    expected = compiled(x, x, x, need_weights=False)[0]
    with recorded_attention(compiled) as calls:
        output = compiled(x, x, x, need_weights=False)[0]
        assert torch.autograd.grad(output.sum(), calls[0].weights)[0].any()
    torch.testing.assert_close(output, expected)
    assert [call.module for call in calls] == [""]
    torch.testing.assert_close(compiled(x, x, x, need_weights=False)[0], expected)


@pytest.mark.parametrize("make", [Fused, CausalSelfAttention])
def test_without_gradients_the_weights_are_leaves(make):
    net = make().requires_grad_(False)
    x = draw(2, 2, 3, 4).detach()
    with recorded_attention(net) as calls:
        output = net(x)
    assert torch.autograd.grad(output.sum(), calls[0].weights)[0].abs().sum() > 0
    with torch.no_grad(), recorded_attention(net) as calls:
        net(x)
    assert not calls[0].weights.requires_grad
