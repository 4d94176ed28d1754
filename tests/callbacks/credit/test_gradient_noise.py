"""Noise of gradients that are known, and of nets against a loop over rows."""

import math

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

import lit_credit
from lit_credit.callbacks import GradientNoise
from lit_credit.callbacks.base.chunk import Chunk
from lit_credit.callbacks.credit.noise_figure import noise_figure
from lit_credit.rules import BP, DFA, FA
from tests import support
from tests.callbacks import twin
from tests.support import quiet_trainer

DOUBLE = torch.float64


def chunks(module, data, sizes):
    parts = zip(*(part.split(sizes) for part in data), strict=True)
    return [Chunk(module, p, n, n / sum(sizes)) for p, n in zip(parts, sizes, strict=True)]


def measured(callback, module, data, sizes):
    callback.prepare(support.trainer(None, logger=False), module.eval())
    return callback.measure(module, chunks(module, data, sizes))


class Linear(LightningModule):
    """The loss of a row is <w, x>: its gradient is x, whatever w is."""

    def __init__(self, width):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(width, dtype=DOUBLE))

    def training_step(self, batch, batch_idx):
        return (batch[0] @ self.w).mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def gaussian(rows, width=50, mean=0.3, sd=2.0):
    noise = torch.randn(rows, width, generator=torch.Generator().manual_seed(0), dtype=DOUBLE)
    return mean + sd * noise


def test_gaussian_gradients_in_closed_form():
    values = measured(GradientNoise(groups=64), Linear(50), [gaussian(8192)], [1000] * 8 + [192])
    # d sd^2 / |mean|^2 rows; the halves have a power of 4.5 + 200 / 4096 each, 4.5 in common.
    assert values["scale"] == pytest.approx(200 / 4.5, rel=0.05)
    assert values["cosine"] == pytest.approx(4.5 / (4.5 + 200 / 4096), abs=0.005)
    assert values["exact_scale"] == values["scale"]


def test_no_signal_is_undefined():
    x = gaussian(16, mean=0.0)
    values = measured(GradientNoise(groups=16), Linear(50), [x - x.mean(0)], [16])
    assert math.isnan(values["scale"])
    assert values["cosine"] == pytest.approx(-1)


