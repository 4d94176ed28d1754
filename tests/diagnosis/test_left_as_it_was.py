"""What is measured comes back as it was: also after an error, and from inside of a fit."""

import math
from contextlib import nullcontext
from functools import partial

import pytest
import torch
from lightning.pytorch import Callback, LightningModule
from torch import nn

from lit_credit.callbacks import GradientNorms, ResidualNorms
from lit_credit.diagnosis import diagnose
from lit_credit.testing import KINDS, STATES, SmallNet
from lit_credit.testing.check import Features
from lit_credit.testing.modules import given_loss
from lit_credit.testing.seen_state import random_states, seen_state
from lit_credit.testing.stateful import StatefulNet
from tests import support
from tests.support import NoisyNet, Validated

UNITS = ["embed", "blocks.*"]
TRAINER = {"max_epochs": 1, "logger": False}


def everything(module):
    """All that a person can see of a module, and where its tensors lie."""
    places = {n: (p.data_ptr(), p.requires_grad) for n, p in module.named_parameters()}
    places |= {n: b.data_ptr() for n, b in module.named_buffers()}
    trainers = [vars(c).get("_trainer") for c in module.modules()]
    grads = [p.grad is not None and p.grad.data_ptr() for p in module.parameters()]
    return seen_state(module), random_states(), places, list(map(id, trainers)), grads


def moved(module, by):
    """Weights like those of the module after some training."""
    weights = module.state_dict().items()
    return {name: value + by if value.is_floating_point() else value for name, value in weights}


class Fails(ResidualNorms):
    """Raises in its second measurement."""

    def __init__(self, error=None, **kwargs):
        super().__init__(n_samples=6, **kwargs)
        self.error, self.count = error, 0

    def compute(self):
        self.count += 1
        if self.count == 2 and self.error is not None:
            raise self.error
        return super().compute()


def plain():
    torch.manual_seed(0)
    net = NoisyNet()
    net.blocks[0].eval()
    net.embed[0].weight.requires_grad_(False)
    net(torch.randn(8, 12)).sum().backward()
    net.head.register_forward_hook(lambda *_: None)
    return net, support.val_loader(), {"units": UNITS}


def of_kind(kind):
    """A module that was trained, and keeps states wherever a net may keep one."""
    torch.manual_seed(1)
    module = KINDS[kind](StatefulNet(SmallNet(), tuple(STATES)), 4)
    options = {"max_epochs": 1, "default_root_dir": None}
    support.quiet_trainer(**options).fit(module, datamodule=Features())
    return module, Features(), {"loss": given_loss} if kind in ("manual", "given_loss") else {}


MODULES = {"nn.Module": plain} | {kind: partial(of_kind, kind) for kind in KINDS}
ERRORS = {"none": None, "ValueError": ValueError("wrong"), "Ctrl-C": KeyboardInterrupt()}


@pytest.mark.filterwarnings("ignore:Fails could not be measured")
@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS)
@pytest.mark.parametrize("make", MODULES.values(), ids=MODULES)
def test_the_model_comes_back(make, error):
    module, data, options = make()
    series = [(step, moved(module, step)) for step in (1, 2, 3)]
    diagnostic = Fails(error, **options)
    before, given = everything(module), dict(vars(diagnostic))
    ends = pytest.raises(KeyboardInterrupt) if error is ERRORS["Ctrl-C"] else nullcontext()
    with ends:
        found = diagnose(module, diagnostic, data, checkpoints=series)
        assert [math.isnan(sum(r["values"].values())) for r in found["residual_norms"].rows] == [
            False,
            error is not None,
            False,
        ]
    for one, other in zip(before, everything(module), strict=True):
        assert one == other
    assert vars(diagnostic) == given


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_it_measures_gradients_where_autograd_is_off(context):
    net = NoisyNet()
    diagnostic = GradientNorms(units=UNITS, n_samples=6)
    loss = {"loss": lambda net, batch: net(batch[0]).square().mean()}
    wanted = diagnose(net, diagnostic, support.val_loader(), **loss).rows
    with context():
        assert diagnose(net, diagnostic, support.val_loader(), **loss).rows == wanted


class Diagnoses(Callback):
    """Calls a diagnosis inside of a fit, over other weights too."""

    def __init__(self):
        self.rows = []

    def on_train_batch_end(self, trainer, pl_module, *args):
        now = pl_module.state_dict()
        series = [(1, {name: v.clone() for name, v in now.items()}), (2, moved(pl_module, 1))]
        diagnostic = ResidualNorms(units=["model.embed"], n_samples=6)
        found = diagnose(pl_module, diagnostic, support.val_loader(), checkpoints=series)
        self.rows.append(found["residual_norms"].rows[0]["values"])


def test_inside_of_a_fit_it_changes_nothing(tmp_path):
    callback = ResidualNorms(units=["model.embed"], n_samples=6, every_n_steps=1)
    inside = Diagnoses()
    bare, seen = (
        support.fit(tmp_path, Validated(), one, **TRAINER).lightning_module
        for one in (callback, inside)
    )
    assert support.same_state(bare, seen)
    assert inside.rows == [row["values"] for row in callback.history.rows[1:]]


class BuiltInSetup(LightningModule):
    """Builds its layer whenever a Trainer sets it up."""

    def setup(self, stage):
        self.layer = nn.Linear(2, 2, bias=False)

    def forward(self, batch):
        return self.layer(batch)

    def training_step(self, batch, batch_idx):
        return self(batch).sum()


def test_setup_that_builds_again_keeps_the_weights():
    module = BuiltInSetup()
    module.setup("fit")
    nn.init.eye_(module.layer.weight)
    layer = module.layer
    found = diagnose(module, ResidualNorms(units=["layer"]), torch.tensor([[3.0, 4.0]]))
    assert found["residual_norms"].values["residual/norm/L01"] == 5.0
    assert module.layer is layer


class Diagnosing(Callback):
    """Measures at the ends of epochs and of the training."""

    def __init__(self):
        self.seen = []

    def on_train_epoch_end(self, trainer, pl_module):
        found = diagnose(pl_module, ResidualNorms(units=UNITS), support.val_loader())
        self.seen += [(row["step"], row["epoch"]) for row in found["residual_norms"].rows]

    on_train_end = on_train_epoch_end


def test_epochs_completed_in_the_hooks_of_a_fit():
    callback = Diagnosing()
    trainer = support.quiet_trainer(max_epochs=2, logger=False, callbacks=[callback])
    trainer.fit(Validated(), support.val_loader())
    steps = trainer.global_step
    assert callback.seen == [(steps // 2, 1), (steps, 2), (steps, 2)]
