"""Head weights against what the nets compute in a real forward pass."""

import math

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import nn

from lit_credit.inspect.attention.head_weights import (
    AttentionHeads,
    Rope,
    read_embedding,
    read_heads,
)
from lit_credit.inspect.attention.recording import recorded_attention
from lit_credit.models import GPT
from lit_credit.rules import BP, FA
from lit_credit.tasks import NextToken

from . import head_nets as nets
from .head_nets import TOKENS, WIDTH, FusedAttention, Stack

NETS = [
    nets.our_gpt,
    nets.nano_gpt,
    nets.timm_like,
    nets.shared_keys,
    nets.rotary,
    nets.encoder_pre_norm,
    nets.encoder_post_norm,
    nets.encoder_without_bias,
    nets.gpt2,
    nets.gpt2_scaled_by_layer,
    nets.llama,
    nets.qwen2,
    nets.smol_lm3,
    nets.cohere,
    nets.phi,
    nets.bert,
    nets.t5,
]


def build(make):
    """A net in float64 whose every parameter matters."""
    torch.manual_seed(0)
    net = make().double().eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.4 * torch.randn_like(parameter))
    return net


class Seen:
    """Inputs and outputs of all submodules in one forward pass, and its attention."""

    def __init__(self, net):
        self.inputs, self.outputs = {}, {}
        hooks = []
        for name, child in net.named_modules():
            hooks.append(child.register_forward_hook(self._keep(name), with_kwargs=True))
        with torch.no_grad(), recorded_attention(net) as self.calls:
            net(TOKENS)
        for hook in hooks:
            hook.remove()

    def _keep(self, name):
        def keep(_, args, kwargs, output):
            values = [x for x in (*args, *kwargs.values()) if isinstance(x, torch.Tensor)]
            self.inputs[name] = values[0] if values else None
            self.outputs[name] = output if isinstance(output, torch.Tensor) else output[0]

        return keep


def projected(x, weight, bias):
    """(N, T, d_model) to (N, H, T, d_head), one head at a time."""
    heads = [x @ w + (0 if bias is None else bias[h]) for h, w in enumerate(weight)]
    return torch.stack(heads, 1)


def rotated(x, rope):
    """Pair by pair, position by position."""
    if rope is None:
        return x
    y, pairs = x.clone(), len(rope.frequencies)
    for i, frequency in enumerate(rope.frequencies.tolist()):
        a, b = (2 * i, 2 * i + 1) if rope.layout == "interleaved" else (i, i + pairs)
        for t in range(x.shape[2]):
            cos, sin = math.cos(t * frequency), math.sin(t * frequency)
            y[:, :, t, a] = cos * x[:, :, t, a] - sin * x[:, :, t, b]
            y[:, :, t, b] = sin * x[:, :, t, a] + cos * x[:, :, t, b]
    return y


