"""What a module lacks is named by every callback before any work (design.md, section 3)."""

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule

from lit_credit.callbacks import (
    CreditAlignment,
    EmbeddingGeometry,
    ExactDivergence,
    GradientNoise,
    GradientNorms,
    ResidualNorms,
    Sharpness,
    SubspaceDistance,
    WeightAlignment,
)
from lit_credit.rules import BP, DFA
from lit_credit.studies.addition import AdderAnatomy
from lit_credit.studies.ngram import LogProbTheory
from tests import support
from tests.callbacks.test_contract import (
    BY_WEIGHTS,
    OF_STEPS,
    ON_ATTENTION,
    SCHEDULED,
    WITH_LOSS,
    net_for,
    on_foreign,
)
from tests.support import Validated, files, fit

NEED_NOTHING = (*OF_STEPS, GradientNoise, Sharpness)


class WithoutLoss(Validated):
    def __init__(self):
        super().__init__()
        self.automatic_optimization = False


@pytest.mark.parametrize("kind", [kind for kind in SCHEDULED if kind not in NEED_NOTHING])
def test_what_is_missing_is_named_before_training(kind, tmp_path):
    module = Validated(support.NoisyNet if kind is AdderAnatomy else net_for(kind))
    if kind is CreditAlignment:
        with pytest.raises(MisconfigurationException, match=r"`credit\(batch\)`.*Validated"):
            fit(tmp_path, module, CreditAlignment(parameters=False), logger=False)
    elif kind is AdderAnatomy:
        with pytest.raises(MisconfigurationException, match=r"`parts\(\)`.*Validated"):
            fit(tmp_path, module, AdderAnatomy(), logger=False)
    elif kind is WeightAlignment:
        for other in (module, support.rule(BP)):
            with pytest.raises(MisconfigurationException, match=r"feedback_matrices.*such as FA"):
                fit(tmp_path, other, WeightAlignment(), logger=False)
    elif kind in ON_ATTENTION:
        module.model.embed[3] = torch.nn.Identity()
        what = "whose heads can be read was found" if kind in BY_WEIGHTS else "was seen"
        with pytest.raises(MisconfigurationException, match=rf"no attention {what}.*Validated"):
            fit(tmp_path, module, kind(), logger=False)
    elif kind in (ExactDivergence, LogProbTheory, SubspaceDistance):
        trainer = support.trainer(tmp_path, kind(), logger=False)
        with pytest.raises(MisconfigurationException, match=r"a datamodule with `contexts\(\)`"):
            trainer.fit(module, support.train_loader())
    elif kind is EmbeddingGeometry:
        module.model = torch.nn.Conv1d(1, 1, 1)
        with pytest.raises(MisconfigurationException, match=r"an nn\.Embedding or an nn\.Linear"):
            fit(tmp_path, module, kind(), logger=False)
    else:
        with pytest.raises(MisconfigurationException, match=r"credit_units.*model\.blocks\.0"):
            fit(tmp_path, module, kind(), logger=False)
    assert files(tmp_path) == []


@pytest.mark.parametrize("kind", WITH_LOSS)
def test_a_training_step_that_would_train_on_the_probe_is_refused(kind, tmp_path):
    with pytest.raises(MisconfigurationException, match=r"manually.*`batch_loss\(batch\)`"):
        fit(tmp_path, WithoutLoss(), on_foreign(kind))


def test_a_point_that_does_not_run_is_an_error(tmp_path):
    class Idle(Validated):
        def __init__(self):
            super().__init__()
            self.model.idle = torch.nn.Linear(2, 2)

    for kind in (ResidualNorms, GradientNorms):
        with pytest.raises(ValueError, match=r"`units`: model\.idle did not run"):
            fit(tmp_path, Idle(), kind(units=["model.embed", "model.idle"]), logger=False)


def test_direct_feedback_without_a_weight_beside_it_is_refused(tmp_path):
    module: LightningModule = support.rule(DFA)
    module.readout = ["blocks.1", "head"]
    with pytest.raises(MisconfigurationException, match="a feedback matrix that stands for"):
        fit(tmp_path, module, WeightAlignment(), logger=False)
