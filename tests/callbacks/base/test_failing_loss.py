"""Losses that do not run on the probe: who says so, and what helps."""

from typing import Any

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset
from torchvision.models import googlenet
from torchvision.models.detection import fasterrcnn_mobilenet_v3_large_320_fpn

from lit_credit.callbacks import CreditAlignment, GradientNorms, ReferenceValidity, ResidualNorms
from lit_credit.rules import BP
from lit_credit.tasks import Classification
from tests import support


class Base(LightningModule):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(6, 6), nn.Dropout(0.5), nn.Linear(6, 4))

    def validation_step(self, batch, batch_idx):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


class Detection(Base):
    """Has losses in train mode, as torchvision's detectors."""

    def forward(self, images, targets=None):
        found = [self.net(image.mean((1, 2))[None, :2].repeat(1, 3)) for image in images]
        if not self.training:
            return [{"scores": scores} for scores in found]
        pairs = zip(found, targets, strict=True)
        return {"box": sum((x.mean() - t["boxes"].mean()) ** 2 for x, t in pairs), "objects": 1.0}

    def training_step(self, batch, batch_idx):
        return sum(loss for loss in self(*batch).values())


class Aux(Base):
    """Returns two outputs in train mode."""

    def forward(self, x):
        output = self.net(x)
        return (output, 2 * output) if self.training else output

    def training_step(self, batch, batch_idx):
        x, y = batch
        output, aux = self(x)
        return F.cross_entropy(output, y) + F.cross_entropy(aux, y)


class Views(Base):
    """Trains on two views, and validates on labels."""

    def training_step(self, batch, batch_idx):
        _, (one, other), _ = batch
        return (self.net(one) - self.net(other)).square().mean()


class Both(Aux):
    """Needs two views and train mode."""

    def training_step(self, batch, batch_idx):
        _, (one, other), y = batch
        return super().training_step((one + other, y), batch_idx)


class Labels(Base):
    """Has no loss without labels, as nets of Hugging Face."""

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self.net(batch["x"]), batch["y"]) if "y" in batch else None


def x(n):
    return torch.randn(n, 6, generator=torch.Generator().manual_seed(n))


def pairs(collate=None):
    rows = list(zip(x(12), torch.arange(12) % 4, strict=True))
    return DataLoader(rows, 4, collate_fn=collate)


def views():
    return DataLoader([[i, [v, v + 1], i % 4] for i, v in enumerate(x(12))], 4)


def images():
    rows = [(torch.ones(3, 4 + i, 4), {"boxes": torch.ones(i + 1, 4)}) for i in range(6)]
    return DataLoader(rows, 2, collate_fn=lambda rows: tuple(zip(*rows, strict=True)))


def mappings(**columns):
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return DataLoader(rows, 4)


Y = torch.arange(12) % 4
CASES: dict[str, tuple[Any, Any, str, str]] = {
    "detection": (Detection, (images, images), "'list' object has no attribute", "mode"),
    "aux": (Aux, (pairs, pairs), "too many values to unpack", "mode"),
    "views": (Views, (views, pairs), "not enough values to unpack", "probe"),
    "both": (Both, (views, pairs), "not enough values to unpack", "probe mode"),
    "labels": (
        Labels,
        (lambda: mappings(x=x(12), y=Y), lambda: mappings(x=x(12))),
        "returns NoneType, not a scalar loss",
        "probe",
    ),
}


def fit(folder, case, *callbacks, **options):
    kind, loaders = CASES[case][:2]
    module = kind()
    options = {"logger": False, "max_epochs": 1} | options
    support.trainer(folder, *callbacks, **options).fit(module, *(make() for make in loaders))
    return module


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("kind", [GradientNorms, ResidualNorms])
def test_the_callback_is_named_and_the_remedy_works(case, kind, tmp_path):
    _, _, says, working = CASES[case]
    with pytest.raises(MisconfigurationException) as raised:
        fit(tmp_path, case, kind(units=["net.0", "net.2"]))
    text = str(raised.value)
    assert text.startswith(f"{kind.__name__} runs {CASES[case][0].__name__}.training_step in eval")
    assert says in text
    for remedy in ('`probe="train"`', '`mode="train"`', "`loss`, a function of (module, batch)"):
        assert remedy in text
    arguments = [f'`{name}="train"`' for name in working.split()]
    assert text.endswith(f"It runs with {' and '.join(arguments)}.")
    assert len(text) < 1600
    assert isinstance(raised.value.__cause__, Exception)
    callback = kind(units=["net.0", "net.2"], **dict.fromkeys(working.split(), "train"))
    seen, bare = fit(tmp_path, case, callback), fit(tmp_path, case)
    assert support.same_state(seen, bare)
    assert all(
        abs(v) < float("inf") for row in callback.history.rows for v in row["values"].values()
    )


