"""A missing loss is one error, and only of diagnostics that need one."""

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule
from torch import nn

from lit_credit.callbacks import (
    AttentionMaps,
    CircuitMatching,
    CreditAlignment,
    GradientNorms,
    ResidualNorms,
)
from lit_credit.callbacks.base.first_run import check_first_run
from lit_credit.inspect.plain_module import plain_module

X = torch.zeros(3, 2)
FORWARD = (AttentionMaps(), CircuitMatching(), ResidualNorms())


class Manual(LightningModule):
    automatic_optimization = False

    def training_step(self, batch, batch_idx):
        """Trains."""


class Runs(Manual):
    def run_batch(self, batch):
        return batch


def test_all_that_miss_a_loss_are_named_at_once():
    wanting = (*FORWARD, GradientNorms(), CreditAlignment(), GradientNorms())
    named = r"^GradientNorms, CreditAlignment need a loss, but {}.*leave out GradientNorms, Credit"
    for module, why in (
        (plain_module(nn.Linear(2, 2)), r"the output of Linear has no `loss`"),
        (Manual(), "Manual optimizes manually"),
        (Runs(), "Runs optimizes manually"),
    ):
        with pytest.raises(MisconfigurationException, match=named.format(why)):
            check_first_run(module, wanting, X)
    check_first_run(Runs(), FORWARD, X)
    given = GradientNorms(loss=lambda net, batch: net(batch).mean())
    check_first_run(plain_module(nn.Linear(2, 2)), [*FORWARD, given], X)
    with pytest.raises(
        MisconfigurationException, match=r"manually.*`run_batch\(batch\)` that runs"
    ):
        check_first_run(Manual(), FORWARD, X)


def test_a_net_that_does_not_run_is_explained_before_anything_is_measured():
    net = nn.Linear(2, 2)
    with pytest.raises(MisconfigurationException, match=r"^Linear failed, called with 1 of the 2"):
        check_first_run(plain_module(net), FORWARD, (X[:, :1], X))
    check_first_run(plain_module(net), [CircuitMatching()], None)  # its proof may lack rows


def test_the_run_leaves_the_net_as_it_was():
    net = nn.Sequential(nn.BatchNorm1d(2), nn.Dropout()).train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    check_first_run(plain_module(net), FORWARD, X)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert net[1].training


class OnlyInTraining(nn.Linear):
    """Returns a loss in train mode only, as torchvision's detectors."""

    def forward(self, x):
        found = super().forward(x)
        return found.mean() if self.training else found


def test_a_loss_is_looked_for_in_the_mode_of_the_diagnostic():
    module = plain_module(OnlyInTraining(2, 2).train())
    check_first_run(module, [ResidualNorms(), GradientNorms(mode="train")], X)
    with pytest.raises(MisconfigurationException, match=r"^CreditAlignment needs a loss"):
        check_first_run(module, [CreditAlignment(), GradientNorms(mode="train")], X)
