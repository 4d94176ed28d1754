"""CreditFunction against losses that are computed one sample at a time."""

import logging
import math

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule
from torch import nn
from torch.nn import functional as F

from lit_credit.callbacks import CreditAlignment, CreditFunction
from lit_credit.callbacks.base.chunk import Chunk
from lit_credit.feedback import add_feedback
from lit_credit.inspect.capture import Point
from lit_credit.models import GPT, MLP, LeNet, ResidualMLP
from lit_credit.rules import BP, DFA, FA, ForwardGradient
from lit_credit.tasks import Classification, NextToken
from tests import support
from tests.callbacks import twin


def losses(module, x, y, index, moves):
    """Each sample's loss in float64, with a move of what one unit adds to the stream."""
    p = twin.parameters(module)
    h = twin.linear(x.double(), p, "embed", None)
    h = h + moves if index == 0 else h
    for block in range(twin.DEPTH):
        name = f"blocks.{block}"
        u = F.layer_norm(h, (twin.WIDTH,), p[f"{name}.norm.weight"], p[f"{name}.norm.bias"])
        u = twin.linear(F.gelu(twin.linear(u, p, f"{name}.w1", None)), p, f"{name}.w2", None)
        h = h + u + (moves if index == block + 1 else 0.0)
    u = F.layer_norm(h, (twin.WIDTH,), p["out_ln.weight"], p["out_ln.bias"])
    logits = twin.linear(u, p, "out_head", None)
    return F.cross_entropy(logits, y, reduction="none").detach()


class Known(CreditFunction):
    """With directions that a test knows."""

    def _directions(self, index, trial, h):
        generator = torch.Generator().manual_seed(100 * index + trial)
        return torch.randn(h.shape, generator=generator)


def scaled(length, directions):
    """The directions with these lengths, row by row."""
    rows = [size * d / d.norm() for size, d in zip(length, directions.double(), strict=True)]
    return torch.stack(rows)


@pytest.mark.parametrize("rule", [BP, FA, DFA])
def test_changes_are_differences_of_single_losses(rule):
    module, (x, y) = twin.make(rule), twin.batch()
    credits = module.credit((x, y))  # draws B too
    callback = Known(n_directions=5)
    values = twin.measured(callback, module, (x, y))
    _, added, logits = twin.run(twin.parameters(module), x)
    gradients = torch.autograd.grad(F.cross_entropy(logits, y), added)
    for index, (h, g) in enumerate(zip(added, gradients, strict=True)):
        layer, a = f"L{index:02d}", list(credits.values())[index].double()
        before = losses(module, x, y, index, torch.zeros_like(h))
        length = callback.eta * h.detach().norm(dim=1)

        def change(directions, index=index, length=length, before=before):
            return losses(module, x, y, index, scaled(length, directions)) - before

        nudging, exact = float(change(-a).mean()), float(change(-g).mean())
        assert values[f"nudging/{layer}"] == pytest.approx(nudging, rel=1e-3, abs=2e-6)
        assert values[f"nudging_exact/{layer}"] == pytest.approx(exact, rel=1e-3)
        assert values[f"ratio/{layer}"] == pytest.approx(nudging / exact, rel=2e-3, abs=2e-4)
        trials = [callback._directions(index, trial, h) for trial in range(5)]
        observed = torch.stack([change(d) for d in trials])
        predicted = torch.stack([(a * d).sum(1) / d.norm(dim=1).double() for d in trials])
        rho = [
            np.corrcoef(p, o)[0, 1]
            for p, o in zip(predicted.T.numpy(), observed.T.numpy(), strict=True)
        ]
        # The units' random moves are made together, which adds noise of second order.
        assert values[f"rho/{layer}"] == pytest.approx(np.mean(rho), abs=4e-3)
        assert values[f"rho_sd/{layer}"] == pytest.approx(np.std(rho, ddof=1), abs=4e-3)
        mean = pytest.approx(float(observed.mean()), abs=2e-3 * abs(exact))
        assert values[f"nudging_random/{layer}"] == mean


def test_under_backpropagation_it_is_the_gradient_to_second_order():
    """Nudging is -eta |h| |g|; what is left over falls with eta squared, and so does 1 - rho."""
    module, (x, y) = twin.make(BP), twin.batch()
    _, added, logits = twin.run(twin.parameters(module), x)
    gradients = torch.autograd.grad(F.cross_entropy(logits, y, reduction="sum"), added)
    left = []
    for eta in (0.02, 0.01, 0.005):
        values = twin.measured(CreditFunction(eta=eta), module, (x, y))
        left.append(0.0)
        for index, (h, g) in enumerate(zip(added, gradients, strict=True)):
            first = -eta * float((h.detach().norm(dim=1) * g.norm(dim=1)).mean())
            found = values[f"nudging/L{index:02d}"]
            left[-1] += abs(found - first)
            assert found == pytest.approx(first, rel=2 * eta)
            assert values[f"ratio/L{index:02d}"] == pytest.approx(1, abs=1e-5)
            assert values[f"rho/L{index:02d}"] > 1 - eta**2 * 4
    assert left[0] > 3 * left[1] > 9 * left[2]  # an error of first order halves


