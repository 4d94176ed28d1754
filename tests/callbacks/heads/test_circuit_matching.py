"""The circuits of every pair of heads against dense loops, and on nets whose answer is known."""

import math

import numpy as np
import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule

from lit_credit.callbacks import CircuitMatching
from lit_credit.models import GPT, RotaryTransformer
from lit_credit.rules import BP
from lit_credit.tasks import NextToken

WIDTH, HEADS, DEPTH, SYMBOLS = 16, 2, 3, 11
SIZE = WIDTH // HEADS


def rotary_net():
    torch.manual_seed(0)
    net = RotaryTransformer(SYMBOLS, WIDTH, DEPTH, HEADS)
    for block in net.blocks:
        torch.nn.init.uniform_(block.attention.norm.weight, 0.5, 2.0)
    return net


def measured(net, **options):
    callback = CircuitMatching(**options)
    module = BP(net, NextToken())
    callback.prepare(None, module)
    return callback.measure(module)


def array(tensor):
    return tensor.detach().double().numpy()


def head(block, index, *, fold):
    """W_Q, W_K, W_V as rows that read x, and W_O as columns that write, of one head."""
    attention = block.attention.heads
    part = slice(index * SIZE, (index + 1) * SIZE)
    gain = array(block.attention.norm.weight) if fold else 1.0
    q, k, v = (array(getattr(attention, name).weight)[part] * gain for name in "qkv")
    return q, k, v, array(attention.o.weight)[:, part]