def test_the_line_that_failed_is_in_the_traceback(tmp_path):
    with pytest.raises(MisconfigurationException) as raised:
        fit(tmp_path, "aux", GradientNorms(units=["net.0"]))
    names, trace = [], raised.value.__cause__.__traceback__
    while trace is not None:
        names.append(trace.tb_frame.f_code.co_name)
        trace = trace.tb_next
    assert names[-1] == "training_step"


def own_loss(module, batch):
    return module.net(batch[0]).square().mean()


def broken(module, batch):
    raise KeyError("mine")


def test_a_loss_of_ones_own(tmp_path):
    fit(tmp_path, "views", GradientNorms(units=["net.0"], loss=own_loss))
    with pytest.raises(
        MisconfigurationException, match=r"the given `loss` in eval.*KeyError: 'mine'"
    ):
        fit(tmp_path, "views", GradientNorms(units=["net.0"], loss=broken))


def test_where_nothing_helps_nothing_is_promised(tmp_path):
    class Stream(IterableDataset):
        def __iter__(self):
            return iter(views())

    class Streamed(Views):
        def train_dataloader(self):
            return DataLoader(Stream(), batch_size=None)

    run = support.trainer(tmp_path, GradientNorms(units=["net.0"]), logger=False, max_epochs=1)
    with pytest.raises(MisconfigurationException) as raised:
        run.fit(Streamed(), val_dataloaders=pairs())
    assert "It runs with" not in str(raised.value)


def test_what_is_already_done_is_no_remedy(tmp_path):
    with pytest.raises(MisconfigurationException) as raised:
        fit(tmp_path, "both", GradientNorms(units=["net.0"], probe="train"))
    assert '`probe="train"` where' not in str(raised.value)
    assert str(raised.value).endswith('It runs with `mode="train"`.')


def test_an_error_of_the_diagnostic_stays_what_it_is(tmp_path):
    class Wrong(GradientNorms):
        name, section = "wrong", "wrong"

        def update(self, chunk):
            raise ZeroDivisionError("ours")

    with pytest.raises(ZeroDivisionError, match="ours"):
        fit(tmp_path, "aux", Wrong(units=["net.0"], mode="train"))


@pytest.mark.parametrize("callback", [GradientNorms, CreditAlignment, ReferenceValidity])
def test_a_rule_in_train_mode_looks_at_all_heads(callback, tmp_path):
    class Heads(nn.Module):
        credit_units = ("first",)
        readout = ("last", "aux")

        def __init__(self):
            super().__init__()
            self.first, self.last, self.aux = nn.Linear(6, 5), nn.Linear(5, 4), nn.Linear(5, 4)

        def forward(self, x):
            h = self.first(x).tanh()
            return {"out": self.last(h), "aux": self.aux(h)} if self.training else self.last(h)

    values = []
    for mode in ("eval", "train"):
        torch.manual_seed(0)
        found = callback(mode=mode, n_samples=6)
        rule = BP(Heads(), Classification(4, aux_weight=0.5))
        run = support.trainer(tmp_path / mode, found, logger=False, max_epochs=1)
        run.fit(rule, pairs(), pairs())
        values.append(found.history.rows[0]["values"])
    assert values[0].keys() == values[1].keys()
    if callback is GradientNorms:
        assert values[0] != values[1]


class FasterRCNN(Base):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = fasterrcnn_mobilenet_v3_large_320_fpn(
            weights=None, weights_backbone=None, num_classes=3, min_size=64, max_size=64
        )

    def training_step(self, batch, batch_idx):
        return sum(loss for loss in self.net(*batch).values())


def detections():
    box = torch.tensor([[4.0, 4.0, 40.0, 40.0]])
    rows = [
        (torch.rand(3, 64, 60 + i), {"boxes": box, "labels": torch.tensor([1])}) for i in range(2)
    ]
    return DataLoader(rows, 2, collate_fn=lambda rows: tuple(map(list, zip(*rows, strict=True))))


class GoogLeNet(Base):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = googlenet(weights=None, num_classes=4, init_weights=False)

    def training_step(self, batch, batch_idx):
        x, y = batch
        return sum(F.cross_entropy(output, y) for output in self.net(x))


def photos():
    return DataLoader(list(zip(torch.rand(2, 3, 64, 64), torch.arange(2), strict=True)), 2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "loader", "units"),
    [(FasterRCNN, detections, "net.backbone.body"), (GoogLeNet, photos, "net.inception5b")],
)
def test_nets_of_torchvision(kind, loader, units, tmp_path):
    options = {"logger": False, "max_steps": 1}
    run = support.trainer(tmp_path, GradientNorms(units=[units]), **options)
    with pytest.raises(MisconfigurationException, match=r'It runs with `mode="train"`'):
        run.fit(kind(), loader(), loader())
    modules = []
    for mode in (None, "train"):
        found = [GradientNorms(units=[units], mode=mode)] if mode else []
        modules.append(kind())
        torch.manual_seed(5)
        support.trainer(tmp_path, *found, **options).fit(modules[-1], loader(), loader())
    assert support.same_state(*modules)
    assert len(found[0].history.rows) == 2
