"""Loaders as other projects have them."""

import pytest
import torch
from lightning.pytorch.utilities import CombinedLoader
from torch.nn import functional as F
from torch.utils.data import DataLoader

from lit_credit.callbacks import GradientNorms, ResidualNorms
from tests.callbacks import helpers
from tests.callbacks.helpers import Foreign, Validated, train_loader, val_loader
from tests.foreign.helpers import UNITS, fit


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
    for callbacks in ([], [GradientNorms(units=UNITS, n_samples=7)]):
        modules.append(Pairs())
        both = (combined(helpers.shuffled()), combined(train_loader()))
        fit(tmp_path, modules[-1], *callbacks, data=lambda both=both: both, **options)
    assert helpers.same_state(*modules)
    found = callbacks[0].probe
    assert set(found) == {"a", "b"}
    assert found["b"][0].equal(helpers.tensors(20, seed=1)[0][: len(found["b"][0])])


class Persistent(DataLoader):
    """Keeps its iterator, and a random state in it, as one with persistent workers."""

    def __iter__(self):
        self._iterator = self._iterator or torch.Generator().manual_seed(0)
        draws = self._iterator
        return ((x + torch.rand(x.shape, generator=draws), y) for x, y in super().__iter__())


def test_persistent_workers_draw_nothing_for_the_probe(tmp_path):
    modules = []
    for callbacks in ([], [ResidualNorms(units=UNITS, n_samples=7)]):
        modules.append(Foreign())
        loader = Persistent(helpers.Rows(16, "tuple"), batch_size=8)
        fit(tmp_path, modules[-1], *callbacks, data=lambda one=loader: [one])
    assert helpers.same_state(*modules)
