"""Sharpness on losses whose curvature is known, and on nets that are hard to differentiate."""

import logging
import math

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.utils.data import DataLoader

import lit_credit
from lit_credit.callbacks import Sharpness
from lit_credit.callbacks.base.chunk import Chunk
from lit_credit.callbacks.credit import sharpness
from lit_credit.callbacks.credit.sharpness_figure import sharpness_figure
from lit_credit.rules import BP, DFA, FA, FrozenUnits
from tests import support
from tests.callbacks import twin
from tests.support import quiet_trainer

EXACT = {"iterations": 60, "tolerance": 1e-7}


def dense_ends(module, x, y, names=None):
    """Ends of the dense Hessian and the top of the dense Gauss-Newton matrix, in float64."""
    p = twin.parameters(module)
    chosen = [name for name in p if names is None or name.startswith(names)]

    def logits(*values):
        return twin.run(p | dict(zip(chosen, values, strict=True)), x)[2]

    at = tuple(p[name] for name in chosen)
    blocks = torch.autograd.functional.hessian(lambda *v: F.cross_entropy(logits(*v), y), at)
    rows = [
        torch.cat([b.reshape(a.numel(), -1) for b in row], 1)
        for row, a in zip(blocks, at, strict=True)
    ]
    hessian = torch.linalg.eigvalsh(torch.cat(rows))
    blocks = torch.autograd.functional.jacobian(lambda *v: logits(*v).flatten(), at)
    jacobian = torch.cat([b.reshape(x.shape[0] * twin.CLASSES, -1) for b in blocks], 1)
    probs = logits(*at).detach().softmax(1)
    by_output = torch.block_diag(*(torch.diag(q) - torch.outer(q, q) for q in probs)) / len(x)
    return hessian, torch.linalg.eigvalsh(jacobian.T @ by_output @ jacobian)[-1]


@pytest.mark.few(1)
@pytest.mark.parametrize("rule", [BP, FA, DFA])
def test_ends_are_those_of_the_dense_matrices_under_every_rule(rule):
    module, (x, y) = twin.make(rule).double(), twin.batch(8)
    x = x.double()
    hessian, gauss_newton = dense_ends(module, x, y)
    values = twin.measured(Sharpness(leading=3, **EXACT), module, (x, y))
    assert values["hessian"] == pytest.approx(hessian[-1].item())
    assert values["hessian_min"] == pytest.approx(hessian[0].item())
    assert values["gauss_newton"] == pytest.approx(gauss_newton.item())
    leading = [values[f"eigenvalue/E{index:02d}"] for index in range(3)]
    assert leading == pytest.approx(hessian.flip(0)[:3].tolist())
    assert math.isnan(values["times_lr"])


def test_units_choose_a_block_of_the_hessian():
    module, (x, y) = twin.make(FA).double(), twin.batch(8)
    x = x.double()
    hessian, _ = dense_ends(module, x, y, names=("blocks.1.", "out_head."))
    units = ["blocks.1", "out_head"]
    values = twin.measured(Sharpness(units=units, **EXACT), module, (x, y))
    assert values["hessian"] == pytest.approx(hessian[-1].item())


def test_frozen_units_do_not_count():
    module, (x, y) = twin.make(FrozenUnits, frozen=["embed", "blocks.*"]).double(), twin.batch(8)
    x = x.double()
    hessian, _ = dense_ends(module, x, y, names=("out_ln.", "out_head."))
    values = twin.measured(Sharpness(**EXACT), module, (x, y))
    assert values["hessian"] == pytest.approx(hessian[-1].item())
    assert not module.net.embed.weight.requires_grad
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    everything = twin.measured(Sharpness(**EXACT), module, (x, y))
    assert everything["hessian"] == pytest.approx(dense_ends(module, x, y)[0][-1].item())
    assert not any(parameter.requires_grad for parameter in module.parameters())


@pytest.mark.parametrize("sizes", [[3, 3, 2], [1] * 8])
def test_chunks_change_nothing_but_rounding(sizes):
    module, data = twin.make(DFA).double().eval(), twin.batch(8)
    data = data[0].double(), data[1]
    whole = twin.measured(Sharpness(**EXACT), module, data)
    parts = zip(*(part.split(sizes) for part in data), strict=True)
    chunks = [Chunk(module, p, n, n / 8) for p, n in zip(parts, sizes, strict=True)]
    callback = Sharpness(**EXACT)
    callback.prepare(support.trainer(None, logger=False), module)
    found = callback.measure(module, chunks)
    assert found == pytest.approx(whole, rel=1e-6, abs=1e-6, nan_ok=True)


