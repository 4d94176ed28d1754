"""The distributions of n-grams against what their definitions say, context by context."""

import math

import pytest
import torch

from lit_credit.studies.ngram import (
    AlmostRankD,
    LastPosition,
    PowerUnif,
    RankD,
)
from lit_credit.studies.ngram.distributions import context_index, joint, live_contexts

EVERY = [
    PowerUnif([1.0, 0.5, 0.9], [3, 4, 2], vocab_size=5),
    LastPosition(vocab_size=5, order=3, skew=2.0),
    RankD(vocab_size=5, order=3, rank=2),
    AlmostRankD(vocab_size=5, order=3, rank=2),
    PowerUnif([1.0, 0.5], [3, 4], vocab_size=5),
    LastPosition(vocab_size=5, order=4),
]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("distribution", EVERY, ids=lambda d: f"{type(d).__name__}{d.order}")
def test_tables_are_conditionals_and_a_function_of_the_generator(distribution):
    tables = distribution.tables(generator())
    assert [t.shape for t in tables] == [(5,) * i for i in range(1, distribution.order + 1)]
    for table in tables:
        assert table.dtype == torch.float64
        assert (table >= 0).all()
        torch.testing.assert_close(table.sum(-1), torch.ones(table.shape[:-1]).double())
    again, other = distribution.tables(generator()), distribution.tables(generator(1))
    assert all(map(torch.equal, tables, again))
    assert not torch.equal(tables[-1], other[-1])
    assert joint(tables).sum().item() == pytest.approx(1)


def test_live_contexts_against_a_loop():
    tables = EVERY[0].tables(generator())
    x, prior, rows = live_contexts(tables)
    found = {}
    for a in range(5):
        for b in range(5):
            p = (tables[0][a] * tables[1][a, b]).item()
            if p > 0:
                found[a, b] = p, tables[2][a, b]
    assert [tuple(c) for c in x.tolist()] == list(found)
    assert len(found) == 12
    assert prior.tolist() == [p for p, _ in found.values()]
    assert all(
        torch.equal(row, found[tuple(c)][1]) for c, row in zip(x.tolist(), rows, strict=True)
    )
    assert context_index(x, 5).tolist() == [5 * a + b for a, b in found]
    # One order of contexts everywhere: the rows of a uniform prior are in the order of the index.
    tables = EVERY[2].tables(generator())
    contexts = live_contexts(tables)
    assert torch.equal(tables[-1].flatten(0, 1)[context_index(contexts.x, 5)], contexts.rows)


def test_tables_of_other_shapes_are_refused():
    with pytest.raises(ValueError, match=r"`tables` have shapes \[\(3,\), \(3, 4\)\]"):
        live_contexts([torch.ones(3), torch.ones(3, 4)])


def test_powers_in_an_order_of_their_own_for_each_context():
    tables = PowerUnif([1.0, 0.5, 0.9], [3, 4, 2], vocab_size=5).tables(generator())
    for table, weights in zip(
        tables, ([1, 1, 1, 0, 0], [1, 0.5, 0.25, 0.125, 0], [1, 0.9, 0, 0, 0]), strict=True
    ):
        expected = torch.tensor(weights).double() / sum(weights)
        found = table.sort(-1, descending=True).values
        torch.testing.assert_close(found, expected.expand_as(found), rtol=1e-7, atol=1e-7)
    assert len(set(tables[2].flatten(0, 1).argmax(-1).tolist())) > 2


def test_skewed_symbols_are_drawn_in_proportion():
    tables = LastPosition(vocab_size=4, order=8, skew=2.0, peak=0.7).tables(generator())
    symbols = tables[-1].flatten(0, -2).argmax(-1)
    weights = torch.tensor([1.0, 0.75**2, 0.5**2, 0.25**2])
    share = torch.bincount(symbols, minlength=4) / len(symbols)
    assert (share - weights / weights.sum()).abs().max() < 0.01
    assert tables[-1].flatten(0, -2).amax(-1).unique().item() == 0.7


def centred(tables):
    logits = tables[-1].flatten(0, -2).log()
    return logits - logits.mean(-1, keepdim=True)


def test_log_probabilities_of_a_rank_lie_in_the_span_of_its_directions():
    distribution = RankD(vocab_size=8, order=3, rank=3, importance=0.5, flat=0.2)
    found = centred(distribution.tables(generator()))
    values = torch.linalg.svdvals(found)
    assert values[2] > 1e3 * values[3]
    directions = distribution.directions(generator())
    w = directions - directions.mean(0)
    rest = found - found @ w @ torch.linalg.pinv(w)
    assert rest.abs().max() < 1e-12
    z = found @ torch.linalg.pinv(w).T / 0.2
    sd = (z**2).mean(0).sqrt()
    assert ((sd / torch.tensor([1.0, 0.5, 0.25])).log().abs() < 0.3).all()
    aligned = RankD(vocab_size=8, rank=3, axis_aligned=True)
    assert torch.equal(aligned.directions(generator()), torch.eye(8, 3).double())


def test_singular_values_of_almost_a_rank():
    distribution = AlmostRankD(vocab_size=10, rank=4, axis_aligned=True, large=20.0, small=2.0)
    rows = distribution.tables(generator())[-1].flatten(0, 1)
    logits = rows.log() - (rows.log()[:, -1:])
    # Columns are orthogonal, with norms 20 and 2, up to each row's constant.
    centre = torch.eye(10).double() - 0.1
    expected = centre @ torch.diag(torch.tensor([400.0] * 4 + [4.0] * 6).double()) @ centre
    shown = logits @ centre
    torch.testing.assert_close(shown.T @ shown, expected)
    turned = centred(AlmostRankD(vocab_size=10, rank=4).tables(generator()))
    values = torch.linalg.svdvals(turned)
    assert 15 < values[3] <= values[0] < 20.001
    assert values[4] < 2.001 * 2
    assert values[8] > 1.9


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PowerUnif([1.0], [2, 2], 5), r"`alphas` is \[1.0\] and `num_tokens` \[2, 2\]"),
        (lambda: PowerUnif([1.0, 1.0], [2, 6], 5), r"`num_tokens` is \[2, 6\].*`vocab_size`=5"),
        (lambda: LastPosition(vocab_size=1), "`vocab_size` is 1, expected at least 2"),
        (lambda: LastPosition(order=1), "`order` is 1, expected at least 2"),
        (lambda: LastPosition(peak=1.5), "`peak` is 1.5"),
        (lambda: PowerUnif([1.0, math.nan], [2, 2], 5), r"`alphas\[1\]` is nan"),
        (lambda: LastPosition(skew=math.nan), "`skew` is nan, expected a finite number"),
        (lambda: RankD(flat=math.inf), "`flat` is inf, expected a finite number"),
        (lambda: AlmostRankD(large=math.nan), "`large` is nan, expected a finite number"),
        (lambda: RankD(rank=11), "`rank` is 11, expected 1 to `vocab_size`=10"),
    ],
)
def test_arguments_out_of_range_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
