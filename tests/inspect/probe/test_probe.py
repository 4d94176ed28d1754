"""The rows that diagnostics look at, and the training that must not notice."""

import logging
import random
from functools import partial
from itertools import chain

import numpy as np
import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.utilities import CombinedLoader
from torch import nn
from torch.nn.utils.rnn import pack_sequence, pad_sequence
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, RandomSampler

from lit_credit.datamodules import TensorLoader
from lit_credit.inspect.probe.probe import take_probe
from tests import support


class Any_(LightningModule):
    """Trains on whatever it gets."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def training_step(self, batch, batch_idx):
        return self.weight.square().sum()

    def validation_step(self, batch, batch_idx):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


class Taking(Callback):
    """Takes probes when training starts."""

    def __init__(self, *wanted):
        self.wanted = wanted
        self.probes = []

    def on_train_start(self, trainer, pl_module):
        self.probes = [take_probe(trainer, pl_module, *asked) for asked in self.wanted]


def take(folder, train, val, *wanted, module=None, **options):
    taking = Taking(*wanted)
    run = support.trainer(folder, taking, **({"logger": False, "max_epochs": 1} | options))
    loaders = {"train_dataloaders": train, "val_dataloaders": val}
    run.fit(module or Any_(), **{k: v for k, v in loaders.items() if v is not None})
    return taking.probes[0] if len(wanted) == 1 else taking.probes


class Samples(torch.utils.data.Dataset):
    """Sample i is made by a function."""

    def __init__(self, n, make):
        self.n, self.make = n, make

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        return self.make(i)


def row(i):
    return torch.full((3,), float(i)), i


def data(n, batch_size, make=row, **kwargs):
    return DataLoader(Samples(n, make), batch_size=batch_size, **kwargs)


def values(probe):
    return [chunk[0][:, 0].tolist() for chunk in probe.chunks]


# Chunks


@pytest.mark.parametrize(
    ("n_samples", "chunk_size", "rows"),
    [
        (10, 10, [10]),
        (10, 100, [10]),
        (10, 4, [4, 4, 2]),
        (10, 7, [7, 3]),
        (100, 8, [8, 8, 4]),
        (10, None, [5, 5]),
        (3, None, [3]),
        (1, 1, [1]),
    ],
)
@pytest.mark.parametrize("val_size", [1, 6, 20])
def test_the_first_rows_come_in_chunks(n_samples, chunk_size, rows, val_size, tmp_path):
    probe = take(tmp_path, data(10, 5), data(20, val_size), (n_samples, chunk_size))
    assert probe.rows == rows
    assert probe.n_rows == sum(rows)
    assert [len(chunk[1]) for chunk in probe.chunks] == rows
    assert list(chain(*values(probe))) == list(range(sum(rows)))


def test_a_training_batch_says_how_large_a_chunk_is(tmp_path):
    x = torch.arange(30.0)[:, None]

    class Stream(IterableDataset):
        def __iter__(self):
            return iter(x)

    class Batches:
        def __iter__(self):
            return iter(x.split(4))

    sampler = BatchSampler(RandomSampler(x), 7, drop_last=False)
    cases = [
        (data(30, 9), 9),
        (TensorLoader([x], 8), 8),
        (TensorLoader([x], 4, updates=2), 4),
        (DataLoader(Stream(), batch_size=5), 5),
        (DataLoader(x, batch_sampler=sampler), 7),
        ({"a": data(30, 6), "b": data(30, 8)}, 6),
        (Batches(), 10),  # does not say it: that of the validation batch
    ]
    for train, expected in cases:
        probe = take(tmp_path, train, data(20, 10), (20, None))
        assert probe.rows[0] == expected


def test_no_more_memory_is_held_than_the_rows_take(tmp_path):
    probe = take(tmp_path, data(10, 5), data(64, 64), (12, 4))
    for chunk in probe.chunks:
        assert chunk[0].untyped_storage().nbytes() == 4 * 3 * 4


def test_rows_of_other_widths_are_not_joined(tmp_path):
    def collate(rows):
        return pad_sequence([torch.ones(i + 1) for _, i in rows], batch_first=True), len(rows)

    probe = take(tmp_path, data(9, 3), data(9, 3, collate_fn=collate), (8, 4))
    assert [tuple(x.shape) for x, _ in probe.chunks] == [(3, 3), (3, 6), (2, 9)]
    assert [count for _, count in probe.chunks] == probe.rows == [3, 3, 2]
    probe = take(tmp_path, data(9, 3), data(9, 3, collate_fn=collate), (9, 2))
    assert probe.rows == [2, 1, 2, 1, 2, 1]


# Rows that are not known


class Graph:
    def __init__(self, n):
        self.x = torch.ones(n)


def images(rows):
    """Detection, with as many samples as channels and boxes."""
    return [torch.zeros(3, 5, 5) for _ in rows], [{"boxes": torch.ones(3, 4)} for _ in rows]


def nodes(rows):
    n = [1 + i % 3 for _, i in rows]
    index = torch.arange(len(n)).repeat_interleave(torch.tensor(n))
    return torch.randn(sum(n), 2), index, torch.ones(len(n))


UNKNOWN = {
    "graphs": nodes,
    "detection": images,
    "sequences of one length": lambda rows: [torch.ones(4, 2) for _ in rows],
    "sequences": lambda rows: ([torch.ones(i + 1) for _, i in rows], torch.ones(len(rows))),
    "objects": lambda rows: Graph(len(rows)),
    "packed": lambda rows: pack_sequence([torch.ones(3, 1) for _ in rows]),
    "jagged": lambda rows: torch.nested.nested_tensor(
        [torch.ones(i + 1) for _, i in rows], layout=torch.jagged
    ),
    "sparse": lambda rows: torch.ones(len(rows), 2).to_sparse(),
    "time first": lambda rows: (torch.randn(3, len(rows)), torch.randn(3, len(rows))),
    "two views one behind the other": lambda rows: torch.randn(2 * len(rows), 2),
    "texts": lambda rows: "text",
}


@pytest.mark.parametrize("kind", UNKNOWN)
@pytest.mark.parametrize("streamed", [False, True])
def test_a_batch_of_unknown_rows_is_taken_whole(kind, streamed, tmp_path, caplog):
    collate = UNKNOWN[kind]
    val = data(12, 3, collate_fn=collate)
    if streamed:
        if kind in ("time first", "two views one behind the other"):
            pytest.skip("nothing says so")
        torch.manual_seed(0)
        batches = list(val)
        val = DataLoader(batches, batch_size=None, collate_fn=lambda batch: batch)
    with caplog.at_level(logging.INFO):
        probe = take(tmp_path, data(9, 3), val, (7, 2))
    said = [r.message for r in caplog.records if "rows of the val batches" in r.message]
    assert len(said) == 1
    assert "one whole batch" in said[0]
    assert len(said[0]) < 800
    assert (probe.rows, probe.n_rows, len(probe.chunks)) == ([1], 1, 1)
    first = collate([row(i) for i in range(3)])
    assert type(probe.chunks[0]) is type(first)
    assert probe.first(1) is probe.chunks[0]
    probe.check_size(7)  # rows are not counted, so there are not too few
    if kind == "graphs":
        assert probe.chunks[0][1].tolist() == [0, 1, 1, 2, 2, 2]


def test_samples_of_a_dataset_prove_what_one_batch_cannot(tmp_path):
    """A mask as large as the batch, two rows of two fields."""

    def collate(rows):
        x = torch.stack([x for x, _ in rows])
        return {
            "mask": torch.ones(3, 3).tril(),
            "x": x,
            "both": [x, x],
            "names": [f"row {i}" for _, i in rows],
            "n": len(rows),
        }

    for batch_size in (3, 2):
        val = data(12, batch_size, collate_fn=collate)
        probe = take(tmp_path, data(9, 3), val, (8, 5))
        assert probe.rows == [5, 3]
        one, other = probe.chunks
        assert one["mask"].shape == other["mask"].shape == (3, 3)
        assert [len(x) for x in one["both"]] == [5, 5]
        assert other["names"] == ["row 5", "row 6", "row 7"]
        assert (one["n"], other["n"]) == (5, 3)
        few = probe.first(2)
        assert (len(few["names"]), few["mask"].shape, few["n"]) == (2, (3, 3), 2)


def test_samples_of_a_stream_prove_it_too(tmp_path):
    class Pairs(IterableDataset):
        def __iter__(self):
            return ((torch.ones(4) + i, torch.ones(4) - i) for i in range(11))

    probe = take(tmp_path, data(9, 3), DataLoader(Pairs(), 2), (9, 4))
    assert probe.rows == [4, 4, 1]
    assert probe.chunks[1][0][:, 0].tolist() == [5, 6, 7, 8]

    class Sequences(Pairs):
        def __iter__(self):
            return (torch.ones(4, 2) + i for i in range(11))

    assert take(tmp_path, data(9, 3), DataLoader(Sequences(), 2, collate_fn=list), (9, 4)).rows == [
        1
    ]


def test_a_collate_function_that_takes_no_three_samples_leaves_it_to_the_batches(tmp_path):
    def collate(rows):
        assert len(rows) == 4
        return torch.stack([x for x, _ in rows]), torch.ones(2, 2)

    probe = take(tmp_path, data(9, 3), data(12, 4, collate_fn=collate), (8, 5))
    assert probe.rows == [5, 3]
    assert probe.chunks[1][1].shape == (2, 2)


def test_a_collate_function_that_leaves_samples_out_is_believed(tmp_path):
    def collate(rows):
        return torch.stack([x for x, i in rows if i % 4 != 3])

    probe = take(tmp_path, data(9, 3), data(12, 4, collate_fn=collate), (8, 8))
    assert probe.rows == [8]
    assert probe.chunks[0][:, 0].tolist() == [0, 1, 2, 4, 5, 6, 8, 9]


# Where it comes from


@pytest.mark.parametrize(
    ("options", "rows"),
    [
        ({"limit_val_batches": 2}, 10),
        ({"limit_val_batches": 1}, 5),
        ({"limit_val_batches": 0.5}, 10),
        ({"limit_val_batches": 1.0}, 20),
        ({"limit_val_batches": 0}, 20),
        ({"fast_dev_run": 1}, 5),
        ({"overfit_batches": 2}, 10),
    ],
)
def test_limits_of_batches_hold(options, rows, tmp_path, caplog):
    loaders = (data(20, 5), data(20, 5))
    probe = take(tmp_path, *loaders, (100, 100), **options)
    assert probe.n_rows == rows
    if rows < 20:
        with caplog.at_level(logging.INFO):
            probe.check_size(20)
        assert caplog.records[-1].message == (
            f"`limit_val_batches` leaves {rows} of 20 rows of `n_samples`."
        )
    else:
        with pytest.raises(ValueError, match=r"`n_samples` is 21.*only 20 rows.*at most 20"):
            probe.check_size(21)
    probe = take(tmp_path, data(20, 5), data(20, 5), (100, 100, "train"), limit_train_batches=3)
    assert (probe.n_rows, probe.limit) == (15, "limit_train_batches")


def test_training_data_are_taken_where_they_are_asked_for(tmp_path):
    train = data(20, 4, make=lambda i: row(i + 100))
    probes = take(tmp_path, train, data(20, 5), (6, None, "train"), (6, None, "val"))
    assert [probe.rows for probe in probes] == [[4, 2], [4, 2]]
    assert list(chain(*values(probes[0]))) == [100, 101, 102, 103, 104, 105]
    assert list(chain(*values(probes[1]))) == [0, 1, 2, 3, 4, 5]
    without = take(tmp_path, train, None, (6, None, "val"))
    assert values(without) == values(probes[0])


def test_several_training_loaders_are_read_together(tmp_path):
    train = {"a": data(20, 4), "b": data(20, 4, make=lambda i: row(i + 100))}
    for source, val in (("train", data(20, 5)), ("val", None)):
        probe = take(tmp_path, train, val, (6, None, source))
        assert probe.rows == [4, 2]
        assert probe.chunks[1]["b"][0][:, 0].tolist() == [104, 105]
    train["b"] = data(20, 3)
    assert take(tmp_path, train, None, (6, None, "train")).rows == [1]  # of 4 and of 3 rows


class Stream(IterableDataset):
    def __iter__(self):
        return iter([row(i) for i in range(12)])


class Self:
    """A loader that is its own iterator."""

    left = 9

    def __iter__(self):
        return self

    def __next__(self):
        self.left -= 1
        if not self.left:
            raise StopIteration
        return torch.ones(2, 1)


@pytest.mark.parametrize("make", [lambda: DataLoader(Stream(), batch_size=4), Self])
def test_training_data_that_would_be_lost_are_refused(make, tmp_path):
    for train in (make(), {"a": make(), "b": data(9, 3)}):
        for val, source in ((None, "val"), (data(9, 3), "train")):
            with pytest.raises(MisconfigurationException, match=r"Stream|Self") as raised:
                take(tmp_path, train, val, (4, 4, source))
            assert "validation data" in str(raised.value)
    if make is not Self:
        assert take(tmp_path, data(9, 3), make(), (6, 6)).rows == [6]


# What must not be noticed


class Drawing(torch.utils.data.Dataset):
    """Draws from states of its own, counts, and opens something at first use."""

    def __init__(self):
        self.numpy = np.random.default_rng(3)
        self.old = np.random.RandomState(3)
        self.python = {"deep": [random.Random(3)]}
        self.torch = torch.Generator().manual_seed(3)
        self.calls, self.asked, self.file = 0, [], None

    def __len__(self):
        return 24

    def __getitem__(self, i):
        self.calls += 1
        self.asked.append(i)
        self.file = self.file or "open"
        noise = [
            self.numpy.random(),
            self.old.rand(),
            self.python["deep"][0].random(),
            float(torch.rand((), generator=self.torch)),
            float(torch.rand(())),
        ]
        return torch.tensor([float(i), self.calls, *noise])


class Epochs(torch.utils.data.Sampler):
    """Another order each time."""

    def __init__(self):
        self.epoch = 0

    def __len__(self):
        return 24

    def __iter__(self):
        self.epoch += 1
        return iter(np.random.default_rng(self.epoch).permutation(24).tolist())


def drawn(draws):
    """A collate function that draws from what it closes over."""

    def collate(rows):
        return torch.stack(rows) + draws.random()

    return collate


def partly(rows, draws):
    return torch.stack(rows) + draws.random()


LOADERS = {
    "shuffled": lambda: DataLoader(Drawing(), batch_size=4, shuffle=True),
    "a generator": lambda: DataLoader(
        Drawing(), batch_size=4, shuffle=True, generator=torch.Generator().manual_seed(5)
    ),
    "a sampler": lambda: DataLoader(Drawing(), batch_size=4, sampler=Epochs()),
    "a batch sampler": lambda: DataLoader(
        Drawing(), batch_sampler=BatchSampler(Epochs(), 4, drop_last=True)
    ),
    "a closure": lambda: DataLoader(
        Drawing(), batch_size=4, collate_fn=drawn(np.random.default_rng(1))
    ),
    "a partial": lambda: DataLoader(
        Drawing(), batch_size=4, collate_fn=partial(partly, draws=random.Random(1))
    ),
    "workers": lambda: DataLoader(
        Drawing(), batch_size=4, shuffle=True, num_workers=2, persistent_workers=True
    ),
    "ours": lambda: TensorLoader([torch.arange(24.0)[:, None].expand(24, 7)], 4, seed=1),
    "several": lambda: CombinedLoader(
        {"a": DataLoader(Drawing(), batch_size=4), "b": DataLoader(Drawing(), batch_size=4)}
    ),
}


def flat(batch):
    """One tensor of all numbers of a batch."""
    parts = batch.values() if isinstance(batch, dict) else batch
    return batch.clone() if isinstance(batch, torch.Tensor) else torch.cat(list(parts))


class Seeing(Any_):
    """Keeps what it was trained on."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def training_step(self, batch, batch_idx):
        self.seen.append(flat(batch))
        return super().training_step(batch, batch_idx)


