"""SignalRank against numpy's singular values of whole matrices."""

import math

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule
from torch import nn
from torch.nn import functional as F

from lit_credit.callbacks import SignalRank
from lit_credit.callbacks.base.chunk import Chunk
from lit_credit.callbacks.representations.row_spectrum import RowSpectrum, feature_rows
from lit_credit.datamodules import TensorLoader
from lit_credit.functional import effective_rank, participation_ratio, stable_rank
from lit_credit.models import GPT, MLP, LeNet, ResidualMLP
from lit_credit.rules import BP, DFA, FA, ForwardGradient, FrozenUnits
from lit_credit.tasks import Classification, NextToken
from tests import support
from tests.callbacks import twin
from tests.functional.heads import randn

SIGNALS = ("activation", "credit", "exact", "gradient", "update", "weight")


def entropic(matrix):
    """The effective rank, by numpy."""
    s = np.linalg.svd(matrix.detach().double().numpy(), compute_uv=False)
    p = s[s > 1e-12 * s[0]] / s.sum()
    return math.exp(-(p * np.log(p)).sum())


@pytest.mark.parametrize("rule", [BP, FA, DFA])
def test_ranks_are_those_of_whole_matrices(rule):
    module, (x, y) = twin.make(rule), twin.batch()
    credits = list(module.credit((x, y)).values())  # draws B too
    values = twin.measured(SignalRank(), module, (x, y))
    p = twin.parameters(module)
    _, added, logits = twin.run(p, x)
    gradients = torch.autograd.grad(F.cross_entropy(logits, y), added)
    for index, (h, g) in enumerate(zip(added, gradients, strict=True)):
        layer = f"L{index:02d}"
        h = h.detach() - h.detach().mean(0)
        assert values[f"activation/{layer}"] == pytest.approx(entropic(h), rel=1e-4)
        assert values[f"exact/{layer}"] == pytest.approx(entropic(g), rel=1e-4)
        assert values[f"credit/{layer}"] == pytest.approx(entropic(credits[index]), rel=1e-4)
        assert values[f"activation_stable/{layer}"] == pytest.approx(float(stable_rank(h)))
        participation = float(participation_ratio(g))
        assert values[f"exact_participation/{layer}"] == pytest.approx(participation, rel=1e-4)
        weights = ["embed"] if index == 0 else [f"blocks.{index - 1}.{w}" for w in ("w1", "w2")]
        expected = np.mean([entropic(p[f"{w}.weight"]) for w in weights])
        assert values[f"weight/{layer}"] == pytest.approx(expected, rel=1e-5)
        assert math.isnan(values[f"update/{layer}"])  # there was no step
    if rule is BP:
        loss = module.batch_loss((x, y))
        pair = [module.net.blocks[0].w1.weight, module.net.blocks[0].w2.weight]
        expected = np.mean([entropic(g) for g in torch.autograd.grad(loss, pair)])
        assert values["gradient/L01"] == pytest.approx(expected, rel=1e-3)
        assert values["credit/L01"] == pytest.approx(values["exact/L01"])
    if rule is DFA:
        assert values["credit/L01"] <= twin.CLASSES - 1 + 1e-4  # errors of softmax sum to zero


@pytest.mark.parametrize("sizes", [[9, 9, 6], [1] * 24])
def test_chunks_change_nothing_but_rounding(sizes):
    module, batch = twin.make(DFA), twin.batch()
    module.credit(batch)
    whole = twin.measured(SignalRank(), module, batch)
    parts = zip(*(part.split(sizes) for part in batch), strict=True)
    chunks = [Chunk(module, part, len(part[0]), len(part[0]) / 24) for part in parts]
    callback = SignalRank()
    callback.prepare(support.trainer(None, logger=False), module)
    found = callback.measure(module, chunks)
    assert found == pytest.approx(whole, rel=1e-4, nan_ok=True)


@pytest.mark.parametrize("shape", [(40, 6), (5, 6), (6, 6)])
@pytest.mark.parametrize("centred", [True, False])
def test_rows_in_parts_have_the_spectrum_of_all_rows(shape, centred):
    rows = randn(*shape, seed=3) + 5.0
    gathered = RowSpectrum(centred=centred)
    for part in rows.float().split(2):
        gathered.add(part)
    whole = rows - rows.mean(0) if centred else rows
    expected = torch.linalg.svdvals(whole)
    found = gathered.singular_values()[: len(expected)]
    assert torch.allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("count", [3, 30])
def test_equal_rows_have_no_directions_once_they_are_centred(count):
    rows = torch.full((count, 5), 0.1)
    centred, raw = RowSpectrum(centred=True), RowSpectrum(centred=False)
    for part in rows.split(3):
        centred.add(part)
        raw.add(part)
    assert centred.singular_values().sum() == 0
    assert int((raw.singular_values() > 0).sum()) == 1


def test_rows_of_outputs():
    x = torch.arange(2 * 3 * 4.0).view(2, 3, 2, 2)
    assert feature_rows(x)[0].tolist() == x[0, :, 0, 0].tolist()
    assert feature_rows(x)[7].tolist() == x[1, :, 1, 1].tolist()
    assert feature_rows(torch.zeros(4, 5, 3)).shape == (20, 3)
    assert feature_rows(torch.zeros(4)).shape == (4, 1)
    assert feature_rows(torch.zeros(4, 3, dtype=torch.complex64)).shape == (4, 6)


class Layers(LightningModule):
    """One unit on (N, ...) inputs."""

    def __init__(self, unit):
        super().__init__()
        self.unit = unit

    def batch_loss(self, batch):
        return self.unit(batch[0]).square().mean()


