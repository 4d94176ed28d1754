"""Maps of attention over pairs of symbols, against torch's own attention and loops."""

import csv
import io
import math

import numpy as np
import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule
from torch import nn
from torch.nn import functional as F

from lit_credit.callbacks import SymbolAttention
from lit_credit.inspect import contexts as contexts_file
from lit_credit.rules import BP
from lit_credit.studies.ngram import AttentionOnly, NGramPrediction
from tests import support
from tests.studies.ngram.test_model import plain_heads

SYMBOLS, WIDTH = 5, 4


class Known(support.Data):
    """All contexts of a length, with a prior and rows that were drawn."""

    def __init__(self, length=2, keep=lambda x: x[:, 0] >= 0, rarely=lambda x: x[:, 0] < 0):
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        x = torch.cartesian_prod(*[torch.arange(SYMBOLS)] * length).reshape(-1, length)
        self.x = x[keep(x)]
        prior = torch.rand(len(self.x), generator=generator, dtype=torch.float64)
        prior[rarely(self.x)] = 0
        self.prior = prior / prior.sum()
        self.rows = torch.rand(len(self.x), SYMBOLS, generator=generator).softmax(-1)

    def contexts(self):
        return self.x, self.prior, self.rows


class Causal(LightningModule):
    """A project's own net: causal attention, an answer at every position."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(SYMBOLS, WIDTH)
        self.attention = nn.MultiheadAttention(WIDTH, 2, batch_first=True, dropout=0.3)
        self.head = nn.Linear(WIDTH, SYMBOLS)
        for parameter in self.parameters():
            nn.init.normal_(parameter)

    def attend(self, x, **options):
        h = self.embed(x) + torch.arange(x.shape[1])[:, None].sin()
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1])
        return self.attention(h, h, h, attn_mask=mask, **options)

    def forward(self, x):
        return self.head(self.attend(x, need_weights=False)[0])

    def slow(self, x):
        """A of the two heads (2, T, T), on one context."""
        return self.attend(x, need_weights=True, average_attn_weights=False)[1][0]


class First(LightningModule):
    """One head that looks at the first of two symbols by a table."""

    def __init__(self, table):
        super().__init__()
        self.attention = Table(table)

    def forward(self, x):
        return self.attention(x).sum((1, 2))[:, None].expand(-1, SYMBOLS)


class Table(nn.Module):
    def __init__(self, table):
        super().__init__()
        self.table = table

    def forward(self, x):
        scores = torch.zeros(len(x), 1, 2, 2)
        scores[:, 0, 1, 0] = self.table[x[:, 0], x[:, -1]].logit()
        return scores.softmax(-1)[:, 0]


def own_net(depth=1, heads=3, splits=2, length=2):
    torch.manual_seed(0)
    net = AttentionOnly(SYMBOLS, WIDTH, depth, heads, splits, block_size=length)
    for parameter in net.parameters():
        nn.init.normal_(parameter)
    return BP(net, NGramPrediction())


def measured(module, data=None, **options):
    callback = SymbolAttention(**options)
    return support.measured(callback, module, data or Known()), callback


def test_maps_are_the_weights_of_multihead_attention():
    module = own_net()
    values, callback = measured(module)
    net, x = module.net, torch.cartesian_prod(torch.arange(SYMBOLS), torch.arange(SYMBOLS))
    read = F.layer_norm(net.embed(x), (WIDTH,)) + net.position.weight
    found = [head.map for head in callback._heads.values()]
    true = [
        plain(read, read, read, need_weights=True, average_attn_weights=False)[1][:, :, -1, 0].mT
        for plain in plain_heads(net.blocks[0].attention, splits=2)
    ]
    true = torch.cat(true).reshape(6, SYMBOLS, SYMBOLS).detach().double()
    torch.testing.assert_close(torch.stack(found), true, atol=1e-6, rtol=0)
    assert true.std((1, 2), correction=0).min() > 0.1
    for index, own in enumerate(true.numpy()):
        label = f"blocks.0.attention/H{index:02d}"
        assert values[f"mean/{label}"] == pytest.approx(own.mean(), rel=1e-5)
        assert values[f"std/{label}"] == pytest.approx(own.std(), rel=1e-5)
        gram = own @ own.T
        rank = np.trace(gram) ** 2 / np.trace(gram @ gram)
        assert values[f"rank/{label}"] == pytest.approx(rank, rel=1e-5)
        s = callback._heads["blocks.0.attention", f"H{index:02d}"].singular
        assert s == pytest.approx(np.linalg.svd(own)[1], rel=1e-4, abs=1e-5)
    assert len(values) == 18


def slow_own_net(module, x):
    """A of all heads of two layers, (4, T, T), by torch's own attention."""
    net, heads = module.net, []
    mask = torch.ones(x.shape[1], x.shape[1]).triu(1).bool()
    streams = net.activations(x)
    for index, block in enumerate(net.blocks):
        h = F.layer_norm(streams[f"stream.{index}"], (WIDTH,)) + net.position.weight
        for plain in plain_heads(block.attention):
            heads.append(plain(h, h, h, attn_mask=mask, average_attn_weights=False)[1][0, 0])
    return torch.stack(heads)


