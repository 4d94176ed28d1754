"""Diagnostics of heads measure the same whether the probe passes at once or in pieces."""

import logging

import pytest
import torch

from lit_credit.callbacks import AttentionMaps, HeadAttribution, SoftmaxJacobian
from lit_credit.callbacks.base.chunk import Chunk
from lit_credit.callbacks.heads import attention
from lit_credit.callbacks.heads import head_attribution as attribution
from lit_credit.rules import BP, FA
from lit_credit.tasks import NextToken
from tests import support
from tests.inspect.attention import head_nets

ROWS, T = 7, 5
KINDS = {
    "HeadAttribution": lambda: HeadAttribution(),
    "AttentionMaps": lambda: AttentionMaps(),
    "SoftmaxJacobian": lambda: SoftmaxJacobian(),
}


def module_and_data(rule=FA):
    torch.manual_seed(0)
    module = rule(head_nets.our_gpt(), NextToken()).eval()
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randint(head_nets.VOCAB, (2, ROWS, T), generator=generator)
    return module, (x, y)


def pieces(module, data, sizes):
    parts = zip(*(part.split(sizes) for part in data), strict=True)
    return [
        Chunk(module, part, rows, rows / sum(sizes))
        for part, rows in zip(parts, sizes, strict=True)
    ]


def measured(callback, module, data, sizes):
    callback.prepare(support.trainer(None, logger=False), module)
    return callback.measure(module, pieces(module, data, sizes))


@pytest.mark.parametrize("sizes", [[3, 3, 1], [1] * ROWS])
@pytest.mark.parametrize("name", KINDS)
def test_chunks_change_nothing_but_rounding(name, sizes):
    module, data = module_and_data()
    whole = measured(KINDS[name](), module, data, [ROWS])
    found = measured(KINDS[name](), module, data, sizes)
    assert list(found) == list(whole)
    assert found == pytest.approx(whole, rel=1e-4, abs=1e-6, nan_ok=True)


@pytest.mark.parametrize("name", KINDS)
def test_blocks_change_nothing_but_rounding(name, monkeypatch):
    module, data = module_and_data()
    whole = measured(KINDS[name](), module, data, [ROWS])
    blocks = []
    of = attention.blocks_of
    monkeypatch.setattr(attention, "_MOST_ENTRIES", 2 * 4 * T * T)
    monkeypatch.setattr(attribution, "_MOST_ENTRIES", 4 * head_nets.VOCAB * 5)
    blocks = of(torch.empty(ROWS, 4, T, T))
    assert [len(range(ROWS)[block]) for block in blocks] == [2, 2, 2, 1]
    found = measured(KINDS[name](), module, data, [ROWS])
    assert found == pytest.approx(whole, rel=1e-4, abs=1e-6, nan_ok=True)


def test_chunks_without_a_target_count_nowhere():
    module, (x, y) = module_and_data(BP)
    y[:3] = -100
    found = measured(HeadAttribution(), module, (x, y), [3, 4])
    whole = measured(HeadAttribution(), module, (x[3:], y[3:]), [4])
    assert found == pytest.approx(whole, rel=1e-4, abs=1e-6)


def test_a_head_that_is_no_softmax_in_one_chunk_is_undefined():
    module, data = module_and_data(BP)
    first, second = pieces(module, data, [3, 4])
    callback = AttentionMaps()
    callback.reset()
    callback.update(first)
    for label in callback._sound:
        callback._sound[label][0, 1] = False  # as a row that does not sum to 1
    callback.update(second)
    values = callback.compute()
    undefined = {tag.rpartition("/")[2] for tag, value in values.items() if value != value}
    assert undefined == {"H01"}


def test_positions_are_evenly_spread_and_said_once(monkeypatch, caplog):
    module, data = module_and_data(BP)
    with caplog.at_level(logging.INFO):
        callback = HeadAttribution(positions=3)
        values = measured(callback, module, data, [ROWS])
        callback.measure(module, pieces(module, data, [ROWS]))
    said = [m for m in caplog.messages if "positions" in m]
    assert len(said) == 1
    assert "3 of the probe's 35 positions" in said[0]
    chosen = torch.full_like(data[1], -100).flatten()
    chosen[[0, 17, 34]] = data[1].flatten()[[0, 17, 34]]
    alone = measured(HeadAttribution(), module, (data[0], chosen.view(ROWS, T)), [ROWS])
    assert values == pytest.approx(alone, rel=1e-5)
    # What heads make by default is bounded.
    heads = 8 * head_nets.VOCAB
    monkeypatch.setattr(attribution, "_MOST_LOGITS", 5 * heads)
    callback = HeadAttribution()
    measured(callback, module, data, [ROWS])
    assert callback._margins.shape[1] == 5
