"""Steps on a quadratic loss, in closed form."""

import math

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule
from torch import nn

from lit_credit import diagnose
from lit_credit.callbacks import StepQuality
from lit_credit.callbacks.credit.step_figure import step_figure
from lit_credit.datamodules import TensorLoader
from lit_credit.rules import DFA
from tests import support
from tests.support import drawn, fit

CURVATURES = torch.tensor([1.0, 2.0, 5.0, 0.3])


def rows(n, seed):
    return torch.randn(n, 4, generator=torch.Generator().manual_seed(seed)) + seed


class Quadratic(LightningModule):
    """``mean_n sum_i h_i (w_i - x_ni)^2 / 2``, trained by gradient descent or ascent."""

    def __init__(self, lr=0.1, curvatures=CURVATURES):
        super().__init__()
        self.w = nn.Parameter(torch.tensor([3.0, -2.0, 1.0, 0.5]))
        self.lr, self.h = lr, curvatures
        self.before = []

    def batch_loss(self, batch):
        return (self.h * (self.w - batch[0]) ** 2).sum(1).mean() / 2

    def training_step(self, batch, batch_idx):
        self.before.append(self.w.detach().clone())
        return self.batch_loss(batch)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=abs(self.lr), maximize=self.lr < 0)


def loss_at(w, x, h=CURVATURES):
    """The loss in float64, by a loop."""
    x, h = x.double().numpy(), h.double().numpy()
    return sum(float((h * (np.asarray(w) - row) ** 2).sum()) / 2 for row in x) / len(x)


def measured(tmp_path, module, train, val, batch_size=16, **kwargs):
    callback = StepQuality(n_samples=len(train if val is None else val), every_n_steps=1, **kwargs)
    loaders = (
        TensorLoader((train,), batch_size=batch_size, shuffle=False),
        None if val is None else TensorLoader((val,), batch_size=7, shuffle=False),
    )
    fit(tmp_path, module, callback, loaders=loaders, max_epochs=1, logger=False)
    found = [row["values"] for row in callback.history.rows]
    return [{tag.removeprefix("step/"): x for tag, x in row.items()} for row in found], module


@pytest.mark.parametrize("chunk_size", [None, 5])
def test_a_quadratic_loss_in_closed_form(tmp_path, chunk_size):
    train, val = rows(32, 0), rows(20, 1)
    found, module = measured(tmp_path, Quadratic(), train, val, chunk_size=chunk_size)
    assert len(found) == 3
    h = CURVATURES.double().numpy()
    for index, values in enumerate(found[1:]):
        w = module.before[index].double().numpy()
        batch = train[16 * index : 16 * index + 16].double().numpy()
        u = -0.1 * h * (w - batch.mean(0))
        for ending, x in (("", val), ("_train", train[:20])):
            start = loss_at(w, x)
            slope = h * (w - x.double().numpy().mean(0))
            minimum = -(slope @ u) / (u @ (h * u))
            assert values[f"change{ending}"] == pytest.approx(loss_at(w + u, x) - start, rel=1e-3)
            along = [values[f"along{ending}/{place:03d}"] for place in (0, 50, 100, 150, 200)]
            expected = [loss_at(w + s * u, x) - start for s in (0, 0.5, 1, 1.5, 2)]
            assert along == pytest.approx(expected, rel=1e-3, abs=1e-5)
            if minimum > 0:
                assert values[f"alpha{ending}"] == pytest.approx(1 / minimum - 1, rel=1e-3)
            else:
                assert math.isnan(values[f"alpha{ending}"])
        slope = h * (w - val.double().numpy().mean(0))
        bp = -slope * np.linalg.norm(u) / np.linalg.norm(slope)
        change_bp = loss_at(w + bp, val) - loss_at(w, val)
        assert values["change_bp"] == pytest.approx(change_bp, rel=1e-3)
        assert values["ratio"] == pytest.approx(values["change"] / change_bp, rel=1e-3)
        cosine = -(slope @ u) / np.linalg.norm(u) / np.linalg.norm(slope)
        assert values["cosine"] == pytest.approx(cosine, rel=1e-3)


@pytest.mark.parametrize(("lr", "alpha"), [(0.25, -0.75), (1.0, 0.0), (2.0, 1.0), (-0.5, None)])
def test_alpha_and_ratio_of_steps_of_the_full_gradient(tmp_path, lr, alpha):
    train = rows(16, 0)
    found, _ = measured(tmp_path, Quadratic(lr, torch.ones(4)), train, None)
    values = found[-1]
    assert "change_train" not in values  # the probe is training data
    if alpha is None:  # uphill
        assert math.isnan(values["alpha"])
        assert values["change"] > 0
        assert values["ratio"] < -1
        assert values["cosine"] == pytest.approx(-1)
        return
    assert values["alpha"] == pytest.approx(alpha, abs=1e-4)
    assert values["cosine"] == pytest.approx(1)
    if lr < 2:  # at 2 the loss is that of the beginning
        assert values["ratio"] == pytest.approx(1, abs=1e-4)


