"""Metrics that are not one number, and batches whose rows are not the first tensor's."""

import warnings

import pytest
import torch
from torch import nn
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix
from torchmetrics.wrappers import ClasswiseWrapper

from lit_credit.rules import BP
from lit_credit.tasks import Classification, EachMember
from tests.support import images, loader, quiet_trainer, seeded
from tests.support.resumable import mlp


class Late(Metric):
    """Computes what it was given, once it has seen something."""

    def __init__(self, value):
        super().__init__()
        self.value = value
        self.add_state("seen", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, output, target):
        self.seen += len(target)

    def compute(self):
        if self.seen < 1:
            raise ValueError("no samples")
        return self.value


class Few(Metric):
    """Needs more samples than a batch has."""

    def __init__(self):
        super().__init__()
        self.add_state("seen", torch.tensor(0.0), dist_reduce_fx="sum")

    def update(self, output, target):
        self.seen += len(target)

    def compute(self):
        if self.seen <= 16:
            raise ValueError("more than 16 samples are needed")
        return self.seen


def task(**metrics):
    class Own(Classification):
        def metrics(self):
            return super().metrics() | {name: make() for name, make in metrics.items()}

    return Own(5)


def fit(what, **kwargs):
    module = seeded(lambda: BP(mlp(), what))
    trainer = quiet_trainer(**({"max_epochs": 1, "num_sanity_val_steps": 2} | kwargs))
    trainer.fit(module, loader(), loader(n=32))
    return trainer


@pytest.mark.parametrize(
    ("make", "found"),
    [
        (lambda: MulticlassAccuracy(5, average=None), r"float32 \(5,\)"),
        (lambda: MulticlassConfusionMatrix(5), r"int64 \(5, 5\)"),
    ],
)
@pytest.mark.parametrize("inside", [lambda one: one, lambda one: EachMember(one, members=2)])
def test_a_metric_of_several_numbers_is_refused_when_the_rule_is_made(make, found, inside):
    with pytest.raises(ValueError, match=rf"metric 'classes\S* of .*{found}.*metric\(\)\[i\]"):
        BP(mlp(), inside(task(classes=make)))


@pytest.mark.parametrize(
    ("make", "found"),
    [
        (lambda: ClasswiseWrapper(MulticlassAccuracy(5, average=None)), "multiclassaccuracy_0: "),
        (lambda: Late({"a": torch.tensor(1.0)}), "a: float32"),
        (lambda: Late(torch.zeros(3)), r"float32 \(3,\)"),
        (lambda: Late(torch.zeros(0)), r"float32 \(0,\)"),
        (lambda: Late((torch.tensor(1.0), torch.tensor(2.0))), "float32"),
        (lambda: Late(0.5), "float, expected a tensor"),
    ],
)
def test_what_shows_with_data_alone_is_refused_at_the_first_batch(make, found):
    what = task(late=make)
    with pytest.raises(ValueError, match=f"metric 'val/late' of Own .*{found}"):
        fit(what)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Late(torch.tensor(0.5)),
        lambda: Late(torch.tensor([0.5])),
        lambda: Late(torch.tensor(float("nan"))),
        Few,
    ],
)
def test_one_number_is_taken(make):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert "val/one" in fit(task(one=make)).callback_metrics


def test_the_remedy_gives_one_metric_a_class():
    class PerClass(Classification):
        def metrics(self):
            def metric():
                return MulticlassAccuracy(5, average=None)

            return super().metrics() | {f"accuracy/{i}": metric()[i] for i in range(5)}

    trainer = fit(PerClass(5))
    module = trainer.lightning_module
    x, y = images(32)
    right = module.net(x).argmax(1) == y
    for i in range(5):
        expected = right[y == i].float().mean().item()
        assert trainer.callback_metrics[f"val/accuracy/{i}"].item() == pytest.approx(expected)


def test_the_check_leaves_metrics_as_they_were():
    trainer = fit(task(), num_sanity_val_steps=0)
    x, y = images(32)
    expected = (trainer.lightning_module.net(x).argmax(1) == y).float().mean().item()
    assert trainer.callback_metrics["val/accuracy"].item() == pytest.approx(expected)
    assert isinstance(trainer.lightning_module.net, nn.Module)
