"""nn.MultiheadAttention against autograd, and against einsums in float64."""

import copy
import math

import pytest
import torch
from torch import nn

from lit_credit.feedback import add_feedback, feedback_layers
from lit_credit.inspect.exact_backward import exact_backward

T, S, N, E, H = 5, 7, 3, 8, 2
CAUSAL = torch.ones(T, S, dtype=torch.bool).triu(2)
PADDING = torch.arange(S) >= torch.tensor([[7], [5], [6]])
BIAS = torch.linspace(-2, 2, N * H * T * S, dtype=torch.float64).view(N * H, T, S)
MASKS = {
    "none": {},
    "bool": {"attn_mask": CAUSAL},
    "float": {"attn_mask": BIAS[0]},
    "per-head": {"attn_mask": BIAS},
    "padding": {"key_padding_mask": PADDING},
    "both": {"attn_mask": CAUSAL, "key_padding_mask": PADDING},
    "causal": {"attn_mask": CAUSAL, "is_causal": True},
    "causal-padding": {"attn_mask": CAUSAL, "key_padding_mask": PADDING, "is_causal": True},
}
LAYERS = {
    "fused": {},
    "no-bias": {"bias": False, "batch_first": True},
    "separate": {"kdim": 6, "vdim": 4},
}


def inputs(kind, layer, batched=True):
    """Self-attention, attention to a memory, or three unlike inputs."""
    torch.manual_seed(0)
    size = lambda length: (length, N) if batched else (length,)  # noqa: E731
    query, key, value = (
        torch.randn(*size(length), width, dtype=torch.float64)
        for length, width in [(T, E), (S, layer.kdim), (S, layer.vdim)]
    )
    if batched and layer.batch_first:
        query, key, value = (x.transpose(0, 1).contiguous() for x in (query, key, value))
    if kind == "self":
        return [torch.cat([query, query], dim=1 if batched and layer.batch_first else 0)[:S]]
    return [query, key] if kind == "memory" else [query, key, value]


def run(layer, tensors, **arguments):
    """Outputs and all gradients; one tensor serves as query, key and value, two as q and k = v."""
    tensors = [x.clone().requires_grad_() for x in tensors]
    output, weights = layer(*(tensors + [tensors[-1]] * 2)[:3], **arguments)
    loss = (output * torch.arange(1.0, output.numel() + 1).view(output.shape).sin()).sum()
    if weights is not None:
        loss = loss + weights.square().sum()
    return output, weights, torch.autograd.grad(loss, [*tensors, *layer.parameters()])