def test_a_large_net_keeps_two_vectors(monkeypatch):
    module, data = twin.make(BP), twin.batch()
    kept = twin.measured(Sharpness(tolerance=1e-3), module, data)
    monkeypatch.setattr(sharpness, "_MOST_KEPT", 1)
    found = twin.measured(Sharpness(tolerance=1e-3), module, data)
    assert found["hessian"] == pytest.approx(kept["hessian"], rel=1e-3)


class Quadratic(LightningModule):
    """The loss is a half times w' C w, C diagonal; a second parameter has another rate."""

    curvature = torch.tensor([8.0, 3.0, -5.0])

    def __init__(self, make=lambda p: torch.optim.SGD(p, lr=0.125)):
        super().__init__()
        self.w = nn.Parameter(torch.ones(3))
        self.make = make

    def training_step(self, batch, batch_idx):
        return (self.curvature * self.w**2).sum() / 2 + 0 * batch.sum()

    def configure_optimizers(self):
        return self.make(self.parameters())


def fitted(tmp_path, module, callback, data=None):
    trainer = quiet_trainer(max_steps=1, callbacks=[callback], default_root_dir=tmp_path)
    trainer.fit(module, DataLoader(torch.ones(4, 2) if data is None else data, batch_size=2))
    return callback.history.rows[0]["values"]


def test_a_quadratic_loss_in_closed_form(tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        values = fitted(tmp_path, Quadratic(), callback := Sharpness(figure=False, n_samples=4))
    assert values["sharpness/hessian"] == pytest.approx(8)
    assert values["sharpness/hessian_min"] == pytest.approx(-5)
    assert values["sharpness/times_lr"] == pytest.approx(1)
    assert callback._limit == 2
    assert "sharpness/gauss_newton" not in values
    said = [text for text in caplog.messages if "Gauss-Newton" in text]
    assert len(said) == 1
    assert "the module has no `net`. Set `output`" in said[0]


def test_no_limit_is_claimed_for_adam(tmp_path):
    callback = Sharpness(n_samples=4)
    values = fitted(tmp_path, Quadratic(lambda p: torch.optim.Adam(p, lr=0.25)), callback)
    assert values["sharpness/times_lr"] == pytest.approx(2)
    figure = callback.draw(callback.history.rows, "sharpness")
    assert [ax.get_title(loc="left") for ax in figure.axes][1] == "Times the learning rate of Adam"
    assert not any("unstable" in text.get_text() for text in figure.axes[1].texts)


class Named(support.Foreign):
    """Its net is called `model`."""

    penalty = 0.0

    def training_step(self, batch, batch_idx):
        x, y = batch
        weights = sum(p.square().sum() for p in self.model.parameters())
        return F.cross_entropy(self.model(x), y) + self.penalty * weights


def test_a_named_output_gives_the_gauss_newton_matrix_of_the_part_through_it():
    data = support.tensors(7)
    values = twin.measured(Sharpness(output="model"), plain := Named(), data)
    plain.penalty = 1.0
    penalized = twin.measured(Sharpness(output="model"), plain, data)
    assert values["gauss_newton"] > 0
    assert penalized["gauss_newton"] == pytest.approx(values["gauss_newton"], rel=1e-4)
    assert penalized["hessian"] == pytest.approx(values["hessian"] + 2, rel=1e-2)


def test_an_output_that_is_none_is_refused():
    with pytest.raises(ValueError, match="`output`: 'gone' matches nothing"):
        twin.measured(Sharpness(output="gone"), Named(), support.tensors(7))
    with pytest.raises(
        ValueError, match=r"`output` is 'model.blocks.\*', which is .*expected one name"
    ):
        twin.measured(Sharpness(output="model.blocks.*"), Named(), support.tensors(7))


class Penalized(BP):
    def batch_loss(self, batch):
        return super().batch_loss(batch) + sum(p.square().sum() for p in self.net.parameters())


def test_a_net_beside_which_the_loss_reads_parameters_is_left_out(caplog):
    with caplog.at_level(logging.INFO):
        values = twin.measured(Sharpness(), twin.make(Penalized), twin.batch())
    assert "gauss_newton" not in values
    assert "also depends on parameters beside the output of 'net'" in caplog.text


class ReturnsItsLoss(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(12, 4)

    def forward(self, x, y):
        return F.cross_entropy(self.head(x), y)


def test_of_a_net_that_returns_its_loss_the_head_is_the_output(caplog):
    batch = support.tensors(7)
    with caplog.at_level(logging.INFO):
        found = lit_credit.diagnose(ReturnsItsLoss(), Sharpness(), batch)
    assert "hands on a single number" in caplog.text
    assert math.isnan(found["sharpness"].values["sharpness/times_lr"])
    found = lit_credit.diagnose(ReturnsItsLoss(), Sharpness(output="head"), batch)
    values = found["sharpness"].values
    # Cross-entropy of a linear map: the two matrices are one.
    assert values["sharpness/gauss_newton"] == pytest.approx(values["sharpness/hessian"], rel=0.02)


class Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.tanh()

    @staticmethod
    @once_differentiable
    def backward(ctx, error):
        return error


class Sent(torch.autograd.Function):
    """A linear map whose backward sends the error through another matrix."""

    @staticmethod
    def forward(ctx, x, weight):
        ctx.save_for_backward(x, weight)
        return x @ weight.T

    @staticmethod
    def backward(ctx, error):
        x, weight = ctx.saved_tensors
        return error @ (-3 * weight.detach().roll(1, 0)), error.T @ x


class MultiMargin(support.Foreign):
    """The backward of its loss has no derivative in torch."""

    def training_step(self, batch, batch_idx):
        return F.multi_margin_loss(self.model(batch[0]), batch[1])


class Through(support.Foreign):
    calls = True

    def training_step(self, batch, batch_idx):
        x, y = batch
        h = self.model(x)
        return F.cross_entropy(Once.apply(h) if self.calls else h, y)


class Feedback(support.Foreign):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(12, 8), nn.Linear(8, 4)

    def training_step(self, batch, batch_idx):
        x, y = batch
        return F.cross_entropy(Sent.apply(self.first(x).tanh(), self.second.weight), y)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (Through, r"test_sharpness.Once has no second derivative"),
        (MultiMargin, r"no second derivative:.*multi_margin_loss_backward"),
    ],
)
def test_a_function_without_second_derivative_is_named(kind, said):
    with pytest.raises(MisconfigurationException, match=said):
        twin.measured(Sharpness(), kind(), support.tensors(7))