def turn(distance):
    """q' R k for a key so many positions before the query."""
    matrix = np.zeros((SIZE, SIZE))
    for i in range(SIZE // 2):
        angle = -distance * 10_000.0 ** (-2 * i / SIZE)
        c, s = math.cos(angle), math.sin(angle)
        matrix[2 * i : 2 * i + 2, 2 * i : 2 * i + 2] = [[c, -s], [s, c]]
    return matrix


def pair_scores(net, writer, reader, distance, rank, *, fold=True):
    """z, mismatch, rms and largest match of one pair by dense matrices."""
    (_, _, v, o), (q, k, _, _) = (head(net.blocks[l], h, fold=fold) for l, h in (writer, reader))  # noqa: E741
    qk, ov = q.T @ turn(distance) @ k / math.sqrt(SIZE), o @ v
    z = qk @ ov
    score = (np.diag(z).mean() - z.mean()) / z.std()
    e = array(net.embed.weight)
    mismatch = 1 - np.mean((e @ z @ e.T).argmax(1) == np.arange(SYMBOLS))
    directions = np.linalg.svd(qk)[2][:rank] @ np.linalg.svd(ov)[0][:, :rank]
    s = np.linalg.svd(directions, compute_uv=False)
    return score, mismatch, math.sqrt((s**2).mean()), s[0]


PAIRS = [
    ((i, g), (j, h))
    for i in range(DEPTH)
    for j in range(i + 1, DEPTH)
    for g in range(HEADS)
    for h in range(HEADS)
]


def named(pair):
    return "-".join(f"L{layer:02d}H{index:02d}" for layer, index in pair)


@pytest.mark.parametrize("fold", [True, False])
def test_every_pair_at_every_distance_is_what_dense_matrices_say(fold):
    net, names = rotary_net(), [named(pair) for pair in PAIRS]
    values = measured(net, ranks=[3], distances=[5, -5], pairs=names, fold_norm=fold)
    for distance, at in ((0, ""), (5, "D+05/"), (-5, "D-05/")):
        slow = {named(pair): pair_scores(net, *pair, distance, rank=3, fold=fold) for pair in PAIRS}
        tags = ("z", "mismatch", "match_rms/R03", "match_largest/R03")
        for place, tag in enumerate(tags):
            numbers = {name: scores[place] for name, scores in slow.items()}
            for name in names:
                assert values[f"{at}{tag}/{name}"] == pytest.approx(numbers[name], abs=1e-6)
            best = min if tag == "mismatch" else max
            assert values[f"{at}{tag}/best"] == pytest.approx(best(numbers.values()), abs=1e-6)
    assert not any(tag.startswith("D+00") for tag in values)


def test_scores_are_also_given_in_spreads_of_unrelated_circuits():
    values = measured(RotaryTransformer(SYMBOLS, WIDTH, 2), ranks=[3])
    assert (values["null_sd/z"], values["z/null"]) == pytest.approx((1 / 4, 0))
    assert values["z_sqrt_d/best"] == pytest.approx(4 * values["z/best"])
    mean, sd = values["match_rms/R03/null"], values["null_sd/match_rms/R03"]
    assert mean == pytest.approx(math.sqrt(3 / 16), rel=0.03)
    excess = (values["match_rms/R03/best"] - mean) / sd
    assert values["match_rms_sds/R03/best"] == pytest.approx(excess)


def test_the_first_layer_against_the_embedding():
    net = rotary_net()
    values = measured(net, ranks=[3, 5])
    e = array(net.embed.weight)
    for rank in (3, 5):
        leading = np.linalg.svd(e)[2][:rank]
        rms, read = [], []
        for h in range(HEADS):
            _, k, v, o = head(net.blocks[0], h, fold=True)
            s = np.linalg.svd(leading @ np.linalg.svd(o @ v)[0][:, :rank], compute_uv=False)
            rms.append(math.sqrt((s**2).mean()))
            mean = e.mean(0)
            directions = np.linalg.svd(k.T)[0][:, :rank]
            read.append(np.linalg.norm(mean @ directions) / np.linalg.norm(mean))
        assert values[f"embedding_rms/R{rank:02d}/mean"] == pytest.approx(np.mean(rms))
        assert values[f"read_k/R{rank:02d}/mean"] == pytest.approx(np.mean(read))


def test_a_planted_bridge_is_found_and_only_there():
    """Head 1 of layer 0 writes symbols into directions that head 0 of layer 2 looks for."""
    net = rotary_net()
    with torch.no_grad():
        bridge = torch.linalg.qr(torch.randn(WIDTH, SIZE)).Q
        read = torch.linalg.qr(torch.randn(WIDTH, SIZE)).Q
        first, last = net.blocks[0].attention, net.blocks[2].attention
        first.norm.weight.fill_(1.0)
        last.norm.weight.fill_(1.0)
        first.heads.v.weight[SIZE:] = read.T
        first.heads.o.weight[:, SIZE:] = bridge
        last.heads.k.weight[:SIZE] = bridge.T
        last.heads.q.weight[:SIZE] = read.T
    callback = CircuitMatching(ranks=[SIZE])
    module = BP(net, NextToken())
    callback.prepare(None, module)
    values = callback.measure(module)
    # Z is the projection on `read`, whose diagonal has a score of about sqrt(SIZE).
    assert values["z/best"] == pytest.approx(math.sqrt(SIZE), rel=0.1)
    assert values[f"match_rms/R{SIZE:02d}/best"] == pytest.approx(1.0)
    place = callback._readers.index("L02H00"), callback._writers.index("L00H01")
    for matrix in (callback._matrices["z"], callback._matrices["match"]):
        best = matrix.nan_to_num(-1).flatten().topk(2)
        assert divmod(int(best.indices[0]), matrix.shape[1]) == place
        assert best.values[1] < 0.95 * best.values[0]
    assert callback._matrices["z"].isnan().sum() == HEADS * HEADS  # layer 1 does not read layer 1


def test_ranks_fit_the_heads_by_default_and_are_refused_otherwise():
    def ranks(net, **options):
        tags = measured(net, **options)
        return sorted(t for t in tags if t.startswith("match_rms/R") and t.endswith("best"))

    assert ranks(RotaryTransformer(SYMBOLS, 64)) == [
        f"match_rms/R{rank:02d}/best" for rank in (5, 10, 15, 20)
    ]
    assert ranks(rotary_net()) == ["match_rms/R05/best"]
    assert ranks(RotaryTransformer(SYMBOLS, 8)) == ["match_rms/R02/best"]
    with pytest.raises(ValueError, match=r"`ranks` has 9, but a head has 8 features"):
        measured(rotary_net(), ranks=[3, 9])
    with pytest.warns(UserWarning, match=r"`ranks` \[5\] in a stream of 8 features"):
        measured(RotaryTransformer(SYMBOLS, 8), ranks=[5])


def test_bad_arguments_and_nets_are_named():
    for options, message in (
        ({"ranks": []}, r"`ranks` is \[\]"),
        ({"ranks": [0]}, r"`ranks\[0\]` is 0"),
        ({"n_tokens": 1}, "`n_tokens` is 1"),
    ):
        with pytest.raises(ValueError, match=message):
            CircuitMatching(**options)
    with pytest.raises(ValueError, match=r"`pairs` has 'L01H00-L00H00'.*such as: L00H00-L01H00"):
        measured(rotary_net(), pairs=["L01H00-L00H00"])
    with pytest.raises(MisconfigurationException, match=r"one layer with attention.*at least two"):
        measured(RotaryTransformer(SYMBOLS, WIDTH, depth=1))
    with pytest.raises(ValueError, match=r"'position'.*matches nothing.*embed"):
        measured(rotary_net(), embedding="position")


def test_a_net_without_rotation_or_symbols_has_what_it_has():
    torch.manual_seed(0)
    gpt = measured(GPT(SYMBOLS, depth=2, heads=2, width=16), distances=[3])
    assert gpt["D+03/z/best"] == pytest.approx(gpt["z/best"])

    class Encoder(LightningModule):
        def __init__(self):
            super().__init__()
            layer = torch.nn.TransformerEncoderLayer(16, 2, 32, norm_first=True)
            self.encoder = torch.nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    callback, module = CircuitMatching(), Encoder()
    callback.prepare(None, module)
    values = callback.measure(module)
    assert -4 < values["z/best"] < 4
    assert not any(tag.startswith(("mismatch", "embedding", "read")) for tag in values)


def test_heads_of_two_features_have_no_estimated_rank():
    values = measured(RotaryTransformer(SYMBOLS, 8, 2, 4), ranks=[1, 2])
    assert values["match_rms/R02/best"] > 0
    assert not any("estimated" in tag or tag.startswith("rank") for tag in values)


def test_an_embedding_of_another_width_is_not_taken_for_the_streams():
    net = rotary_net()
    net.embed, net.other = torch.nn.Embedding(SYMBOLS, 4), torch.nn.Embedding(SYMBOLS, WIDTH)
    assert "mismatch/best" not in measured(net)
    assert "mismatch/best" in measured(net, embedding="other")
    with pytest.raises(ValueError, match=r"`embedding` is 'embed', 4 features.*stream has 16"):
        measured(net, embedding="embed")


def test_the_best_of_many_pairs_is_held_against_the_best_of_many_unrelated_ones():
    found = {heads: [] for heads in (1, 4)}
    for seed in range(12):
        for heads in found:
            torch.manual_seed(seed)
            values = measured(RotaryTransformer(SYMBOLS, 32, 4, heads), ranks=[4])
            for tag in ("z", "match_rms/R04"):
                excess = values[f"{tag}/best"] - values[f"{tag}/null"]
                found[heads].append(excess / values[f"null_sd/{tag}"])
    for excesses in found.values():
        assert abs(np.mean(excesses)) < 0.6
    one = measured(rotary_net(), ranks=[3])  # of 12 pairs
    assert 1.5 < one["z/null"] / one["null_sd/z"] < 1.8
