"""The recorder of attention: where A comes from, and what it does to the net (nothing)."""

import math

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import nn, softmax
from torch.nn import functional as F
from torch.nn.attention.bias import causal_lower_right
from torch.nn.functional import scaled_dot_product_attention as fused

from lit_credit.feedback import add_feedback
from lit_credit.inspect.attention.recording import recorded_attention

from .attention_twin import slow_attention, slow_multihead

CAUSAL = torch.ones(3, 4, dtype=torch.bool).tril(1)
PADDING = torch.tensor([[False] * 4, [False, False, True, True]])
ALIBI = torch.tensor([[0.0, -1.0, -2.0, -3.0]])
MASKS = {
    "none": {},
    "causal": {"is_causal": True},
    "bool": {"attn_mask": CAUSAL},
    "float": {"attn_mask": torch.zeros(3, 4).masked_fill(~CAUSAL, -math.inf)},
    "lowest": {"attn_mask": torch.zeros(3, 4).masked_fill(~CAUSAL, torch.finfo().min)},
    "padding": {"attn_mask": ~PADDING[:, None, None]},
    "bias": {"attn_mask": ALIBI},
}


def draw(*shape):
    return torch.randn(shape, requires_grad=True)


def grads(output, *tensors):
    weight = torch.arange(output.numel(), dtype=output.dtype).view_as(output).sin()
    return torch.autograd.grad((output * weight).sum(), tensors, retain_graph=True)


class Function(nn.Module):
    """Runs what it is given."""

    def forward(self, function, *args, **kwargs):
        return function(*args, **kwargs)


class Attention(Function):
    """The same, under a name that tells."""


@pytest.mark.parametrize("scale", [None, 0.3])
@pytest.mark.parametrize("heads", [(2, 2), (4, 2)])
@pytest.mark.parametrize("mask", MASKS)
def test_scaled_dot_product_attention(mask, heads, scale):
    torch.manual_seed(0)
    q, k, v = draw(2, heads[0], 3, 4), draw(2, heads[1], 4, 4), draw(2, heads[1], 4, 5)
    options = {**MASKS[mask], "scale": scale, "enable_gqa": heads[0] != heads[1]}
    expected = F.scaled_dot_product_attention(q, k, v, **options)
    net = Function()
    with recorded_attention(net) as calls:
        output = net(lambda: F.scaled_dot_product_attention(q, k, v, **options))
    torch.testing.assert_close(output, expected)
    torch.testing.assert_close(grads(output, q, k, v), grads(expected, q, k, v))
    (call,) = calls
    given = MASKS[mask].get("attn_mask")
    _, weights = slow_attention(q, k, v, given, mask == "causal", scale)
    torch.testing.assert_close(call.weights, weights)
    if mask in ("none", "bias"):
        assert call.allowed is None
    else:
        assert torch.equal(call.allowed, weights > 0)
    torch.testing.assert_close((call.query, call.key, call.value), (q, k, v), rtol=0, atol=0)
    moved = torch.zeros_like(weights, requires_grad=True)
    copy, _ = slow_attention(q, k, v, given, mask == "causal", scale, nudge=moved)
    torch.testing.assert_close(grads(output, call.weights), grads(copy, moved))