def close(found, expected):
    # Some norms and rotations of Hugging Face compute in float32.
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("make", NETS)
def test_scores_and_outputs_of_a_real_forward_pass(make):
    net = build(make)
    seen, found = Seen(net), read_heads(net)
    assert len(found) == len(seen.calls) > 0
    for heads, call in zip(found, seen.calls, strict=True):
        assert call.module in (heads.name, f"{heads.name}.self")
        module = net.get_submodule(heads.name)
        x, output = seen.inputs[heads.name], seen.outputs[heads.name]
        if getattr(module, "batch_first", True) is False:
            x, output = x.transpose(0, 1), output.transpose(0, 1)
        if make is nets.bert:  # which adds the stream inside of its attention, and norms it
            output = seen.outputs[f"{heads.name}.output.dense"]
        q = rotated(projected(x, heads.query, heads.query_bias), heads.rope)
        k = rotated(projected(x, heads.key, heads.key_bias), heads.rope)
        size = heads.query.shape[-1]
        scores = q @ k.transpose(-1, -2) / size**0.5
        real_k = call.key.repeat_interleave(4 // call.key.shape[1], 1)
        scale = getattr(module, "scaling", size**-0.5)
        close(scores, call.query @ real_k.transpose(-1, -2) * scale)
        if make is not nets.t5:
            allowed = torch.tensor(True) if call.allowed is None else call.allowed
            close(scores.masked_fill(~allowed, -math.inf).softmax(-1), call.weights)
        v = projected(x, heads.value, heads.value_bias)
        z = call.weights @ v
        added = sum(z[:, h] @ w.T for h, w in enumerate(heads.output))
        close(added + (0 if heads.output_bias is None else heads.output_bias), output)


WITH_GAIN = {
    nets.our_gpt,
    nets.nano_gpt,
    nets.timm_like,
    nets.shared_keys,
    nets.rotary,
    nets.encoder_pre_norm,
    nets.encoder_without_bias,
    nets.gpt2,
    nets.gpt2_scaled_by_layer,
    nets.llama,
    nets.qwen2,
}


@pytest.mark.parametrize("make", NETS)
def test_the_gain_is_that_of_the_norm_whose_output_the_attention_reads(make):
    net = build(make)
    seen = Seen(net)
    for heads in read_heads(net):
        assert (heads.norm_gain is not None) == (make in WITH_GAIN)
        if heads.norm_gain is not None:
            x = seen.inputs[heads.name]
            (norm,) = [
                name
                for name, child in net.named_modules()
                if "Norm" in type(child).__name__ and torch.equal(seen.outputs[name], x)
            ]
            assert heads.norm_gain.data_ptr() == net.get_submodule(norm).weight.data_ptr()
            assert torch.equal(heads.norm_gain, net.get_submodule(norm).weight)


@pytest.mark.parametrize("make", [nets.our_gpt, nets.nano_gpt, nets.encoder_pre_norm, nets.gpt2])
def test_weights_are_live_and_have_no_graph(make):
    net = build(make)
    (before, *_) = read_heads(net)
    tensors = [t for t in vars(before).values() if isinstance(t, torch.Tensor)]
    assert not any(t.requires_grad for t in tensors)
    old = [t.clone() for t in tensors]
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(1.0)
    assert all(torch.equal(t, o + 1.0) for t, o in zip(tensors, old, strict=True))


# A net inside of a LightningModule, and a choice


@pytest.mark.parametrize("rule", [BP, FA])
def test_a_rule_has_the_heads_of_its_net(rule):
    net = build(nets.our_gpt)
    plain = read_heads(net)
    found = read_heads(rule(net, NextToken()))
    assert [heads.name for heads in found] == [f"net.{heads.name}" for heads in plain]
    assert all(torch.equal(a.query, b.query) for a, b in zip(found, plain, strict=True))
    assert all(torch.equal(a.norm_gain, b.norm_gain) for a, b in zip(found, plain, strict=True))


@pytest.mark.parametrize("name", ["norm_q", "ln_k", "query_layernorm", "rms_norm_q"])
def test_norms_of_queries_and_keys_are_seen_by_any_usual_name(name):
    net = nets.our_gpt()
    attention = net.get_submodule("blocks.0.attention.heads")
    attention.add_module(name, torch.nn.LayerNorm(4))
    with pytest.raises(MisconfigurationException, match=f"`{name}` norms its queries"):
        read_heads(net)


@pytest.mark.parametrize("name", ["freqs_cos", "cos", "inv_freq", "freqs_cis", "rope_cache"])
def test_tables_of_a_rotation_are_seen_by_any_usual_name(name):
    net = nets.our_gpt()
    attention = net.get_submodule("blocks.0.attention.heads")
    attention.register_buffer(name, torch.ones(4, 2))
    with pytest.raises(MisconfigurationException, match=f"`{name}`, so it may rotate"):
        read_heads(net)


def test_cross_attention_is_read_only_by_name():
    net = torch.nn.TransformerDecoder(torch.nn.TransformerDecoderLayer(8, 2, 8), 2)
    assert [h.name for h in read_heads(net)] == ["layers.0.self_attn", "layers.1.self_attn"]
    (cross,) = read_heads(net, ["layers.1.multihead_attn"])
    assert cross.name == "layers.1.multihead_attn"


def test_names_choose_below_net_too_and_keep_the_order():
    module = BP(nets.our_gpt(), NextToken())
    for names in (["blocks.1.attention.heads"], ["net.blocks.1.*.*"]):
        assert [h.name for h in read_heads(module, names)] == ["net.blocks.1.attention.heads"]
    both = read_heads(module, ["blocks.1.*.*", "blocks.0.*.*"])
    assert [h.name[:12] for h in both] == ["net.blocks.0", "net.blocks.1"]
    with pytest.raises(ValueError, match=r"`units`: 'head' matches nothing.*blocks\.0\.attention"):
        read_heads(module, ["head"])


def test_the_module_itself_may_be_the_attention():
    (heads,) = read_heads(nn.MultiheadAttention(8, 2))
    assert heads.name == ""
    assert heads.query.shape == (2, 8, 4)


# What says itself what its heads are


class Own(nn.Module):
    """Projections that nobody would guess, and Linears of usual names inside."""

    def __init__(self):
        super().__init__()
        self.matrix = nn.Parameter(torch.randn(2, WIDTH, 4))
        self.inner = FusedAttention()

    def head_weights(self):
        return AttentionHeads(**dict.fromkeys(("query", "key", "value", "output"), self.matrix))

    def forward(self, x):
        return self.inner(x)


def test_a_module_may_say_its_head_weights_itself():
    net = Stack(Own(), FusedAttention())
    own, fused = read_heads(net)
    assert (own.name, fused.name) == ("blocks.0.1", "blocks.1.1")
    assert own.query is net.blocks[0][1].matrix
    assert torch.equal(own.norm_gain, net.blocks[0][0].weight)


def test_a_wrong_answer_is_refused_by_name():
    own = Own()
    own.head_weights = lambda: own.matrix
    with pytest.raises(MisconfigurationException, match=r"'blocks\.0\.1' \(Own\).*returned Param"):
        read_heads(Stack(own))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("query", torch.ones(2, 3), r"`query` has shape \(2, 3\), expected \(H, d_model"),
        ("key", torch.ones(1, 5, 4), r"`key` has shape \(1, 5, 4\), expected \(2, 5, 4\)"),
        ("value_bias", torch.ones(4), r"`value_bias` has shape \(4,\), expected \(2, 4\)"),
        ("norm_gain", torch.ones(4), r"`norm_gain` has shape \(4,\), expected \(5,\)"),
        ("rope", Rope(torch.ones(3), "half"), "turns 3 pairs of features, but a head has 4"),
    ],
)
def test_shapes_that_do_not_belong_together_are_refused(field, value, message):
    fields = dict.fromkeys(("query", "key", "value", "output"), torch.ones(2, 5, 4))
    with pytest.raises(ValueError, match=message):
        AttentionHeads(**(fields | {field: value}))