class Credited(BP):
    """Backpropagation that says it has another credit."""

    scale = 1.0
    sign = 0.0

    def credit(self, batch):
        exact = super().credit(batch)
        generator = torch.Generator().manual_seed(5)
        return {
            name: self.scale
            * (self.sign * g if self.sign else torch.randn(g.shape, generator=generator))
            for name, g in exact.items()
        }


def credited(depth=2, width=64, **attributes):
    torch.manual_seed(0)
    net = ResidualMLP(12, width, 4, depth=depth, w2_std=0.3)
    module = Credited(net, Classification(4))
    for name, value in attributes.items():
        setattr(module, name, value)
    return module


def test_a_random_credit_foretells_nothing_and_does_nothing():
    n, k = 400, 8
    values = twin.measured(CreditFunction(n_directions=k), credited(), twin.batch(n))
    for layer in ("L00", "L01", "L02"):
        assert abs(values[f"rho/{layer}"]) < 4 / math.sqrt(n * (k - 1))
        assert values[f"rho_sd/{layer}"] == pytest.approx(1 / math.sqrt(k - 1), rel=0.15)
        # A random direction has a cosine of 1 / sqrt(width) with the gradient, sample by sample.
        assert abs(values[f"ratio/{layer}"]) < 4 / math.sqrt(64 * n) * 2
        assert values[f"nudging_exact/{layer}"] < 0


def test_a_credit_of_the_wrong_sign_raises_the_loss():
    values = twin.measured(CreditFunction(), credited(sign=-1.0), twin.batch())
    for layer in ("L00", "L01", "L02"):
        assert values[f"nudging/{layer}"] > 0
        assert values[f"ratio/{layer}"] == pytest.approx(-1, abs=0.1)
        assert values[f"rho/{layer}"] == pytest.approx(-1, abs=1e-3)


@pytest.mark.parametrize("scale", [1e-30, 2.0**40])
def test_the_scale_of_the_credit_does_not_count(scale):
    one = twin.measured(CreditFunction(), credited(), twin.batch())
    other = twin.measured(CreditFunction(), credited(scale=scale), twin.batch())
    assert other == pytest.approx(one, rel=1e-4, abs=1e-9)


@pytest.mark.parametrize("sizes", [[9, 9, 6], [1] * 24])
def test_chunks_change_nothing_but_rounding(sizes):
    module, batch = twin.make(DFA), twin.batch()
    module.credit(batch)
    whole = twin.measured(CreditFunction(), module, batch)
    parts = zip(*(part.split(sizes) for part in batch), strict=True)
    chunks = [Chunk(module, part, len(part[0]), len(part[0]) / 24) for part in parts]
    callback = CreditFunction()
    callback.prepare(support.trainer(None, logger=False), module)
    found = callback.measure(module, chunks)
    assert found == pytest.approx(whole, rel=1e-3, abs=1e-5)
    assert callback.measure(module, chunks) == found  # the same directions again


def test_weights_in_bfloat16_are_measured_although_the_loss_has_three_digits():
    module, (x, y) = twin.make(BP), twin.batch()
    whole = twin.measured(CreditFunction(), module, (x, y))
    half = twin.measured(CreditFunction(), module.bfloat16(), (x.bfloat16(), y))
    for layer in ("L00", "L03"):
        assert half[f"nudging/{layer}"] == pytest.approx(whole[f"nudging/{layer}"], rel=0.03)
        assert half[f"rho/{layer}"] > 0.98


@pytest.mark.parametrize(
    ("net", "task", "shape", "classes"),
    [
        (lambda: GPT(9, 6, depth=2, heads=2, width=8), NextToken, (5, 6), 9),
        (lambda: LeNet(), Classification, (5, 1, 28, 28), 10),
    ],
    ids=["tokens", "images"],
)
def test_tokens_and_images(net, task, shape, classes):
    torch.manual_seed(0)
    module = BP(net(), task()).eval()
    tokens = task is NextToken
    x = torch.randint(classes, shape) if tokens else torch.randn(shape)
    y = torch.randint(classes, shape if tokens else shape[:1])
    values = twin.measured(CreditFunction(n_directions=3), module, (x, y))
    units = len(module.credit_units)
    assert len(values) == 6 * units
    for index in range(units):
        assert values[f"ratio/L{index:02d}"] == pytest.approx(1, abs=1e-4)
        assert values[f"rho/L{index:02d}"] == pytest.approx(1, abs=0.05)


