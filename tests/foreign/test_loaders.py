"""Loaders as other projects have them."""

import pytest
import torch
from lightning.pytorch.utilities import CombinedLoader
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset

from lit_credit.callbacks import GradientNorms, ResidualNorms
from tests import support
from tests.support import Foreign, Validated, train_loader, val_loader
from tests.support.watched import UNITS, fit


class Pairs(Validated):
    """Each batch is one of either loader."""

    def training_step(self, batch, batch_idx):
        return sum(F.cross_entropy(self.model(x), y) for x, y in (batch["a"], batch["b"]))

    def validation_step(self, batch, batch_idx):
        self.log("val/loss", self.training_step(batch, batch_idx))


@pytest.mark.parametrize("validates", [True, False])
def test_combined_loaders_give_a_probe_of_all(validates, tmp_path):
    def combined(first):
        return CombinedLoader({"a": first, "b": val_loader()}, "max_size_cycle")

    modules, options = [], {"num_sanity_val_steps": 1} if validates else {"limit_val_batches": 0}
    for callbacks in ([], [GradientNorms(units=UNITS, n_samples=7, figure=False)]):
        modules.append(Pairs())
        both = (combined(support.shuffled()), combined(train_loader()))
        fit(tmp_path, modules[-1], *callbacks, data=lambda both=both: both, **options)
    assert support.same_state(*modules)
    found = callbacks[0].probe.chunks[0]
    assert set(found) == {"a", "b"}
    assert found["b"][0].equal(support.tensors(20, seed=1)[0][: len(found["b"][0])])


class Stream(IterableDataset):
    """Nobody knows how long, with a number in each batch before its rows."""

    def __iter__(self):
        x, y = support.tensors(20, seed=1)
        return ((torch.tensor(0.5), *rows) for rows in zip(x.split(4), y.split(4), strict=True))


class Scaled(Foreign):
    def training_step(self, batch, batch_idx):
        scale, *pair = batch if len(batch) == 3 else (1.0, *batch)
        return scale * super().training_step(tuple(pair), batch_idx)

    def validation_step(self, batch, batch_idx):
        pass


def test_a_stream_of_batches_that_begin_with_a_number(tmp_path):
    callback = GradientNorms(units=UNITS, n_samples=7, figure=False)
    stream = DataLoader(Stream(), batch_size=None)
    fit(tmp_path, Scaled(), callback, data=lambda: (train_loader(), stream))
    scale, x, _ = callback.probe.chunks[0]
    assert float(scale) == 0.5
    assert x.equal(support.tensors(20, seed=1)[0][:7])


class Persistent(DataLoader):
    """Keeps its iterator, and a random state in it, as one with persistent workers."""

    def __iter__(self):
        self._iterator = self._iterator or torch.Generator().manual_seed(0)
        draws = self._iterator
        return ((x + torch.rand(x.shape, generator=draws), y) for x, y in super().__iter__())


def test_persistent_workers_draw_nothing_for_the_probe(tmp_path):
    modules = []
    for callbacks in ([], [ResidualNorms(units=UNITS, n_samples=7, figure=False)]):
        modules.append(Foreign())
        loader = Persistent(support.Rows(16, "tuple"), batch_size=8)
        fit(tmp_path, modules[-1], *callbacks, data=lambda one=loader: [one])
    assert support.same_state(*modules)