@pytest.mark.few(1)
@pytest.mark.parametrize("key", [0, 1])
@pytest.mark.parametrize(
    ("module", "slow"),
    [
        (Causal(), Causal.slow),
        (own_net(depth=2, heads=2, splits=1, length=3), slow_own_net),
    ],
    ids=["foreign", "ours"],
)
def test_longer_contexts_are_averaged_and_chunks_put_together(module, slow, key, monkeypatch):
    """Layers that answer everywhere, and (ours) a last one that answers at one position only."""
    data = Known(3)
    monkeypatch.setattr(contexts_file, "_AT_ONCE", 7)
    _, callback = measured(module, data, key=key)
    found = torch.stack([head.map for head in callback._heads.values()])
    total = torch.zeros(SYMBOLS, SYMBOLS, dtype=torch.float64)
    true = torch.zeros_like(found)
    for x, prior in zip(data.x, data.prior, strict=True):
        total[x[key], x[-1]] += prior
        true[:, x[key], x[-1]] += prior * slow(module, x[None])[:, -1, key].detach()
    torch.testing.assert_close(found, true / total, atol=1e-6, rtol=0)
    assert found.std((1, 2)).min() > 0.01


def test_pairs_that_never_come_are_nan_and_symbols_that_never_come_are_left_out():
    table = torch.rand(SYMBOLS, SYMBOLS, generator=torch.Generator().manual_seed(3))
    values, callback = measured(First(table), Known(keep=lambda x: x[:, 0] < 3))
    (head,) = callback._heads.values()
    assert head.map[3:].isnan().all()
    torch.testing.assert_close(head.map[:3].float(), table[:3])
    assert values["mean/attention/H00"] == pytest.approx(table[:3].mean().item(), rel=1e-5)
    s = torch.linalg.svdvals(table[:3].double())
    assert head.singular[:3] == pytest.approx(s.tolist(), rel=1e-5)
    assert all(map(math.isnan, head.singular[3:]))
    rank = s.square().sum() ** 2 / s.pow(4).sum()
    assert values["rank/attention/H00"] == pytest.approx(rank.item(), rel=1e-5)

    # A prior of zero is a context that never comes.
    for options in (
        {"keep": lambda x: x[:, 0] != x[:, 1]},
        {"rarely": lambda x: x[:, 0] == x[:, 1]},
    ):
        values, callback = measured(First(table), Known(**options))
        (head,) = callback._heads.values()
        assert torch.equal(head.map.isnan(), torch.eye(SYMBOLS).bool())
        off = table[~torch.eye(SYMBOLS).bool()]
        assert values["std/attention/H00"] == pytest.approx(off.std(correction=0).item(), rel=1e-5)
        assert math.isnan(values["rank/attention/H00"])
        assert all(map(math.isnan, head.singular))


def test_all_pairs_do_not_ask_which_of_them_come():
    table = torch.rand(SYMBOLS, SYMBOLS, generator=torch.Generator().manual_seed(3))
    data = Known(keep=lambda x: x[:, 0] != x[:, 1])
    values, callback = measured(First(table), data, all_pairs=True)
    (head,) = callback._heads.values()
    torch.testing.assert_close(head.map.float(), table)
    assert values["mean/attention/H00"] == pytest.approx(table.mean().item(), rel=1e-5)
    assert head.singular == pytest.approx(torch.linalg.svdvals(table.double()).tolist(), rel=1e-5)


