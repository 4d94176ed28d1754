"""n-grams in batches: what is drawn, what is exact, and what two processes share."""

from types import SimpleNamespace

import pytest
import torch

from lit_credit.cli import main
from lit_credit.studies.ngram import AlmostRankD, NGram, PowerUnif
from lit_credit.studies.ngram.distributions import joint

SPARSE = PowerUnif([1.0, 0.5, 0.9], [3, 4, 2], vocab_size=5)


def processes(world_size, **options):
    for rank in range(world_size):
        data = NGram(SPARSE, seed=0, **options)
        data.trainer = SimpleNamespace(global_rank=rank, world_size=world_size)
        yield data


def test_samples_are_drawn_from_the_joint_distribution():
    data = NGram(SPARSE, batch_size=200_000, seed=3)
    x, y, rows, weight = next(iter(data.train_dataloader()))
    expected = joint(data.tables())
    found = torch.zeros(5, 5, 5).double()
    found.index_put_((x[:, 0], x[:, 1], y), torch.tensor(1 / len(y)).double(), accumulate=True)
    assert (found - expected).abs().max() < 0.003
    assert ((found > 0) <= (expected > 0)).all()
    assert torch.equal(rows, data.tables()[-1][x[:, 0], x[:, 1]].float())
    assert (weight == 1).all()


def test_all_contexts_at_every_update_and_in_validation():
    data = NGram(SPARSE, mode="exact", steps_per_epoch=3, seed=3)
    batches = [*data.train_dataloader(), *data.val_dataloader(), *data.test_dataloader()]
    assert len(batches) == 5
    contexts = data.contexts()
    for number, (x, y, rows, weight) in enumerate(batches):
        if number >= 3:  # validation and test mix them
            assert not torch.equal(x, contexts.x)
            order = (5 * x[:, 0] + x[:, 1]).argsort()
            x, y, rows, weight = (part[order] for part in (x, y, rows, weight))
        assert torch.equal(x, contexts.x)
        assert torch.equal(y, contexts.rows.float())
        assert torch.equal(rows, y)
        torch.testing.assert_close(weight, (contexts.prior * 12).float())


def test_batches_depend_on_seed_epoch_and_batch_and_tables_on_their_seed():
    def rows(loader):
        return [batch[0].tolist() for batch in loader]

    def make(**seeds):
        return NGram(SPARSE, steps_per_epoch=2, batch_size=9, **seeds)

    loader = make(seed=1).train_dataloader()
    first, second = rows(loader), rows(loader)
    assert len({str(x) for x in (*first, *second)}) == 4
    assert rows(make(seed=1).train_dataloader()) == first != rows(make(seed=2).train_dataloader())
    tables = [
        make(**seeds).tables()[-1]
        for seeds in ({"seed": 1}, {"seed": 2}, {"seed": 2, "distribution_seed": 1})
    ]
    assert torch.equal(tables[0], tables[2])
    assert not torch.equal(tables[0], tables[1])


def test_a_resumed_run_keeps_its_tables():
    data = NGram(SPARSE)
    before = data.contexts()
    data.load_state_dict({"seed": 9})
    assert torch.equal(data.contexts().rows, NGram(SPARSE, seed=9).contexts().rows)
    assert not torch.equal(data.contexts().rows, before.rows)


@pytest.mark.parametrize("mode", ["sampled", "exact"])
def test_processes_share_the_batch_of_one(mode):
    """12 contexts for 5 processes: 3 samples without weight fill up the last shares."""
    (one,) = processes(1, mode=mode, batch_size=10)
    whole = next(iter(one.train_dataloader()))
    parts = [next(iter(data.train_dataloader())) for data in processes(5, mode=mode, batch_size=10)]
    joined = [torch.cat(column) for column in zip(*parts, strict=True)]
    if mode == "sampled":
        assert all(map(torch.equal, joined, whole))
        return
    assert len({len(part[0]) for part in parts}) == 1
    weight = joined[3]
    assert (weight[12:] == 0).all()
    assert torch.equal(joined[0][:12], whole[0])
    torch.testing.assert_close(weight[:12] / 15, whole[3] / 12)
    # The mean over processes of their mean losses is that of one process.
    value = torch.arange(5.0)
    means = torch.stack([(w * value[y.argmax(-1)]).mean() for _, y, _, w in parts])
    torch.testing.assert_close(means.mean(), (whole[3] * value[whole[1].argmax(-1)]).mean())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "all"}, "`mode` is 'all', expected 'sampled' or 'exact'"),
        ({"steps_per_epoch": 0}, "`steps_per_epoch` is 0"),
    ],
)
def test_arguments_out_of_range_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        NGram(AlmostRankD(), **options)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("vocab_size", "`vocab_size` of the net is 7, but the data have 10 symbols"),
        ("block_size", "`block_size` of the net is 7, but the data have 2 symbols of context"),
    ],
)
def test_a_net_of_another_size_is_refused_before_training(option, message, tmp_path, capsys):
    args = ["fit", "--config", "configs/ngram_memorization/heads.yaml"]
    args += [f"--model.init_args.net.init_args.{option}", "7", "--trainer.fast_dev_run", "1"]
    assert main([*args, "--trainer.default_root_dir", str(tmp_path)]) == 1
    assert message in capsys.readouterr().err