def test_a_rotation_is_checked():
    with pytest.raises(ValueError, match="`layout` is 'quarter', expected 'interleaved' or 'half'"):
        Rope(torch.ones(3), "quarter")
    with pytest.raises(ValueError, match=r"`frequencies` has shape \(1, 3\)"):
        Rope(torch.ones(1, 3), "half")


with pytest.raises(MisconfigurationException, match="none by its class or name"):
    read_heads(nn.Linear(2, 2))


# The embedding


@pytest.mark.parametrize("make", NETS)
def test_the_embedding_is_that_of_symbols(make):
    net = build(make)
    found = read_embedding(net)
    assert found.shape == (nets.VOCAB, WIDTH)
    assert not found.requires_grad
    assert found.data_ptr() in {p.data_ptr() for p in net.parameters()}


def test_the_embedding_by_name_and_none():
    net = GPT(7, block_size=7, depth=1, heads=1, width=4)
    module = BP(net, NextToken())
    assert torch.equal(read_embedding(module), net.embed.token.weight)
    assert torch.equal(read_embedding(module, "embed.position"), net.embed.position.weight)
    assert read_embedding(nn.Linear(2, 2)) is None
    with pytest.raises(ValueError, match=r"`name`: 'head' matches nothing.*embed\.token"):
        read_embedding(module, "head")