def test_without_training_the_step_is_that_of_the_own_gradient_at_a_stated_length(tmp_path):
    module, x = Quadratic(), rows(12, 1)
    found = diagnose(module, StepQuality(figure=False), (x,))["step_quality"]
    values = found.rows[-1]["values"]
    w = module.w.detach().double().numpy()
    slope = CURVATURES.double().numpy() * (w - x.double().numpy().mean(0))
    u = -slope / np.linalg.norm(slope) * 1e-3 * np.linalg.norm(w)
    assert values["step/change"] == pytest.approx(loss_at(w + u, x) - loss_at(w, x), rel=0.02)
    assert values["step/ratio"] == pytest.approx(1, abs=0.02)
    assert values["step/cosine"] == pytest.approx(1)


def test_a_rule_is_measured_by_its_own_step_not_by_the_exact_one(tmp_path):
    rule = support.rule(DFA)
    found = diagnose(rule, StepQuality(figure=False), support.tensors(20))["step_quality"]
    assert -1 < found.rows[-1]["values"]["step/cosine"] < 0.99


def test_with_units_the_step_is_their_part_of_the_update(tmp_path):
    rule, batch = support.rule(DFA), support.tensors(20)
    whole = diagnose(rule, StepQuality(figure=False), batch)["step_quality"].rows[-1]["values"]
    callback = StepQuality(units=["head"], figure=False)
    values = diagnose(rule, callback, batch)["step_quality"].rows[-1]["values"]
    assert values["step/cosine"] == pytest.approx(1)  # the readout has the true gradient
    assert whole["step/cosine"] < 0.99


def test_a_step_of_length_zero_has_no_ratio(tmp_path):
    found, _ = measured(tmp_path, Quadratic(lr=0.0), rows(16, 0), rows(9, 1))
    assert found[-1]["change"] == 0
    assert all(math.isnan(found[-1][tag]) for tag in ("change_bp", "ratio", "cosine", "alpha"))


def test_a_parameter_unfrozen_after_the_batch_took_no_part_in_its_step(tmp_path):
    class Unfreezing(Quadratic):
        def __init__(self):
            super().__init__()
            self.late = nn.Parameter(torch.ones(4), requires_grad=False)

        def batch_loss(self, batch):
            return super().batch_loss(batch) + (self.late * batch[0]).sum(1).mean()

        def on_train_batch_end(self, *_):
            self.late.requires_grad_(True)

        def validation_step(self, batch, batch_idx):
            self.late.requires_grad_(True)

    module, callback = Unfreezing(), StepQuality(n_samples=32, figure=False)
    data = TensorLoader((rows(32, 0),), batch_size=32, shuffle=False)
    fit(tmp_path, module, callback, loaders=(data, data), max_epochs=1, logger=False)
    values = callback.history.rows[-1]["values"]
    assert values["step/change"] < 0
    assert values["step/ratio"] == pytest.approx(1, rel=1e-4)  # the full gradient, as it was


@pytest.mark.parametrize(("dtype", "is_known"), [(torch.float32, True), (torch.bfloat16, False)])
def test_what_the_weights_round_away_is_undefined(tmp_path, dtype, is_known):
    module = Quadratic(lr=1e-3, curvatures=CURVATURES.to(dtype)).to(dtype)
    x = rows(32, 0).to(dtype)
    found, _ = measured(tmp_path, module, x, None, batch_size=32)
    assert [math.isfinite(found[-1][tag]) for tag in ("alpha", "ratio")] == [is_known] * 2


def row(step, **values):
    return {"step": step, "epoch": step, "name": "", "values": values}


def test_the_figure_shows_the_step_in_units_of_the_gradient_step():
    along = {f"step/along/{p:03d}": -0.5 * p / 100 for p in (0, 50, 100, 150, 200)}
    one = row(1, **along, **{"step/change_bp": -2.0, "step/ratio": 0.25, "step/alpha": -0.9})
    empty = row(0, **dict.fromkeys(one["values"], math.nan))
    figure = drawn(step_figure([empty, one], "step"))
    left = figure.axes[0]
    assert [float(y) for y in left.lines[0].get_ydata()] == [0, -0.125, -0.25, -0.375, -0.5]
    assert left.get_legend().get_texts()[0].get_text() == "1"
    for ax in drawn(step_figure([empty], "step")).axes:
        assert [text.get_text() for text in ax.texts] == ["n/a"]