@pytest.mark.parametrize("form", ["plain", "average", "silent", "time_first", "unbatched"])
@pytest.mark.parametrize("mask", ["none", "padding", "bool", "float", "both"])
@pytest.mark.parametrize("feedback", [False, True])
def test_multihead_attention(feedback, mask, form):
    torch.manual_seed(0)
    batch_first = form != "time_first"
    net = nn.MultiheadAttention(8, 2, batch_first=batch_first).double()
    if feedback:
        add_feedback(net, leave_exact=["out_proj"])
    x, y = torch.randn(2, 3, 8).double(), torch.randn(2, 4, 8).double()
    padding = PADDING if mask in ("padding", "both") else None
    if form == "unbatched":
        x, y, padding = x[:1], y[:1], None if padding is None else padding[1:]
    bias = torch.randn(3, 4).double() if mask == "float" else None
    seen = CAUSAL if mask in ("bool", "both") else None
    options = {
        "key_padding_mask": padding,
        "attn_mask": ~seen if seen is not None else bias,
        "need_weights": form != "silent",
        "average_attn_weights": form == "average",
    }
    given = [x, y, y] if batch_first else [z.transpose(0, 1) for z in (x, y, y)]
    if form == "unbatched":
        given = [z[0] for z in given]
        options["key_padding_mask"] = None if padding is None else padding[0]
    expected = net(*given, **options)
    with recorded_attention(net) as calls:
        output = net(*given, **options)
    torch.testing.assert_close(output, expected)

    allowed = torch.ones(1, 1, 3, 4, dtype=torch.bool) if seen is None else seen
    allowed = allowed if padding is None else allowed & ~padding[:, None, None]
    twin, weights = slow_multihead(net, x, y, allowed, bias)
    (call,) = calls
    assert call.module == ""
    torch.testing.assert_close(call.weights, weights)
    if mask in ("none", "float"):
        assert call.allowed is None
    else:
        assert torch.equal(call.allowed, allowed.expand(weights.shape))
    context = output[0]
    context = context[None] if form == "unbatched" else context
    context = context if batch_first else context.transpose(0, 1)
    torch.testing.assert_close(context, twin)
    torch.testing.assert_close(grads(context, call.weights), grads(twin, weights))


