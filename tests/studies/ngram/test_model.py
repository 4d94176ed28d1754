"""AttentionOnly against nn.MultiheadAttention, closed forms and loops."""

import pytest
import torch
from torch import nn
from torch.nn.functional import layer_norm

from lit_credit.inspect.attention.head_weights import read_embedding, read_heads
from lit_credit.inspect.attention.recording import recorded_attention
from lit_credit.studies.ngram import AttentionOnly, ParallelAttention


def plain_heads(layer, splits=1):
    """One nn.MultiheadAttention for each parallel head, with its weights."""
    width = len(layer.o.weight)
    for index in range(layer.o.in_features // width):
        part = slice(index * width, (index + 1) * width)
        plain = nn.MultiheadAttention(width, splits, bias=False, batch_first=True)
        with torch.no_grad():
            plain.in_proj_weight.copy_(
                torch.cat([x.weight[part] for x in (layer.q, layer.k, layer.v)])
            )
            plain.out_proj.weight.copy_(layer.o.weight[:, part])
        yield plain.to(layer.o.weight.dtype)


@pytest.mark.parametrize("splits", [1, 2])
@pytest.mark.parametrize("last_only", [True, False])
def test_parallel_heads_are_multihead_attentions_added_up(splits, last_only):
    torch.manual_seed(0)
    layer = ParallelAttention(6, 4, splits, last_only).double()
    x, read = torch.randn(2, 3, 5, 6, dtype=torch.float64)
    mask = torch.ones(5, 5).triu(1).bool()
    with recorded_attention(layer) as calls:
        found = layer(x, read)
    (call,) = calls
    total, weights = 0, []
    for plain in plain_heads(layer, splits):
        output, a = plain(x, x, read, attn_mask=mask, average_attn_weights=False)
        total = total + output
        weights.append(a)
    last = slice(-1, None) if last_only else slice(None)
    torch.testing.assert_close(found, total[:, last])
    torch.testing.assert_close(call.weights, torch.cat(weights, 1)[:, :, last])
    torch.testing.assert_close(layer(x), layer(x, x))
    torch.testing.assert_close(layer(x), layer.by_head(mixed(layer, x)).sum(2))


def mixed(layer, x):
    seen = []
    with layer.o.register_forward_pre_hook(lambda _, args: seen.append(args[0])):
        layer(x)
    return seen[0]


def test_weights_start_as_those_of_multihead_attentions():
    torch.manual_seed(0)
    layer = ParallelAttention(20, 50)
    plain = [nn.MultiheadAttention(20, 1, bias=False) for _ in range(50)]
    for own, theirs in (
        (layer.q.weight, torch.cat([p.in_proj_weight for p in plain])),
        (layer.o.weight, torch.cat([p.out_proj.weight for p in plain])),
    ):
        assert own.std().item() == pytest.approx(theirs.std().item(), rel=0.02)
        assert own.abs().max().item() == pytest.approx(theirs.abs().max().item(), rel=0.01)


def test_a_head_on_a_trigram_in_closed_form():
    torch.manual_seed(0)
    net = AttentionOnly(vocab_size=7, width=4).double()
    contexts = torch.randint(7, (9, 2))
    layer = net.blocks[0].attention
    q, k, v, o = (x.weight for x in (layer.q, layer.k, layer.v, layer.o))
    logits = []
    for first, second in contexts.tolist():
        e = [net.embed.weight[first], net.embed.weight[second]]
        z = [layer_norm(x, (4,)) + net.position.weight[i] for i, x in enumerate(e)]
        a = torch.sigmoid((q @ z[1]) @ (k @ (z[0] - z[1])) / 2)
        out = o @ v @ (a * z[0] + (1 - a) * z[1])
        logits.append(net.head.weight @ (e[1] + out))
    torch.testing.assert_close(net(contexts), torch.stack(logits), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "flag", ["", "skip_residual", "skip_pos_qk", "skip_emb_qk", "skip_pos_ov", "skip_emb_ov"]
)
def test_two_layers_with_flags_against_a_loop(flag):
    torch.manual_seed(0)
    flags = {flag: True} if flag else {}
    net = AttentionOnly(
        vocab_size=7,
        width=4,
        depth=2,
        heads=3,
        splits=2,
        mlp_width=5,
        mlp_depth=2,
        block_size=4,
        **flags,
    ).double()
    contexts = torch.randint(7, (3, 4))
    mask = torch.ones(4, 4).triu(1).bool()
    h = net.embed.weight[contexts]
    for block in net.blocks:
        z, p = layer_norm(h, (4,)), net.position.weight.expand(3, 4, 4)
        qk = {"skip_pos_qk": z, "skip_emb_qk": p}.get(flag, z + p)
        ov = {"skip_pos_ov": z, "skip_emb_ov": p}.get(flag, z + p)
        heads = [
            plain(qk, qk, ov, attn_mask=mask)[0] for plain in plain_heads(block.attention, splits=2)
        ]
        h = sum(heads) + (0 if flag == "skip_residual" else h)
        x = layer_norm(h, (4,))
        h = h + block.mlp.out(block.mlp.fc2(block.mlp.fc1(x).relu()).relu())
    torch.testing.assert_close(net(contexts), h[:, -1] @ net.head.weight.T)
    assert {n.split(".")[-1] for n, _ in net.named_parameters() if "mlp" not in n} == {"weight"}


@pytest.mark.parametrize("mlp", [None, 5])
def test_activations_are_those_of_the_forward_pass_and_add_up(mlp):
    torch.manual_seed(0)
    net = AttentionOnly(vocab_size=7, width=4, depth=2, heads=3, mlp_width=mlp)
    contexts = torch.randint(7, (5, 2))
    found = net.activations(contexts)
    torch.testing.assert_close(found["logits"], net(contexts))
    torch.testing.assert_close(found["stream.0"], net.embed(contexts))
    assert torch.equal(found["position"], net.position.weight)
    for block, places in ((0, 2), (1, 1)):
        before, heads = found[f"stream.{block}"], found[f"blocks.{block}.heads"]
        assert heads.shape == (5, places, 3, 4)
        stream = before[:, -places:] + heads.sum(2)
        torch.testing.assert_close(found[f"blocks.{block}.stream"], stream)
        after = stream + found[f"blocks.{block}.mlp"] if mlp else stream
        torch.testing.assert_close(found[f"stream.{block + 1}"], after)
    (gradient,) = torch.autograd.grad(found["logits"].sum(), found["blocks.0.stream"])
    assert gradient.abs().sum() > 0


def test_heads_and_embedding_are_read_by_the_tools():
    net = AttentionOnly(vocab_size=7, width=4, depth=2, heads=3, splits=2)
    assert read_embedding(net) is not None
    assert torch.equal(read_embedding(net), net.embed.weight)
    (first, second) = read_heads(net)
    assert (first.name, second.name) == ("blocks.0.attention", "blocks.1.attention")
    assert first.query.shape == (6, 4, 2)
    with recorded_attention(net) as calls:
        net(torch.zeros(5, 2).long())
    assert [call.weights.shape for call in calls] == [(5, 6, 2, 2), (5, 6, 1, 2)]


def pair(**options):
    """The same net with stacked and with separate heads, from one seed."""
    nets = []
    for separate in (False, True):
        torch.manual_seed(0)
        options = {"vocab_size": 7, "width": 4, "heads": 3, **options}
        nets.append(AttentionOnly(separate_heads=separate, **options))
    return nets


@pytest.mark.parametrize(
    "options", [{}, {"depth": 2, "splits": 2, "mlp_width": 5, "skip_pos_ov": True}]
)
def test_separate_heads_start_as_the_same_net(options):
    stacked, separate = pair(**options)
    contexts = torch.randint(7, (9, 2))
    outputs = [net(contexts) for net in (stacked, separate)]
    torch.testing.assert_close(*outputs, rtol=1e-6, atol=1e-6)
    for logits in outputs:
        (logits * torch.arange(7)).sum().backward()
    layer, heads = (net.blocks[0].attention for net in (stacked, separate))
    for name, dim in (("q", 0), ("k", 0), ("v", 0), ("o", 1)):
        own = [head.get_submodule(name).weight for head in heads]
        weight = layer.get_submodule(name).weight
        assert torch.equal(torch.cat(own, dim), weight)
        torch.testing.assert_close(torch.cat([w.grad for w in own], dim), weight.grad)
    shared = dict(stacked.named_parameters())
    for name, parameter in separate.named_parameters():
        if "attention" not in name:
            torch.testing.assert_close(parameter.grad, shared[name].grad, msg=name)
    expected, found = (net.activations(contexts) for net in (stacked, separate))
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, expected[name], msg=name)


