"""Other ways to optimize: several optimizers, accumulated and clipped gradients, precision."""

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule, seed_everything
from lightning.pytorch.plugins import MixedPrecision
from torch import nn
from torch.nn import functional as F

from lit_credit.callbacks import CreditAlignment, GradientNorms, ResidualNorms
from lit_credit.rules import BP, DFA, FA
from tests import support
from tests.support import FEATURES, Validated
from tests.support.watched import diagnostics, finite, fit, values, watched


class GAN(LightningModule):
    """Two nets against each other, each with its optimizer, toggled by hand."""

    def __init__(self):
        seed_everything(1, verbose=False)
        super().__init__()
        self.automatic_optimization = False
        self.generator = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, FEATURES))
        self.discriminator = nn.Sequential(nn.Linear(FEATURES, 8), nn.Tanh(), nn.Linear(8, 1))

    def judge(self, x, label):
        logits = self.discriminator(x)
        return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, label))

    def training_step(self, batch, batch_idx):
        x, z = batch[0], torch.randn(len(batch[0]), 4)
        first, second = self.optimizers()
        for optimizer in (first, second):
            self.toggle_optimizer(optimizer)
            optimizer.zero_grad()
            if optimizer is first:
                loss = self.judge(self.generator(z), 1.0)
            else:
                loss = self.judge(x, 1.0) + self.judge(self.generator(z).detach(), 0.0)
            self.manual_backward(loss)
            optimizer.step()
            self.untoggle_optimizer(optimizer)

    def configure_optimizers(self):
        nets = (self.generator, self.discriminator)
        return [torch.optim.Adam(net.parameters(), lr=1e-2) for net in nets]


def generator_loss(module, batch):
    return module.judge(module.generator(batch[0][:, :4]), 1.0)


class OfGenerator(GAN):
    """Says itself what its loss is."""

    def batch_loss(self, batch):
        return generator_loss(self, batch)


@pytest.mark.parametrize(("kind", "loss"), [(GAN, generator_loss), (OfGenerator, None)])
def test_one_net_of_a_gan_is_diagnosed(kind, loss, tmp_path):
    kinds = [ResidualNorms, GradientNorms, CreditAlignment]
    options = {"units": ["generator.*"], "n_samples": 7, "loss": loss, "every_n_steps": 2}
    options["figure"] = False
    found = watched(tmp_path, kind, [k(**options) for k in kinds])
    # Two optimizers step at every batch.
    assert [row["step"] for row in found[0].history.rows] == [0, 2, 4, 6, 8]
    assert finite(found[:2])
    assert values(found)["credit/update/generator.0.weight"] == 1.0
    assert values(found)["gradient/norm/L00"] > 0


def test_a_gan_without_a_loss_is_refused_with_both_remedies(tmp_path):
    with pytest.raises(MisconfigurationException, match=r"manually.*`batch_loss\(batch\)`.*`loss`"):
        fit(tmp_path, GAN(), GradientNorms(units=["generator.*"]))


def test_accumulated_and_clipped_gradients(tmp_path):
    options = {"accumulate_grad_batches": 3, "gradient_clip_val": 0.1}
    found = watched(tmp_path, Validated, diagnostics(every_n_steps=1), max_epochs=2, **options)
    # Four batches an epoch: a step after three, and one after the last.
    assert [row["step"] for row in found[0].history.rows] == [0, 1, 2, 3, 4]


def scaled():
    """float16 with a scaler that has to scale down first; by its name CPUs get bfloat16."""
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    return {"plugins": [MixedPrecision("16-mixed", "cpu", scaler)]}


PRECISIONS = {
    "16-mixed": scaled,
    **{p: lambda p=p: {"precision": p} for p in ("bf16-mixed", "bf16-true", "64-true")},
}


@pytest.mark.few(4)
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("make", [Validated, lambda: support.rule(FA), lambda: support.rule(DFA)])
def test_precisions(make, precision, tmp_path):
    units = {"units": None} if isinstance(make(), (BP, FA, DFA)) else {}
    callbacks = diagnostics(**units)
    # A scaler has a state of its own: one for each run.
    bare = fit(tmp_path, make(), **PRECISIONS[precision]()).lightning_module
    seen = fit(tmp_path, make(), *callbacks, **PRECISIONS[precision]()).lightning_module
    assert support.same_state(bare, seen)
    assert {p.dtype for p in seen.parameters()} == {
        {"64-true": torch.float64, "bf16-true": torch.bfloat16}.get(precision, torch.float32)
    }
    assert finite(callbacks[:2])
