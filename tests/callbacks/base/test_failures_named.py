"""Errors name the diagnostic; what ``compute`` returns are numbers."""

import numpy
import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule, Trainer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lit_credit.callbacks import (
    AttentionMaps,
    CreditAlignment,
    Diagnostic,
    EmbeddingGeometry,
    GradientNorms,
    ResidualNorms,
)
from lit_credit.callbacks.base.values import as_numbers
from lit_credit.functional import feature_dimensionality, mean_squared_cosine


class Scaled(LightningModule):
    """A net, and beside it parameters of the names that are in it."""

    def __init__(self, manual=False):
        super().__init__()
        self.net = nn.Linear(4, 3)
        self.weight = nn.Parameter(torch.ones(3))
        self.bias = nn.Parameter(torch.zeros(3))
        self.automatic_optimization = not manual

    def training_step(self, batch):
        x, y = batch
        return nn.functional.cross_entropy(self.net(x) * self.weight + self.bias, y)

    def validation_step(self, batch):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def fit(tmp_path, callback, module=None):
    rows = TensorDataset(torch.randn(8, 4), torch.arange(8) % 3)
    module = module or Scaled()
    options = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    Trainer(
        default_root_dir=tmp_path,
        max_epochs=1,
        accelerator="cpu",
        enable_checkpointing=False,
        callbacks=[callback],
        **options,
    ).fit(module, DataLoader(rows, 4), DataLoader(rows, 4))
    return callback.history.rows[0]["values"]


@pytest.mark.parametrize(
    ("callback", "manual"),
    [
        (GradientNorms(units=["nett"]), False),
        (EmbeddingGeometry(units=["nope"]), False),
        (AttentionMaps(), False),
        (ResidualNorms(units=["net"]), True),
        (GradientNorms(units=["net"], loss=lambda m, b: m.net(b[0]).detach().sum()), False),
    ],
)
def test_an_error_before_training_names_the_callback(tmp_path, callback, manual):
    with pytest.raises((ValueError, MisconfigurationException, RuntimeError)) as caught:
        fit(tmp_path, callback, Scaled(manual))
    assert str(caught.value).count(type(callback).__name__) == 1


class Norms(Diagnostic):
    name = "norms"
    section = "norms"

    def update(self, chunk):
        self.found = {name: p.norm() for name, p in chunk.module.named_parameters()}

    def compute(self):
        return self.found


def test_compute_may_return_tensors_of_one_number(tmp_path):
    module = Scaled()
    values = fit(tmp_path, Norms(), module)
    assert all(type(value) is float for value in values.values())
    assert values["norms/weight"] == pytest.approx(3**0.5)
    found = {"a": numpy.float32(0.5), "b": numpy.ones(1), "c": torch.ones(1, 1), "d": 2}
    assert as_numbers("Norms", found) == {"a": 0.5, "b": 1.0, "c": 1.0, "d": 2}


@pytest.mark.parametrize("values", [[1.0], {"a": torch.ones(3)}, {"a": "x"}, {"a": 1j}])
def test_what_is_no_number_is_refused_by_name(values):
    with pytest.raises(TypeError, match="`compute` of Norms"):
        as_numbers("Norms", values)


def test_parameters_of_one_name_in_and_beside_the_net_have_a_tag_each(tmp_path):
    values = fit(tmp_path, CreditAlignment(n_samples=8))
    names = {"net.weight", "net.bias", "weight", "bias"}
    assert set(values) == {f"credit/update/{name}" for name in names}


def test_complex_vectors_keep_their_imaginary_part():
    w = torch.tensor([[1.0, 1.0j], [1.0, -1.0j], [1.0j, -1.0]])
    # |<a, b>|^2 by hand: the first two are orthogonal, the third is i times the first.
    assert float(mean_squared_cosine(w)) == pytest.approx(1 / 3)
    assert feature_dimensionality(w).tolist() == pytest.approx([0.5, 1.0, 0.5])