def by_hand(gradients, count):
    """Noise scale and cosine from the gradients of single rows, (N, P)."""
    rows = len(gradients) // count
    groups = gradients[: count * rows].reshape(count, rows, -1).mean(1)
    noise = rows * float(groups.var(0).sum())
    signal = float(groups.mean(0).square().sum()) - noise / (rows * count)
    one, other = groups[: count // 2].mean(0), groups[count // 2 :].mean(0)
    cosine = float(one @ other / one.norm() / other.norm())
    return noise / signal if signal > 0 else math.nan, cosine


def row_gradients(module, x, y, feedback=None):
    """The gradient of each row's loss by each parameter, in a loop."""
    p, found = twin.parameters(module), []
    for n in range(len(x)):
        loss = F.cross_entropy(twin.run(p, x[n : n + 1], feedback)[2], y[n : n + 1])
        found.append(torch.autograd.grad(loss, list(p.values())))
    return {name: torch.stack([row[i].flatten() for row in found]) for i, name in enumerate(p)}


@pytest.mark.parametrize("rule", [BP, FA])
def test_noise_of_a_net_is_that_of_a_loop_over_rows(rule):
    module, (x, y) = twin.make(rule).double(), twin.batch(26)
    x = x.double()
    pairs = module.feedback_matrices() if rule is FA else {}
    feedback = {name.removeprefix("net."): pair.feedback for name, pair in pairs.items()} or None
    values = measured(GradientNoise(groups=6), module, (x, y), [26])
    for prefix, matrices in (("", feedback), ("exact_", None)):
        rows = row_gradients(module, x, y, matrices)
        units = ["embed", "blocks.0", "blocks.1", "blocks.2"]
        parts = {f"/L{i:02d}": f"{unit}." for i, unit in enumerate(units)} | {"": ""}
        for label, start in parts.items():
            of_part = torch.cat([g for name, g in rows.items() if name.startswith(start)], 1)
            found = values[f"{prefix}scale{label}"], values[f"{prefix}cosine{label}"]
            assert found == pytest.approx(by_hand(of_part, 6), nan_ok=True)
    assert (values["scale"] == values["exact_scale"]) == (rule is BP)


@pytest.mark.parametrize("sizes", [[10, 10, 4], [1] * 24, [7, 17]])
def test_chunks_change_nothing_but_rounding(sizes):
    module, (x, y) = twin.make(DFA).double().eval(), twin.batch()
    data = x.double(), y
    module.credit(data)  # draws B
    whole = measured(GradientNoise(groups=4), module, data, [24])
    found = measured(GradientNoise(groups=4), module, data, sizes)
    assert found == pytest.approx(whole, nan_ok=True)
    assert found["scale"] != found["exact_scale"]


def test_tiny_gradients_have_the_noise_scale_of_large_ones():
    module, data = Linear(50).float(), gaussian(64).float()
    whole = measured(GradientNoise(), module, [data], [64])
    tiny = measured(GradientNoise(), module, [data * 1e-30], [64])
    assert tiny == pytest.approx(whole, rel=1e-4)


def fitted(tmp_path, callback, **options):
    trainer = quiet_trainer(max_steps=2, callbacks=[callback], default_root_dir=tmp_path, **options)
    data = DataLoader(list(gaussian(64)[:, None]), batch_size=8)
    other = DataLoader(list(-gaussian(64)[:, None]), batch_size=8)
    trainer.fit(Batched(50), data, other)
    return trainer, data, other


class Batched(Linear):
    def training_step(self, batch, batch_idx):
        return (batch[:, 0] @ self.w).mean()

    def validation_step(self, batch, batch_idx):
        pass

    test_step = validation_step


def test_the_probe_of_a_fit_is_training_data_and_the_batch_is_that_of_an_update(tmp_path):
    callback = GradientNoise(figure=False)
    trainer, _, other = fitted(tmp_path, callback, accumulate_grad_batches=2)
    assert torch.equal(callback.probe.chunks[0], gaussian(64)[:8, None])
    values = callback.history.rows[0]["values"]
    assert callback._batch == 16
    assert values["noise/snr"] == pytest.approx(16 / values["noise/scale"])
    measure = GradientNoise(figure=False)
    trainer = quiet_trainer(callbacks=[measure], default_root_dir=tmp_path, logger=False)
    trainer.validate(Batched(50), other)
    assert torch.equal(measure.probe.chunks[0], -gaussian(64)[:8, None])
    assert measure.source == "train"
    assert len(measure.history.rows) == 1


def test_a_schedule_of_accumulation_counts_from_its_first_epoch(tmp_path):
    callback = GradientNoise(figure=False)
    schedule = GradientAccumulationScheduler({0: 2, 1: 4})
    trainer = quiet_trainer(
        max_epochs=2, callbacks=[callback, schedule], default_root_dir=tmp_path, logger=False
    )
    data = DataLoader(list(gaussian(64)[:, None]), batch_size=8)
    trainer.fit(Batched(50), data, data)
    found = [row["values"] for row in callback.history.rows]
    products = [values["noise/snr"] * values["noise/scale"] for values in found]
    assert products == [pytest.approx(batch) for batch in (16, 16, 32)]


def test_diagnose_takes_the_data_that_it_is_given():
    net = nn.Linear(50, 1).double()
    found = lit_credit.diagnose(
        net, GradientNoise(), gaussian(64), loss=lambda net, x: net(x).mean()
    )
    values = found["gradient_noise"].values
    assert values["noise/scale"] > 0
    assert "noise/snr" not in values


def test_one_row_has_no_noise():
    with pytest.raises(MisconfigurationException, match=r"the probe has 1 row.*`n_samples`"):
        measured(GradientNoise(), Linear(50), [gaussian(1)], [1])


@pytest.mark.parametrize("groups", [0, 1, 3])
def test_groups_are_two_halves(groups):
    with pytest.raises(ValueError, match=f"`groups` is {groups}"):
        GradientNoise(groups=groups)


def test_of_many_units_loggers_get_the_total():
    callback = GradientNoise()
    few = {"noise/scale": 1.0} | {f"noise/scale/L{layer:02d}": 2.0 for layer in range(16)}
    assert callback.logged(few) == few
    assert callback.logged(few | {"noise/scale/L16": 2.0}) == {"noise/scale": 1.0}


def row(epoch, **values):
    values = {f"noise/{tag}": value for tag, value in values.items()}
    return {"step": epoch, "epoch": epoch, "name": "gradient_noise", "values": values}


def test_the_figure_shows_the_batch_beside_the_noise_scale():
    rows = [row(0, scale=10.0, exact_scale=20.0, cosine=0.5), row(1, scale=1e3, cosine=0.1)]
    left, right = noise_figure(rows, batch=32).axes
    assert any(line.get_ydata()[0] == 32 for line in left.lines)
    assert "above a batch (32 rows): noise dominates it" in [t.get_text() for t in left.texts]
    assert right.get_title(loc="left") == "Agreement of two half probes"
    by_unit = [row(0, scale=1.0, **{"scale/L00": 3.0, "scale/L01": 5.0})]
    right = noise_figure(by_unit, names=["embed", "blocks.0"]).axes[1]
    assert [t.get_text() for t in right.get_xticklabels()] == ["embed", "blocks.0"]
