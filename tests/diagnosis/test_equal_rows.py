"""Rows of a diagnosis are those that callbacks wrote in training, to the bit."""

import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging

from lit_credit.callbacks import (
    AttentionMaps,
    CreditAlignment,
    GradientNorms,
    PartFreezing,
    ReferenceValidity,
    ResidualNorms,
    StagedTraining,
    WeightAlignment,
)
from lit_credit.datamodules import TensorLoader
from lit_credit.rules import BP, DFA, FA, BlockFA, FrozenUnits
from lit_credit.testing.modules import KINDS, given_loss
from tests import support
from tests.callbacks.test_contract import SCHEDULED, make, net_for, on_foreign
from tests.diagnosis.saved_runs import assert_equal, found, trained
from tests.rules.evaluation.test_weight_modes import ScheduleFreeSGD
from tests.support import Validated

RULES = [BP, FA, DFA, BlockFA, FrozenUnits]
OF_A_TRAINING = ("rank/update", "updates/ratio", "step/", "sharpness/times_lr", "noise/")
"""What depends on the last update, the optimizer, or the rows of training."""
NETS = {net: [k for k in SCHEDULED if net_for(k) is net] for net in map(net_for, SCHEDULED)}


@pytest.mark.few(3)
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("net", NETS)
def test_of_every_diagnostic_under_every_rule(net, rule, tmp_path):
    def diagnostics(**kwargs):
        kinds = [k for k in NETS[net] if k is not WeightAlignment or rule in (FA, DFA)]
        return [make(kind, **kwargs) for kind in kinds]

    given = diagnostics(every_n_steps=3)
    run = trained(tmp_path, support.rule(rule, net), given, max_epochs=1)
    assert_equal(run, found(tmp_path, support.rule(rule, net), diagnostics()), OF_A_TRAINING)


# Settings of the run


KINDS_OF_VALUES = (ResidualNorms, GradientNorms, CreditAlignment, ReferenceValidity, AttentionMaps)


class Augmented(support.ValidatedData):
    """Noise on training batches, by a hook that asks for the Trainer's stage."""

    def __init__(self):
        super().__init__(support.train_loader(), support.val_loader())

    def on_after_batch_transfer(self, batch, dataloader_idx):
        x, y = batch
        return (x + torch.randn_like(x), y) if self.trainer.training else (x, y)


def warmup(optimizer):
    return torch.optim.lr_scheduler.LinearLR(optimizer, total_iters=5)


class InSteps(Validated):
    """With a loss that asks where the training is."""

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        return loss * (1 + self.global_step + 10 * self.current_epoch)


SETTINGS = {
    "in train mode": {"diagnostic": {"mode": "train"}},
    "of training data": {"diagnostic": {"probe": "train"}},
    "of augmented training data": {"diagnostic": {"probe": "train"}, "data": Augmented},
    "after epochs": {"diagnostic": {"every_n_epochs": 1}},
    "with a schedule of learning rates": {"module": {"lr_scheduler": warmup}},
    "clipped by unit": {"module": {"clip_per_unit": 0.1}},
    "two updates a step": {
        "module": {"updates_per_step": 2},
        "data": lambda: support.ValidatedData(
            TensorLoader(support.tensors(32), batch_size=8, seed=0, updates=2),
            support.val_loader(),
        ),
    },
    "schedule-free": {"module": {"optimizer": ScheduleFreeSGD}},
    "averaged weights": {"callbacks": lambda: [EMAWeightAveraging(decay=0.5)]},
    "in stages": {
        "callbacks": lambda: [StagedTraining([["embed", "blocks.*"], ["embed", "head"]])]
    },
    "with frozen parts": {"callbacks": lambda: [PartFreezing(["blocks.*"], 1)]},
}


@pytest.mark.few(3)
@pytest.mark.parametrize("setting", SETTINGS.values(), ids=SETTINGS)
def test_of_every_setting_of_a_run(setting, tmp_path):
    def diagnostics(**kwargs):
        return [make(kind, **kwargs) for kind in KINDS_OF_VALUES]

    def module():
        return support.rule(DFA, **setting.get("module", {}))

    options = setting.get("diagnostic", {})
    schedule = {} if "every_n_epochs" in options else {"every_n_steps": 3}
    callbacks = setting.get("callbacks", list)()
    data = setting.get("data", lambda: None)
    run = trained(tmp_path, module(), diagnostics(**options, **schedule), *callbacks, data=data())
    assert_equal(run, found(tmp_path, module(), diagnostics(**options), data=data()))


# Modules of other projects


def of_kind(kind):
    torch.manual_seed(1)
    return KINDS[kind](support.NoisyNet(), support.nets.CLASSES)


FOREIGN = {"automatic": {}, "own_loss": {}, "manual": {"loss": given_loss}}


@pytest.mark.parametrize("kind", FOREIGN)
def test_of_foreign_modules(kind, tmp_path):
    def diagnostics(**kwargs):
        return [make(one, **kwargs, **FOREIGN[kind]) for one in KINDS_OF_VALUES]

    run = trained(tmp_path, of_kind(kind), diagnostics(every_n_steps=3))
    assert_equal(run, found(tmp_path, of_kind(kind), diagnostics()))


def test_of_a_loss_that_asks_for_the_point_of_training(tmp_path):
    def diagnostics(**kwargs):
        return [on_foreign(kind, **kwargs) for kind in KINDS_OF_VALUES]

    run = trained(tmp_path, InSteps(), diagnostics(every_n_steps=3))
    assert_equal(run, found(tmp_path, InSteps(), diagnostics()))