def test_separate_heads_are_read_one_by_one():
    stacked, separate = pair()
    (layer,) = read_heads(stacked)
    heads = read_heads(separate)
    assert [head.name for head in heads] == [f"blocks.0.attention.{i}" for i in range(3)]
    assert torch.equal(torch.cat([head.output for head in heads]), layer.output)
    weights = []
    for net in (stacked, separate):
        with recorded_attention(net) as calls:
            net(torch.randint(7, (5, 2), generator=torch.Generator().manual_seed(0)))
        weights.append(torch.cat([call.weights for call in calls], 1))
    torch.testing.assert_close(*weights)


def test_silent_heads_add_nothing_and_leave_the_rest_as_drawn():
    plain, _ = pair(depth=2)
    for silent in pair(depth=2, silent_heads=True):
        contexts = torch.randint(7, (9, 2))
        torch.testing.assert_close(silent(contexts), silent.head(silent.embed(contexts[:, 1])))
        assert torch.equal(silent.head.weight, plain.head.weight)
        loss = silent(contexts).square().sum()
        blocks = {n: p for n, p in silent.named_parameters() if n.endswith("o.weight")}
        assert all(g.any() for g in torch.autograd.grad(loss, list(blocks.values())))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: AttentionOnly(width=0), "`width` is 0, expected at least 1"),
        (lambda: AttentionOnly(heads=0), "`heads` is 0, expected at least 1"),
        (lambda: AttentionOnly(splits=0), "`splits` is 0"),
        (lambda: AttentionOnly(mlp_width=0), "`mlp_width` is 0, expected at least 1. None"),
        (lambda: AttentionOnly(mlp_width=4, mlp_depth=0), "`mlp_depth` is 0"),
        (lambda: AttentionOnly(skip_pos_qk=True, skip_emb_qk=True), "queries and keys would read"),
        (lambda: AttentionOnly(skip_pos_ov=True, skip_emb_ov=True), "values would read nothing"),
        (lambda: AttentionOnly(width=5, splits=2), "`splits` is 2.*`width`, 5"),
        (lambda: AttentionOnly()(torch.zeros(1, 3).long()), "`block_size` of the net is 2.* has 3"),
    ],
)
def test_what_does_not_fit_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
