"""Relative updates in a training by hand; dead and saturated units by construction."""

import math

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule, seed_everything
from matplotlib import colors
from torch import nn
from torch.nn import functional as F

from lit_credit import diagnose
from lit_credit.callbacks import UpdateRatios
from lit_credit.callbacks.credit.update_figure import update_figure
from lit_credit.rules import DFA, FA
from tests import support
from tests.support import drawn, fit

IN, OUT = support.FEATURES, support.CLASSES


class Net(nn.Module):
    """A ReLU as a function, one as a module, and a tanh."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(IN, 10), nn.Linear(10, 8), nn.Linear(8, 6)
        self.relu, self.out = nn.ReLU(), nn.Linear(6, OUT)

    def forward(self, x):
        x = F.relu(self.a(x))
        return self.out(torch.tanh(self.c(self.relu(self.b(x)))))


class Plain(LightningModule):
    """Gradient descent, with a learning rate that shows in the update."""

    def __init__(self, net=Net, lr=0.1):
        seed_everything(1, verbose=False)
        super().__init__()
        self.net, self.lr = net(), lr
        self.seen = []

    def training_step(self, batch, batch_idx):
        loss = F.cross_entropy(self.net(batch[0]), batch[1])
        if self.trainer.sanity_checking is False and self.training:
            own = dict(self.net.named_parameters())
            found = torch.autograd.grad(loss, list(own.values()), retain_graph=True)
            self.seen.append(
                (
                    dict(zip(own, found, strict=True)),
                    {n: p.detach().clone() for n, p in own.items()},
                )
            )
        return loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.lr)


def values_of(found):
    return {tag.removeprefix("updates/"): v for tag, v in found.rows[-1]["values"].items()}


def test_under_gradient_descent_the_update_is_the_learning_rate_times_the_gradient(tmp_path):
    module, callback = Plain(), UpdateRatios(every_n_steps=3, figure=False)
    fit(tmp_path, module, callback, max_epochs=1)
    rows = callback.history.rows
    assert [row["step"] for row in rows] == [0, 3, 4]
    assert math.isnan(rows[0]["values"]["updates/ratio/total"])
    for row in rows[1:]:
        gradient, before = module.seen[row["step"] - 1]
        ratios = {}
        for layer in ("a", "b", "c", "out"):
            names = [f"{layer}.weight", f"{layer}.bias"]
            step = math.sqrt(sum(float((0.1 * gradient[n]).double().square().sum()) for n in names))
            after = [before[n] - 0.1 * gradient[n] for n in names]
            ratios[layer] = step, math.sqrt(sum(float(w.double().square().sum()) for w in after))
        values = row["values"]
        for index, (step, weight) in enumerate(ratios.values()):
            assert values[f"updates/ratio/L{index:02d}"] == pytest.approx(step / weight, rel=1e-3)
            assert values[f"updates/weight/L{index:02d}"] == pytest.approx(weight, rel=1e-5)
        step, weight = (math.hypot(*(r[i] for r in ratios.values())) for i in (0, 1))
        assert values["updates/ratio/total"] == pytest.approx(step / weight, rel=1e-3)
        each = [step / weight for step, weight in ratios.values()]
        assert values["updates/ratio/max"] == pytest.approx(max(each), rel=1e-3)
        assert values["updates/ratio/min"] == pytest.approx(min(each), rel=1e-3)


def probe(n=24):
    return support.tensors(n, seed=4)


def test_dead_and_saturated_units_by_construction():
    module = Plain()
    with torch.no_grad():
        module.net.a.bias[:4] = -100.0  # 4 of 10 never fire
        module.net.b.bias[3] = -100.0  # 1 of 8
        module.net.c.weight[:3] *= 1e4  # 3 of 6 are at a bound on nearly every sample
    x, y = probe()
    with torch.no_grad():
        a = module.net.a(x).relu()
        b = module.net.b(a).relu()
        c = module.net.c(b).tanh()
    found = values_of(
        diagnose(module, UpdateRatios(figure=False, chunk_size=7), (x, y))["update_ratios"]
    )
    dead = [float((h.amax(0) - h.amin(0) < 1e-6).double().mean()) for h in (a, b, c)]
    assert dead[0] >= 0.4
    for index, share in enumerate(dead):
        assert found[f"dead/L{index:02d}"] == pytest.approx(share)
    assert found["dead/max"] == pytest.approx(max(dead))
    total = (dead[0] * 10 + dead[1] * 8 + dead[2] * 6 + found["dead/L03"] * OUT) / (24 + OUT)
    assert found["dead/total"] == pytest.approx(total)
    saturated = float((c.abs() >= 0.98).double().mean())
    assert saturated > 0.3
    assert found["saturated/total"] == found["saturated/L02"] == pytest.approx(saturated, abs=0.02)
    assert "saturated/L00" not in found
    largest = float(module.net.c(b).detach().abs().max())
    assert found["activation/max"] == found["activation/L02"] == pytest.approx(largest, rel=1e-5)
    assert math.isnan(found["ratio/total"])  # nothing was trained


def test_the_gradient_is_that_of_the_whole_probe_and_of_the_rule():
    module, (x, y) = support.rule(FA, Net, units=["a", "b", "c"], readout=["out"]), probe()
    module.eval()
    _, scalar = module.surrogate((x, y))
    own = torch.autograd.grad(scalar, list(module.net.a.parameters()))
    expected = math.sqrt(sum(float(g.double().square().sum()) for g in own))
    for size in (None, 5):
        found = values_of(
            diagnose(module, UpdateRatios(figure=False, chunk_size=size), (x, y))["update_ratios"]
        )
        assert found["gradient/L00"] == pytest.approx(expected, rel=1e-5)


def test_units_gather_their_layers_and_other_layers_stand_alone(tmp_path):
    module = Plain()
    callback = UpdateRatios(units=["b", "c"], figure=False, every_n_steps=2)
    fit(tmp_path, module, callback, max_epochs=1)
    assert [group.name for group in callback.groups] == ["a", "b", "c", "out"]
    rule = support.rule(DFA)
    callback = UpdateRatios(figure=False)
    fit(tmp_path / "rule", rule, callback, max_epochs=1)
    assert len(callback.groups) > 1
    trained = {id(p) for p in rule.parameters() if p.requires_grad}
    held = [id(p) for group in callback.groups for p in group.parameters.values()]
    assert trained <= set(held)
    assert len(held) == len(set(held))


def test_a_conv_net_counts_channels():
    class Convs(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(1, 5, 3), nn.BatchNorm2d(5)
            self.head = nn.Linear(5, OUT)

        def forward(self, x):
            x = x[:, :9].unflatten(1, (1, 3, 3))
            return self.head(F.relu(self.norm(self.conv(F.pad(x, (1, 1, 1, 1))))).mean((2, 3)))

    module = Plain(Convs)
    with torch.no_grad():
        module.net.norm.weight[:2], module.net.norm.bias[:2] = 0.0, -1.0
    found = values_of(diagnose(module, UpdateRatios(figure=False), probe())["update_ratios"])
    assert found["dead/L01"] == pytest.approx(2 / 5)


def test_loggers_get_no_hundred_curves_of_a_deep_net(tmp_path):
    def deep():
        return nn.Sequential(nn.Linear(IN, OUT), *(nn.Linear(OUT, OUT) for _ in range(19)))

    module, callback = Plain(deep), UpdateRatios(every_n_steps=4)
    fit(tmp_path, module, callback, max_epochs=1)
    logged = [t for t in support.events(tmp_path).Tags()["scalars"] if t.startswith("updates/")]
    assert sorted(logged) == [
        "updates/activation/max",
        "updates/dead/max",
        "updates/dead/total",
        "updates/gradient/total",
        "updates/ratio/max",
        "updates/ratio/min",
        "updates/ratio/total",
        "updates/weight/total",
    ]
    assert "updates/ratio/L19" in callback.history.rows[-1]["values"]


def test_the_figure_shows_a_healthy_update_white_and_a_large_one_orange():
    values = {f"updates/ratio/{tag}": 1e-3 for tag in ("total", "min", "max", "L00")}
    values |= {"updates/ratio/L01": 0.9, "updates/dead/L01": 0.25, "updates/activation/L01": 9053.0}
    rows = [{"step": s, "epoch": s, "name": "", "values": values} for s in (1, 2)]
    figure = drawn(update_figure(rows, "updates", ["fc", "out"]))
    image = figure.axes[1].images[0]
    fc, out = (image.cmap(image.norm(x)) for x in (1e-3, 0.9))
    assert min(fc[:3]) > 0.99
    assert colors.rgb_to_hsv(out[:3])[1] > 0.8
    assert [t.get_text() for t in figure.axes[1].texts] == [
        "dead n/a, |x| n/a",
        "25% dead, |x| 9,100",
    ]
    assert "n/a" in {t.get_text() for t in drawn(update_figure([], "updates", [])).axes[0].texts}


class Beside(Plain):
    """A layer that does not run, and a parameter of the module itself."""

    def __init__(self):
        super().__init__()
        self.idle, self.scale = nn.Linear(2, 2), nn.Parameter(torch.ones(()))


def test_groups_that_do_not_run_leave_the_largest_activation_alone(tmp_path):
    callback = UpdateRatios(figure=False)
    fit(tmp_path, Beside(), callback, max_epochs=1)
    values = callback.history.rows[-1]["values"]
    of = [v for tag, v in values.items() if tag.startswith("updates/activation/L")]
    assert sum(map(math.isnan, of)) == 2
    assert values["updates/activation/max"] == max(v for v in of if not math.isnan(v))


class Lazy(nn.Module):
    """Its first layer finds its width in the first forward pass."""

    def __init__(self):
        super().__init__()
        self.a, self.out = nn.LazyLinear(10), nn.Linear(10, OUT)

    def forward(self, x):
        return self.out(torch.relu(self.a(x)))


@pytest.mark.filterwarnings("ignore:Lazy modules are a new feature", "ignore:.*uninitialized")
def test_layers_that_find_their_width_later_are_counted(tmp_path):
    class Module(Plain):
        def training_step(self, batch, batch_idx):
            return F.cross_entropy(self.net(batch[0]), batch[1])

        validation_step = training_step

    refused = pytest.raises(
        MisconfigurationException, match=r"'net\.a\.weight' has no shape .*batch"
    )
    with refused:
        fit(tmp_path, Module(Lazy), UpdateRatios(figure=False), max_epochs=1)
    module, callback = Module(Lazy), UpdateRatios(figure=False)
    fit(tmp_path, module, callback, max_epochs=1, num_sanity_val_steps=1)
    found = values_of(callback.history)
    assert found["weight/total"] == pytest.approx(
        math.sqrt(sum(float(p.detach().norm()) ** 2 for p in module.parameters())), rel=1e-5
    )
    assert found["weight/L00"] > 0
    assert found["ratio/total"] > 0
