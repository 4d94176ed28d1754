"""Sequences with a pattern written twice."""

from collections import Counter
from types import SimpleNamespace

import pytest
import torch

from lit_credit.cli import main
from lit_credit.studies.copying import Copying


def evaluation(**options):
    data = Copying(val_samples=400, **options)
    (batch,) = data.val_dataloader()
    x, y, scored, ood = batch
    tokens = torch.cat([x, y[:, -1:]], 1)
    assert torch.equal(x[:, 1:], y[:, :-1])
    return tokens, scored, ood


def copies(row, least):
    """Ends (of the first and of the second copy) and length of the longest repetition."""
    best = 0, 0, 0
    for i in range(len(row)):
        for j in range(i + 1, len(row)):
            size = 0
            while j - size > i and i >= size and row[i - size] == row[j - size]:
                size += 1
            best = max(best, (size, i, j))
    assert best[0] >= least
    return best


def test_a_pattern_is_there_twice_without_overlap_and_its_copy_is_scored():
    tokens, scored, ood = evaluation()
    assert ood.tolist() == [False, True] * 400
    for row, where, new in list(zip(tokens.tolist(), scored, ood, strict=True))[:24]:
        size, first, second = copies(row, 25 if new else 10)
        inputs = where.nonzero().flatten().tolist()
        assert inputs == list(range(inputs[0], inputs[-1] + 1))
        # The repetition may go on by chance on both sides, at most by a few symbols.
        start, end = second - size + 1, second
        assert 0 <= inputs[0] - (start + 4) <= 3
        assert 0 <= end - (inputs[-1] + 1) <= 3
        if new:
            assert len(inputs) == 20
        gap = second - first
        assert [row[i + 1] for i in inputs] == [row[i + 1 - gap] for i in inputs]


def test_the_published_mask_takes_one_symbol_more_that_cannot_be_copied():
    right, published = (evaluation(scored=kind) for kind in ("copy", "published"))
    assert torch.equal(right[0], published[0])
    more = published[1] & ~right[1]
    assert set(more.sum(1).tolist()) <= {0, 1}  # none where the copy ends the sequence
    ends = right[1].float().cumsum(1).argmax(1)
    assert all(row[end + 1] for row, end in zip(more, ends, strict=True) if row.any())
    # A perfect copier still errs on it: the floor of the published error.
    ood = right[2]
    floor = (1 - 1 / 64) * more[ood].sum() / published[1][ood].sum()
    assert 0.044 < floor < 0.048


def test_symbols_are_zipf_in_distribution_and_uniform_out_of_it():
    tokens, _, ood = evaluation()
    p = 1 / (torch.arange(1, 65) + 2.7)
    for rows, expected in ((tokens[~ood], p / p.sum()), (tokens[ood], torch.full((64,), 1 / 64))):
        counts = torch.bincount(rows.flatten(), minlength=64) / rows.numel()
        assert (counts - expected).abs().max() < 0.008
    x, *_ = next(iter(Copying(batch_size=2000).train_dataloader()))
    counts = torch.bincount(x.flatten(), minlength=64) / x.numel()
    assert (counts - p / p.sum()).abs().max() < 0.004


def test_offsets_and_lengths_cover_their_range():
    data = Copying(length=12, pattern_lengths=(3, 4), ood_pattern_length=4, burn_in=1)
    (_, _, scored, ood) = next(iter(data.val_dataloader()))
    starts = (scored.float().argmax(1) - 1)[ood]  # of the second copy: g_1 + 4, g_1 in 1 .. 3
    assert set(starts.tolist()) == {5, 6, 7}
    assert set(scored.sum(1)[~ood].tolist()) == {1, 2}


def test_a_pool_has_so_many_patterns_and_out_of_distribution_ignores_it():
    data = Copying(pool_size=3, batch_size=200, steps_per_epoch=2)
    patterns, lengths = data._pool()
    known = {tuple(p[:n]) for p, n in zip(patterns.tolist(), lengths.tolist(), strict=True)}
    assert len(known) == 3

    def found(rows):
        texts = ["," + ",".join(map(str, row)) + "," for row in rows.tolist()]
        return [
            [p for p in known if text.count("," + ",".join(map(str, p)) + ",") == 2]
            for text in texts
        ]

    x, y, _, _ = next(iter(data.train_dataloader()))
    seen = Counter(p for hits in found(torch.cat([x, y[:, -1:]], 1)) for p in hits)
    assert sum(seen.values()) == 200
    assert min(seen.values()) > 40
    (batch,) = data.val_dataloader()
    rows, ood = torch.cat([batch[0], batch[1][:, -1:]], 1), batch[3]
    assert all(len(hits) == 1 for hits in found(rows[~ood][:50]))
    assert not any(found(rows[ood][:50]))


def test_batches_depend_on_seed_epoch_and_batch_and_evaluations_on_the_seed():
    def rows(loader):
        return [batch[0].tolist() for batch in loader]

    def make(seed):
        return Copying(seed=seed, steps_per_epoch=2, batch_size=4, val_samples=8, test_samples=8)

    loader = make(1).train_dataloader()
    first, second = rows(loader), rows(loader)
    assert len({str(x) for x in (*first, *second)}) == 4
    assert rows(make(1).train_dataloader()) == first
    assert rows(make(2).train_dataloader()) != first
    val = rows(make(1).val_dataloader())
    assert rows(make(1).val_dataloader()) == val
    assert rows(make(2).val_dataloader()) != val != rows(make(1).test_dataloader())


def test_two_processes_share_the_batch_of_one():
    def first(rank, world_size):
        data = Copying(batch_size=4, seed=0)
        data.trainer = SimpleNamespace(global_rank=rank, world_size=world_size)
        return next(iter(data.train_dataloader()))[0]

    assert torch.equal(torch.cat([first(0, 2), first(1, 2)]), first(0, 1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"length": 51}, r"`length` is 51, too short for two patterns of 25.*at least 52"),
        ({"pattern_lengths": (9, 5)}, r"`pattern_lengths` is \[9, 5\]"),
        ({"pattern_lengths": (5, 9)}, r"`burn_in` is 4.*a pattern of 5"),
        ({"pool_size": 0}, r"`pool_size` is 0, expected at least 1"),
        ({"scored": "all"}, r"`scored` is 'all', expected 'copy' or 'published'"),
    ],
)
def test_arguments_out_of_range_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        Copying(**options)


def test_a_net_with_too_few_symbols_is_refused_before_training(tmp_path, capsys):
    args = ["fit", "--config", "configs/copying/demo.yaml", "--trainer.fast_dev_run", "1"]
    args += ["--model.init_args.net.init_args.vocab_size", "32"]
    assert main([*args, "--trainer.default_root_dir", str(tmp_path)]) == 1
    assert "`vocab_size` of the net is 32, but the data have 64" in capsys.readouterr().err
