"""LowRank and ContextMLP against loops."""

import pytest
import torch

from lit_credit.studies.ngram import ContextMLP, LowRank


def test_a_low_rank_net_reads_each_contexts_own_vector():
    net = LowRank(vocab_size=4, width=3, block_size=3)
    contexts = torch.tensor([[0, 1, 2], [3, 0, 1]])
    expected = net.embed.weight[[4 + 2, 3 * 16 + 1]] @ net.head.weight.T
    torch.testing.assert_close(net(contexts), expected)
    assert net.embed.weight.abs().max() <= 3**-0.5
    assert net.head.bias is None


@pytest.mark.parametrize("depth", [1, 2])
def test_an_mlp_on_contexts_against_a_loop(depth):
    torch.manual_seed(0)
    net = ContextMLP(vocab_size=7, width=4, hidden=6, depth=depth, block_size=3)
    contexts = torch.randint(7, (5, 3))
    logits = []
    for context in contexts.tolist():
        h = torch.cat([net.embed.weight[symbol] for symbol in context])
        for layer in net.layers:
            h = (layer[0].weight @ h + layer[0].bias).clamp(min=0)
        logits.append(net.head.weight @ (net.out.weight @ h + net.out.bias))
    torch.testing.assert_close(net(contexts), torch.stack(logits))
    count = 2 * 7 * 4 + (3 * 4 + 1) * 6 + (depth - 1) * 7 * 6 + 7 * 4
    assert sum(p.numel() for p in net.parameters()) == count
    assert net.embed.weight.abs().max() <= 0.5


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ContextMLP(depth=0), "`depth` is 0, expected at least 1"),
        (lambda: ContextMLP(hidden=0), "`hidden` is 0, expected at least 1"),
        (lambda: ContextMLP()(torch.zeros(1, 3).long()), "`block_size` of the net is 2.* has 3"),
        (lambda: LowRank(width=0), "`width` is 0, expected at least 1"),
        (lambda: LowRank()(torch.zeros(1, 3).long()), "`block_size` of the net is 2.* has 3"),
    ],
)
def test_what_does_not_fit_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