@pytest.mark.parametrize(
    ("unit", "shape", "channel"),
    [
        (lambda: nn.Conv1d(3, 4, 3), (3, 9), 1),
        (lambda: nn.Sequential(nn.Conv1d(3, 4, 3), nn.BatchNorm1d(4), nn.ReLU()), (3, 9), 1),
        (lambda: nn.Linear(3, 4), (9, 3), -1),
        (lambda: nn.Linear(3, 4), (6, 5, 3), -1),
        (lambda: nn.Conv2d(3, 4, 3), (3, 6, 6), 1),
    ],
)
def test_directions_are_those_of_the_channels(unit, shape, channel):
    torch.manual_seed(0)
    module, x = Layers(unit().double()).eval(), randn(20, *shape)
    values = twin.measured(SignalRank(units=["unit"]), module, (x, torch.zeros(20)))
    with torch.no_grad():
        rows = module.unit(x).movedim(channel, -1).reshape(-1, 4)
    assert values["activation/L00"] == pytest.approx(entropic(rows - rows.mean(0)), rel=1e-4)


def test_an_output_of_known_directions():
    """A block that writes along two directions only, and one that writes nothing."""
    torch.manual_seed(0)
    module = BP(ResidualMLP(12, 16, 4, depth=2), Classification(4))
    with torch.no_grad():
        w2 = module.net.blocks[0].w2
        w2.weight.copy_(torch.linalg.qr(torch.randn(16, 2)).Q @ torch.randn(2, 16))
        module.net.blocks[1].w2.weight.zero_()
        module.net.blocks[1].w2.bias.zero_()
    values = twin.measured(SignalRank(), module, twin.batch(40))
    assert 1 < values["activation/L01"] <= 2 + 1e-3
    assert values["activation/L00"] > 5
    assert math.isnan(values["activation/L02"])
    assert math.isfinite(values["weight/L02"])  # of w1 alone


def test_the_update_is_that_of_the_last_step(tmp_path):
    torch.manual_seed(0)
    module = BP(MLP(20, [8], num_classes=5), Classification(5), optimizer=sgd)
    callback = SignalRank(every_n_steps=1, figure=False)
    x, y = torch.randn(4, 20), torch.randint(5, (4,))  # one batch: the probe is what is trained on
    loaders = [TensorLoader([x, y], batch_size=4, seed=0) for _ in range(2)]
    support.fit(tmp_path, module, callback, loaders=loaders, logger=False, max_epochs=2)
    first, second, _ = (row["values"] for row in callback.history.rows)
    assert math.isnan(first["rank/update/L00"])
    assert second["rank/update/L00"] == pytest.approx(first["rank/gradient/L00"], rel=1e-2)


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.1)


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
    values = twin.measured(SignalRank(), module, (x, y))
    assert values["credit/L00"] == pytest.approx(values["exact/L00"])
    if tokens:
        assert values["activation/L01"] > 5  # of 30 positions with 8 features
        return
    kernel = module.net.get_submodule(module.credit_units[0].split("+")[0].removeprefix("net."))
    found = next(p for p in kernel.parameters() if p.ndim > 1).flatten(1)
    assert values["weight/L00"] == pytest.approx(float(effective_rank(found)), rel=1e-5)


def test_a_foreign_module_and_frozen_units(tmp_path):
    callback = SignalRank(units=["model.embed", "model.blocks.*"], figure=False)
    support.fit(tmp_path, support.Validated(), callback, logger=False, max_epochs=1)
    values = callback.history.rows[-1]["values"]
    assert values["rank/credit/L01"] == pytest.approx(values["rank/exact/L01"])
    assert values["rank/update/L01"] >= 1
    frozen = twin.make(FrozenUnits)
    values = twin.measured(SignalRank(), frozen, twin.batch())
    assert math.isnan(values["gradient/L01"])
    assert values["weight/L01"] > 1


def test_a_rule_that_credits_parameters_has_no_credit(tmp_path):
    rule = ForwardGradient(MLP(20, [8], num_classes=5), Classification(5), perturb="weights")
    callback = SignalRank()
    trainer = support.quiet_trainer(max_epochs=1, callbacks=[callback], default_root_dir=tmp_path)
    trainer.fit(rule, support.loader(), support.loader())
    values = callback.history.rows[-1]["values"]
    assert math.isnan(values["rank/credit/L00"])
    assert values["rank/exact/L00"] > 1
    assert (tmp_path / "figures" / "signal_rank.png").exists()


def test_many_units_are_logged_by_their_aggregates_and_drawn_without_numbers(tmp_path):
    torch.manual_seed(0)
    module = BP(ResidualMLP(20, 6, 5, depth=23, w2_std=0.3), Classification(5))
    callback = SignalRank(n_samples=16)
    trainer = support.quiet_trainer(max_epochs=1, callbacks=[callback], default_root_dir=tmp_path)
    trainer.fit(module, support.loader(), support.loader())
    assert len(callback.history.rows[-1]["values"]) == 18 * 24
    assert "rank/weight/median" in trainer.callback_metrics
    _, cells, *bar = callback.report.figures["figure"].axes
    assert bar
    assert not cells.texts


def test_every_signal_has_a_chart_and_no_other_section():
    values = twin.measured(SignalRank(), twin.make(BP), twin.batch())
    assert {tag.split("/")[0] for tag in values} == {
        *SIGNALS,
        *(f"{signal}_{kind}" for signal in SIGNALS for kind in ("stable", "participation")),
    }
    assert set(SignalRank.charts) == set(SIGNALS)