def test_later_it_is_nan_and_training_goes_on(tmp_path):
    class Later(Through):
        calls = False

        def on_train_batch_end(self, *_):
            self.calls = True

    callback = Sharpness(figure=False, n_samples=4)
    data = list(zip(*support.tensors(8), strict=True))
    with pytest.warns(UserWarning, match="Sharpness could not be measured.*no second derivative"):
        fitted(tmp_path, Later(), callback, data)
    first, last = (row["values"] for row in callback.history.rows)
    assert math.isfinite(first["sharpness/hessian"])
    assert all(math.isnan(value) for value in last.values())


def test_a_backward_that_is_not_the_gradient_is_undefined():
    with pytest.warns(UserWarning, match="second derivatives are not symmetric"):
        values = twin.measured(Sharpness(), Feedback(), support.tensors(7))
    assert all(map(math.isnan, values.values()))


def test_half_precision_is_close_to_full(tmp_path):
    module, (x, y) = twin.make(BP), twin.batch()
    full = twin.measured(Sharpness(), module, (x, y))
    half = twin.measured(Sharpness(), module.bfloat16(), (x.bfloat16(), y))
    assert half["hessian"] == pytest.approx(full["hessian"], rel=0.1)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"leading": 0}, "`leading` is 0"),
        ({"iterations": 0}, "`iterations` is 0"),
        ({"tolerance": -0.1}, "`tolerance` is -0.1"),
        ({"leading": 30}, "`leading` is 30 and `iterations` is 20"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, named):
    with pytest.raises(ValueError, match=named):
        Sharpness(**arguments)


def row(epoch, **values):
    values = {f"sharpness/{tag}": value for tag, value in values.items()}
    return {"step": epoch, "epoch": epoch, "name": "sharpness", "values": values}


def test_the_figure_marks_the_limit_and_draws_negative_curvature_that_is_resolved():
    rows = [
        row(0, hessian=10.0, hessian_min=-1.0, times_lr=1.0),
        row(1, hessian=20.0, hessian_min=-0.01, times_lr=3.0),
    ]
    figure = sharpness_figure(rows, limit=2.0, optimizer="SGD")
    curvature, rate = figure.axes
    smallest = curvature.lines[-1].get_ydata()
    assert smallest[0] == 1.0
    assert math.isnan(smallest[1])
    assert rate.lines[0].get_ydata()[0] == 2.0
    assert "above 2 gradient descent is unstable" in [text.get_text() for text in rate.texts]
    assert len(sharpness_figure([row(0, hessian=1.0, times_lr=math.nan)]).axes) == 1