@pytest.mark.parametrize("kind", LOADERS)
def test_training_sees_what_it_would_have_seen(kind, tmp_path):
    seen, wanted = [], [(6, None, "train"), (9, 2, "train"), (5, None, "val")]
    for asked in ([], wanted):
        torch.manual_seed(11)
        module = Seeing()
        val = DataLoader(Drawing(), batch_size=4)
        take(tmp_path, LOADERS[kind](), val, *asked, module=module, max_epochs=2)
        seen.append(torch.stack(module.seen))
    assert torch.equal(*seen)


@pytest.mark.parametrize("kind", LOADERS)
def test_the_same_rows_are_taken_again(kind, tmp_path):
    """In one fit, and in a resumed one, which stands in another epoch."""
    if kind == "a sampler" or kind == "a batch sampler":
        pytest.skip("counts epochs in a way of its own")
    loader = LOADERS[kind]()
    probes = take(tmp_path, loader, None, (6, 6, "train"), (6, 6, "train"))
    found = [flat(probe.chunks[0]) for probe in probes]
    assert torch.equal(*found)
    if kind in ("shuffled", "ours"):
        torch.manual_seed(99)
        again = LOADERS[kind]()
        if kind == "ours":
            again.load_state_dict({"epoch": 3, "batch": 2})
        (resumed,) = take(tmp_path, again, None, (6, 6, "train")).chunks
        assert torch.equal(flat(resumed), found[0])