def test_a_foreign_module_is_measured_by_its_own_backward(tmp_path):
    """Without feedback layers that is the gradient; with them it is what they deliver."""
    callbacks = []
    for has_feedback in (False, True):
        module = support.Validated()
        if has_feedback:
            add_feedback(module.model, seed=0)
        callback = CreditFunction(units=["model.embed", "model.blocks.*"], figure=False)
        support.fit(tmp_path, module, callback, logger=False, max_epochs=1)
        callbacks.append(callback)
    exact, fed = (callback.history.rows[0]["values"] for callback in callbacks)
    assert exact["function/ratio/L00"] == pytest.approx(1, abs=1e-4)
    assert exact["function/rho/L00"] > 0.99
    assert fed["function/ratio/L00"] < 0.9
    assert fed["function/nudging_exact/L00"] < 0


def test_a_rule_that_credits_parameters_has_no_credit_to_follow(tmp_path):
    rule = ForwardGradient(MLP(20, [8], num_classes=5), Classification(5), perturb="weights")
    callback = CreditFunction()
    trainer = support.quiet_trainer(max_epochs=1, callbacks=[callback], default_root_dir=tmp_path)
    trainer.fit(rule, support.loader(), support.loader())
    values = callback.history.rows[-1]["values"]
    assert math.isnan(values["function/nudging/L00"])
    assert math.isnan(values["function/rho/L00"])
    assert values["function/nudging_exact/L00"] < 0
    assert (tmp_path / "figures" / "credit_function.png").exists()


def test_units_without_credit_are_refused():
    module = twin.make(DFA)
    for kind in (CreditAlignment, CreditFunction):
        with pytest.raises(ValueError, match=r"`units`: net\.out_ln receive no credit.*blocks\.0"):
            twin.measured(kind(units=["out_ln"]), module, twin.batch())


def test_a_dead_unit_is_undefined_and_the_others_are_not():
    module = twin.make(BP)
    with torch.no_grad():
        module.net.blocks[1].w2.weight.zero_()
        module.net.blocks[1].w2.bias.zero_()
    values = twin.measured(CreditFunction(), module, twin.batch())
    assert all(math.isnan(v) for t, v in values.items() if t.endswith("L02"))
    assert all(math.isfinite(v) for t, v in values.items() if not t.endswith("L02"))


class Rounds(nn.Module):
    """A straight-through estimator: the loss is flat, and its backward says that it is not."""

    def forward(self, x):
        return x + (x.round() - x).detach()


class Steps(LightningModule):
    def __init__(self):
        super().__init__()
        self.unit, self.rounds, self.head = nn.Linear(6, 8), Rounds(), nn.Linear(8, 3)

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self.head(self.rounds(self.unit(batch[0]))), batch[1])


def test_a_backward_that_is_not_the_slope_of_the_loss_is_told(caplog):
    torch.manual_seed(0)
    module, batch = Steps(), (torch.randn(8, 6), torch.randint(3, (8,)))
    callback = CreditFunction(units=["unit"])
    callback.prepare(support.trainer(None, logger=False), module)
    with caplog.at_level(logging.INFO):
        (error,) = callback.prove(Chunk(module, batch, 8)).values()
    assert error > 0.1
    assert any("Straight-through" in message for message in caplog.messages)
    module.rounds = nn.Identity()
    (error,) = callback.prove(Chunk(module, batch, 8)).values()
    assert error < 1e-3


def test_the_loss_after_a_change_is_that_of_the_changed_value():
    module, (x, y) = twin.make(BP), twin.batch()
    found = Chunk(module, (x, y)).changed_loss(Point("net.blocks.0", "output"), lambda h: h + 0.5)
    expected = losses(module, x, y, 1, torch.full((twin.N, twin.WIDTH), 0.5)).mean()
    assert float(found) == pytest.approx(float(expected), rel=1e-5)
    assert not found.requires_grad


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"eta": 0.0}, "`eta` is 0.0, expected"),
        ({"n_directions": 2}, "`n_directions` is 2, expected"),
    ],
)
def test_bad_arguments_are_named(arguments, text):
    with pytest.raises(ValueError, match=text):
        CreditFunction(**arguments)


def test_many_units_are_logged_by_their_aggregates(tmp_path):
    torch.manual_seed(0)
    module = BP(ResidualMLP(20, 6, 5, depth=17, w2_std=0.3), Classification(5))
    callback = CreditFunction(n_directions=3, n_samples=4, figure=False)
    trainer = support.quiet_trainer(max_epochs=1, callbacks=[callback], default_root_dir=tmp_path)
    trainer.fit(module, support.loader(), support.loader())
    assert "function/rho/L17" in callback.history.rows[-1]["values"]
    assert {f"function/rho/{kind}" for kind in ("min", "median", "max")} < {
        *trainer.callback_metrics
    }