def compare(plain, tensors, **arguments):
    true = run(plain, tensors, **arguments)
    layer = add_feedback(copy.deepcopy(plain), distribution="weight")
    mine = run(layer, tensors, **arguments)
    assert torch.equal(mine[0], true[0])
    assert (true[1] is None) == (mine[1] is None)
    if true[1] is not None:
        assert torch.equal(mine[1], true[1])
    for a, b in zip(mine[2], true[2], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)
    random = add_feedback(copy.deepcopy(plain))
    shifted = run(random, tensors, **arguments)
    assert torch.equal(shifted[0], true[0])
    assert not torch.allclose(shifted[2][0], true[2][0])
    with exact_backward(random):
        for a, b in zip(run(random, tensors, **arguments)[2], true[2], strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("kind", ["fused", "no-bias", "separate"])
def test_against_autograd(kind, mask, need_weights):
    plain = nn.MultiheadAttention(E, H, dtype=torch.float64, **LAYERS[kind])
    tensors = inputs("unlike" if kind == "separate" else "memory", plain)
    compare(plain, tensors, need_weights=need_weights, **MASKS[mask])


@pytest.mark.parametrize("kind", ["self", "memory", "unlike"])
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_inputs_shared_or_not(kind, batch_first, training):
    plain = nn.MultiheadAttention(E, H, dtype=torch.float64, batch_first=batch_first)
    compare(plain.train(training), inputs(kind, plain), average_attn_weights=False)
    compare(plain, inputs(kind, plain), need_weights=False)


@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("kind", ["self", "memory", "unlike"])
def test_unbatched(kind, need_weights):
    plain = nn.MultiheadAttention(E, H, dtype=torch.float64, batch_first=True)
    tensors = inputs(kind, plain, batched=False)
    masks = {} if kind == "self" else {"attn_mask": CAUSAL, "key_padding_mask": PADDING[1]}
    compare(plain, tensors, need_weights=need_weights, **masks)


@pytest.mark.parametrize("need_weights", [True, False])
def test_dropout_draws_what_the_plain_layer_draws(need_weights):
    plain = nn.MultiheadAttention(E, H, dropout=0.5, dtype=torch.float64)
    layer = add_feedback(copy.deepcopy(plain))
    (x,) = inputs("self", plain)
    outputs = []
    for net in (plain, layer):
        torch.manual_seed(0)
        outputs.append(net(x, x, x, need_weights=need_weights)[0])
    assert torch.equal(*outputs)


def test_against_einsums_with_random_feedback():
    layer = add_feedback(nn.MultiheadAttention(E, H, dtype=torch.float64), seed=4)
    query, key = inputs("memory", layer)
    grad = torch.randn(T, N, E, dtype=torch.float64)
    b = {name: pair.feedback for name, pair in feedback_layers(layer).items()}
    w = {name: pair.weight for name, pair in feedback_layers(layer).items()}
    q, k, v = (
        torch.einsum("tne,fe->tnf", x, w[name]) + bias
        for x, name, bias in zip(
            (query, key, key),
            ("q_proj", "k_proj", "v_proj"),
            layer.in_proj_bias.detach().chunk(3),
            strict=True,
        )
    )
    q, k, v = (x.reshape(len(x), N, H, E // H) for x in (q, k, v))
    a = torch.einsum("tnhd,snhd->nhts", q, k).div(math.sqrt(E // H)).softmax(-1)
    g_context = torch.einsum("tne,ef->tnf", grad, b["out_proj"]).reshape(T, N, H, E // H)
    g_a = torch.einsum("tnhd,snhd->nhts", g_context, v)
    g_scores = a * (g_a - (a * g_a).sum(-1, keepdim=True)) / math.sqrt(E // H)
    g_q = torch.einsum("nhts,snhd->tnhd", g_scores, k).reshape(T, N, E)
    g_k = torch.einsum("nhts,tnhd->snhd", g_scores, q).reshape(S, N, E)
    g_v = torch.einsum("nhts,tnhd->snhd", a, g_context).reshape(S, N, E)

    query, key = query.requires_grad_(), key.requires_grad_()
    layer(query, key, key)[0].backward(grad)
    torch.testing.assert_close(query.grad, g_q @ b["q_proj"])
    torch.testing.assert_close(key.grad, g_k @ b["k_proj"] + g_v @ b["v_proj"])
    expected = torch.cat(
        [torch.einsum("tnf,tne->fe", g, x) for g, x in [(g_q, query), (g_k, key), (g_v, key)]]
    )
    torch.testing.assert_close(layer.in_proj_weight.grad, expected)


def test_buffers_and_pairs():
    fused = add_feedback(nn.MultiheadAttention(E, H))
    assert fused.in_proj_feedback.shape == (3 * E, E)
    assert set(dict(fused.named_buffers())) == {"in_proj_feedback", "out_proj.feedback"}
    separate = add_feedback(nn.MultiheadAttention(E, H, kdim=6, vdim=4))
    for layer in (fused, separate):
        pairs = feedback_layers(layer)
        assert list(pairs) == ["q_proj", "k_proj", "v_proj", "out_proj"]
        assert all(pair.feedback.shape == pair.weight.shape for pair in pairs.values())
    assert feedback_layers(separate)["k_proj"].feedback.shape == (E, 6)
    big = add_feedback(nn.MultiheadAttention(64, H))
    for pair in feedback_layers(big).values():  # each projection sums E errors, not 3 E
        assert pair.feedback.std().item() == pytest.approx(1 / 8, rel=0.1)


def test_bad_masks_are_refused():
    layer = add_feedback(nn.MultiheadAttention(E, H))
    x = torch.randn(T, N, E)
    with pytest.raises(ValueError, match="`is_causal` is only a hint"):
        layer(x, x, x, is_causal=True)
    with pytest.raises(ValueError, match="`attn_mask` has dtype"):
        layer(x, x, x, attn_mask=torch.ones(T, T, dtype=torch.int64))


def test_fused_kernel_where_no_gradient_is_needed():
    plain = nn.MultiheadAttention(E, H, batch_first=True).eval().requires_grad_(False)
    layer = add_feedback(copy.deepcopy(plain))
    x = torch.randn(N, T, E)
    assert torch.equal(layer(x, x, x)[0], plain(x, x, x)[0])
    with torch.no_grad():
        assert torch.equal(layer(x, x, x)[0], plain(x, x, x)[0])