def test_a_head_that_ignores_symbols_has_no_deviation():
    values, _ = measured(First(torch.full((SYMBOLS, SYMBOLS), 0.3)))
    assert values["mean/attention/H00"] == pytest.approx(0.3)
    assert values["std/attention/H00"] < 1e-6
    assert values["rank/attention/H00"] == pytest.approx(1)


def test_attention_that_is_no_softmax_is_nan():
    class Sigmoid(nn.Module):
        returns_attention = True

        def forward(self, scores, allowed=None):
            return scores.sigmoid()

    module = own_net()
    module.net.blocks[0].attention.weights = Sigmoid()
    values, callback = measured(module)
    assert len(values) == 18
    assert all(map(math.isnan, values.values()))
    assert callback.draw([{"step": 0, "epoch": 0, "name": "", "values": values}], "") is not None


def test_a_run_writes_table_and_figure(tmp_path):
    module = support.rule(BP, support.SymbolNet)
    callback = SymbolAttention(units=["embed.3.attention"], every_n_epochs=2)
    support.fit(tmp_path, module, callback)
    with (tmp_path / "symbol_attention.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [(line["module"], line["head"], line["step"]) for line in lines] == [
        ("embed.3.attention", "H00", "12"),
        ("embed.3.attention", "H01", "12"),
    ]
    # Three symbols stand before four: three singular values.
    assert [key for key, value in lines[0].items() if not value] == ["s4", "s5"]
    last = callback.history.rows[-1]["values"]
    for line in lines:
        for name in ("mean", "std", "rank"):
            tag = f"symbol_attention/{name}/embed.3.attention/{line['head']}"
            assert float(line[name]) == pytest.approx(last[tag])
    assert "figures/symbol_attention.png" in support.files(tmp_path)


def test_the_figure_shows_the_heads_that_differ_most():
    module = own_net(heads=14, splits=1)
    values, callback = measured(module)
    row = {"step": 3, "epoch": 0, "name": "", "values": values}
    figure = callback.draw([row], "symbol_attention")
    panels = [ax for ax in figure.axes if ax.images and ax.get_title()]
    assert len(panels) == 12
    order = sorted(callback._heads.items(), key=lambda item: -item[1].std)
    for ax, ((_, tag), head) in zip(panels, order, strict=False):
        told = f"deviation {head.std:.2f}, rank {head.rank:.1f}"
        assert ax.get_title() == f"blocks.0.attention {tag}\n{told}"
        assert ax.images[0].get_clim() == (0, 1)
        np.testing.assert_allclose(ax.images[0].get_array(), head.map)
    assert (panels[0].get_xlabel(), panels[0].get_ylabel()) == (
        "last symbol",
        "symbol at position 0",
    )
    figure.savefig(io.BytesIO(), format="png", dpi=30)
    assert SymbolAttention().draw([row], "symbol_attention") is None


class Longer(Causal):
    """Puts a symbol of its own in front."""

    def forward(self, x):
        return super().forward(F.pad(x, (1, 0)))


def test_what_does_not_fit_is_named():
    with pytest.raises(ValueError, match="`key` is -1"):
        SymbolAttention(key=-1)
    with pytest.raises(ValueError, match=r"`key` is 1, but contexts have 2 symbols; expected .* 0"):
        measured(own_net(), key=1)
    with pytest.raises(ValueError, match="`all_pairs` is true, but contexts have 3 symbols"):
        measured(own_net(length=3), Known(3), all_pairs=True)
    data = Known()
    data.x = data.x.float()
    with pytest.raises(MisconfigurationException, match=r"shape \(25, 2\) and dtype torch.float32"):
        measured(own_net(), data)
    with pytest.raises(MisconfigurationException, match=r"shape \(5, 1\)"):
        measured(own_net(), Known(1))
    with pytest.raises(
        MisconfigurationException, match=r"over 3 positions of 25 sequences.*`units`"
    ):
        measured(Longer())
    with pytest.raises(MisconfigurationException, match=r"a datamodule with `contexts\(\)`"):
        measured(own_net(), LightningModule())
