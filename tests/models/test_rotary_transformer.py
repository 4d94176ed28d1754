"""The rotary transformer and its parts against slow twins."""

import math

import pytest
import torch

from lit_credit.models import CausalSelfAttention, Rotary, RotaryTransformer


def rotation(features, theta, angle):
    """Rot(angle), pair by pair."""
    matrix = torch.zeros(features, features, dtype=torch.float64)
    for i in range(features // 2):
        turn = angle * theta ** (-2 * i / features)
        c, s = math.cos(turn), math.sin(turn)
        part = slice(2 * i, 2 * i + 2)
        matrix[part, part] = torch.tensor([[c, -s], [s, c]], dtype=torch.float64)
    return matrix


def test_each_position_is_turned_by_its_own_matrix():
    rotary = Rotary(6, theta=100.0).double()
    x = torch.randn(2, 3, 5, 6, dtype=torch.float64)
    slow = torch.stack([x[..., p, :] @ rotation(6, 100.0, p).T for p in range(5)], -2)
    torch.testing.assert_close(rotary(x), slow, rtol=1e-6, atol=1e-6)


def test_a_score_depends_on_the_distance_alone_and_turns_the_key_back():
    rotary = Rotary(4).double()
    q, k = torch.randn(2, 4, dtype=torch.float64)
    queries, keys = rotary(q.expand(9, 4)), rotary(k.expand(9, 4))
    for m, n in ((8, 3), (6, 1), (5, 0)):  # the key five positions before the query
        slow = q @ rotation(4, 10_000.0, n - m) @ k
        torch.testing.assert_close(queries[m] @ keys[n], slow)


def test_attention_with_rotary_positions_against_a_loop():
    torch.manual_seed(0)
    layer = CausalSelfAttention(8, 2, rope_theta=1e4).double()
    x = torch.randn(1, 5, 8, dtype=torch.float64)
    q, k, v = layer.q(x[0]), layer.k(x[0]), layer.v(x[0])
    mixed = torch.zeros(5, 8, dtype=torch.float64)
    for head in (slice(0, 4), slice(4, 8)):
        for m in range(5):
            turns = [rotation(4, 10_000.0, n - m) for n in range(m + 1)]
            scores = torch.stack([q[m, head] @ r @ k[n, head] / 2 for n, r in enumerate(turns)])
            mixed[m, head] = scores.softmax(0) @ v[: m + 1, head]
    torch.testing.assert_close(layer(x)[0], layer.o(mixed))


def test_the_net_is_a_stream_that_sublayers_add_to():
    torch.manual_seed(0)
    net = RotaryTransformer(vocab_size=11, width=8, heads=2, mlp=16).eval()
    tokens = torch.randint(11, (3, 6))
    h = net.embed.weight[tokens]
    for block in net.blocks:
        h = h + block.attention.heads(block.attention.norm(h))
        hidden = (block.mlp.fc1(block.mlp.norm(h))).clamp(min=0)
        h = h + block.mlp.fc2(hidden)
    torch.testing.assert_close(net(tokens), h @ net.head.weight.T + net.head.bias)
    assert {name for name, _ in net.named_parameters()} == {
        "embed.weight",
        "head.weight",
        "head.bias",
        *(
            f"blocks.{b}.{part}.{kind}"
            for b in (0, 1)
            for part in (
                *(f"attention.{x}" for x in ("norm", "heads.q", "heads.k", "heads.v", "heads.o")),
                *("mlp.norm", "mlp.fc1", "mlp.fc2"),
            )
            for kind in ("weight", "bias")
        ),
    }


def test_options_of_the_net():
    count = {}
    for name, options in (
        ("plain", {}),
        ("mlp", {"mlp": 256}),
        ("fixed norm", {"norm_affine": False}),
    ):
        net = RotaryTransformer(**options)
        count[name] = sum(p.numel() for p in net.parameters())
    attention = 4 * (64 * 64 + 64)
    plain = 64 * 64 + 2 * (attention + 128) + 64 * 64 + 64
    assert count == {
        "plain": plain,
        "mlp": plain + 2 * (128 + 64 * 256 + 256 + 256 * 64 + 64),
        "fixed norm": plain - 2 * 128,
    }
    torch.manual_seed(0)
    assert 0.95 < RotaryTransformer().embed.weight.std().item() < 1.05
    with pytest.raises(ValueError, match=r"a head has 3 features.*even"):
        RotaryTransformer(width=6, heads=2)
    with pytest.raises(ValueError, match=r"`heads` is 3.*`width`, 64"):
        RotaryTransformer(heads=3)


def test_positions_stay_apart_in_half_precision():
    rotary = Rotary(64).bfloat16()
    x = torch.ones(402, 64, dtype=torch.bfloat16)
    turned = rotary(x).float()
    assert (turned - Rotary(64)(x.float())).abs().max() < 0.02
    assert not torch.equal(turned[400], turned[401])