@pytest.mark.parametrize("leading", [(), (2,), (2, 3), (2, 3, 2)])
def test_weights_have_four_dimensions(leading):
    q, k = draw(*leading, 3, 4), draw(*leading, 5, 4)
    mask = torch.rand(*leading, 3, 5) > 0.3
    net = Function()
    with recorded_attention(net) as calls:
        output = net(F.scaled_dot_product_attention, q, k, k, mask | torch.eye(3, 5).bool())
    heads = leading[-1] if len(leading) > 1 else 1
    assert (
        calls[0].weights.shape
        == calls[0].allowed.shape
        == (math.prod(leading) // heads, heads, 3, 5)
    )
    flat = calls[0].weights.reshape(*leading, 3, 5)
    torch.testing.assert_close(flat @ k, output)
    assert grads(output, calls[0].weights)[0].shape == calls[0].weights.shape


def test_dropout_draws_the_same_numbers_and_comes_after_the_weights():
    q, v = draw(2, 2, 3, 4), torch.eye(3).expand(2, 2, 3, 3)
    net = Function()
    torch.manual_seed(0)
    expected = F.scaled_dot_product_attention(q, q, v, dropout_p=0.5)
    torch.manual_seed(0)
    with recorded_attention(net) as calls:
        output = net(F.scaled_dot_product_attention, q, q, v, dropout_p=0.5)
    torch.testing.assert_close(output, expected)
    torch.testing.assert_close(calls[0].weights.sum(-1), torch.ones(2, 2, 3))
    kept = output != 0
    torch.testing.assert_close(output[kept], 2 * calls[0].weights[kept])


@pytest.mark.parametrize("mask", [torch.tensor([True, False]), torch.tensor([0.0, -math.inf])])
def test_rows_that_see_nothing_are_zero_as_in_torch(mask):
    q, k, v = draw(1, 1, 2, 4), draw(1, 1, 5, 4), draw(1, 1, 5, 4)
    mask = mask[:, None].expand(2, 5)
    expected = F.scaled_dot_product_attention(q, k, v, mask)
    net = Function()
    with recorded_attention(net) as calls:
        output = net(F.scaled_dot_product_attention, q, k, v, mask)
    torch.testing.assert_close(output, expected)
    torch.testing.assert_close(grads(output, q, k, v), grads(expected, q, k, v))
    assert (calls[0].weights[0, 0, 1] == 0).all()
    assert not calls[0].allowed[0, 0, 1].any()
    assert grads(output, calls[0].weights)[0].isfinite().all()


def test_a_softmax_of_rows_that_see_nothing_is_nan_as_in_torch():
    net = Attention()
    scores = torch.full((1, 1, 2, 3), -math.inf)
    with recorded_attention(net) as calls:
        assert net(F.softmax, scores, -1).isnan().all()
    assert calls[0].weights.isnan().all()
    assert not calls[0].allowed.any()


@pytest.mark.parametrize("autocast", [True, False])
def test_half_precision_keeps_the_output_type(autocast):
    torch.manual_seed(0)
    q = torch.randn(2, 2, 4, 8, dtype=torch.float32 if autocast else torch.bfloat16)
    net = Function()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        expected = net(F.scaled_dot_product_attention, q, q, q)
        with recorded_attention(net) as calls:
            output = net(F.scaled_dot_product_attention, q, q, q)
    assert output.dtype == expected.dtype == torch.bfloat16
    assert calls[0].weights.dtype == torch.float32
    torch.testing.assert_close(output, expected, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("shape", [(3, 5), (5, 5)])
def test_masks_that_are_objects(shape):
    q, k = draw(1, 2, shape[0], 4), draw(1, 2, shape[1], 4)
    net = Function()
    mask = causal_lower_right(*shape)
    expected = F.scaled_dot_product_attention(q, k, k, mask)
    with recorded_attention(net) as calls:
        torch.testing.assert_close(net(F.scaled_dot_product_attention, q, k, k, mask), expected)
    rows = calls[0].allowed[0, 0].sum(-1).tolist()
    assert rows == list(range(shape[1] - shape[0] + 1, shape[1] + 1))


def test_functions_imported_by_name_are_seen():
    net = Attention()
    q = draw(1, 1, 3, 3)
    with recorded_attention(net) as calls:
        net(lambda: fused(q, q, q))
        net(lambda: softmax(q, dim=-1))
        net(lambda: q.softmax(-1))
        net(lambda: F.softmax(q, dim=3, dtype=torch.float64))
        net(lambda: torch.softmax(input=q, dim=-1))
    assert len(calls) == 5


def test_other_softmaxes_are_not_attention():
    net, plain = Attention(), Function()
    x = draw(2, 2, 3, 3)
    with recorded_attention(net) as calls, recorded_attention(plain) as none:
        net(lambda: x.softmax(1))
        net(lambda: x[0, 0].softmax(-1))
        net(lambda: F.log_softmax(x, -1))
        plain(lambda: x.softmax(-1))
        x.softmax(-1)
        F.scaled_dot_product_attention(x, x, x)
    assert calls == none == []


def test_wrong_arguments_fail_as_in_torch():
    net = Function()
    q = draw(1, 1, 3, 4)
    with recorded_attention(net), pytest.raises(RuntimeError, match="is_causal"):
        net(F.scaled_dot_product_attention, q, q, q, torch.ones(3, 3).bool(), is_causal=True)


class Sharp(nn.Module):
    """Attention of another kind, with a backward of its own."""

    returns_attention = True

    def forward(self, scores, allowed=None):
        weights = torch.softmax(scores, -1)
        if allowed is not None:
            weights = torch.where(allowed, weights, 0.0)
        return weights.square()


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention_weights = Sharp()

    def forward(self, x, allowed=None):
        weights = self.attention_weights(x @ x.mT, allowed)
        return F.dropout(weights, 0.0, inplace=True).mul_(2) @ x


@pytest.mark.parametrize("allowed", [None, torch.ones(3, 3, dtype=torch.bool).tril()])
def test_a_module_that_returns_attention_is_recorded_once(allowed):
    torch.manual_seed(0)
    net, x = Block(), draw(2, 2, 3, 4)
    expected = net(x, allowed)
    with recorded_attention(net) as calls:
        output = net(x, allowed)
    torch.testing.assert_close(output, expected)
    torch.testing.assert_close(grads(output, x), grads(expected, x))
    assert [call.module for call in calls] == ["attention_weights"]
    weights = Sharp()(x @ x.mT, allowed).detach().requires_grad_()
    torch.testing.assert_close(calls[0].weights, weights)
    torch.testing.assert_close(grads(output, calls[0].weights), grads(2 * weights @ x, weights))
    assert (
        calls[0].allowed is None
        if allowed is None
        else torch.equal(calls[0].allowed, allowed.expand(2, 2, 3, 3))
    )


@pytest.mark.parametrize("answer", [lambda a: (a, None), lambda a: a.sum(-1)])
def test_a_module_that_returns_something_else_is_refused(answer):
    net = Block()
    net.attention_weights.register_forward_hook(lambda _, __, output: answer(output))
    with (
        recorded_attention(net),
        pytest.raises(MisconfigurationException, match=r"'attention_weights' \(Sharp\)"),
    ):
        net(draw(2, 2, 3, 4))
