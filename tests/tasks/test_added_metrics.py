"""Metrics that are added to a task, and the task of any loss."""

import pytest
import torch
from torch import nn
from torchmetrics import MeanAbsoluteError
from torchmetrics.classification import MulticlassAccuracy

from lit_credit.models import MLP
from lit_credit.rules import BP
from lit_credit.tasks import Classification, EachMember, NextToken, Supervised
from tests.support import loader, quiet_trainer

TOP2 = {"top2": MulticlassAccuracy(5, top_k=2, average="micro")}
X = torch.randn(12, 5, generator=torch.Generator().manual_seed(0))
Y = torch.arange(12) % 5


def share_in_top2():
    return float((X.topk(2).indices == Y[:, None]).any(1).float().mean())


@pytest.mark.parametrize(
    ("task", "output", "target", "name"),
    [
        (Classification(5, metrics=TOP2), X, Y, "top2"),
        (Classification(5, aux_weight=0.3, metrics=TOP2), (X, X.flip(1)), Y, "top2"),
        (NextToken(metrics=TOP2), X.view(3, 4, 5), Y.view(3, 4), "top2"),
        (
            EachMember(Classification(5, metrics=TOP2), 2),
            torch.stack([X.flip(1), X]),
            Y,
            "top2/M01",
        ),
        (Supervised(nn.CrossEntropyLoss(), TOP2), X, Y, "top2"),
    ],
)
def test_an_added_metric_sees_the_output_of_every_task(task, output, target, name):
    first, second = task.metrics()[name], task.metrics()[name]
    first.update(output, target)
    first.reset()
    first.update(output, target)
    assert float(first.compute()) == pytest.approx(share_in_top2())
    assert not any(metric.update_called for metric in TOP2.values())
    assert not second.update_called


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        ({"accuracy": MeanAbsoluteError()}, "'accuracy', which is logged already"),
        ({"loss": MeanAbsoluteError()}, "'loss', which is logged already"),
        ({"mine": nn.MSELoss()}, r"`metrics\['mine'\]` of Classification is MSELoss, expected a"),
    ],
)
def test_a_taken_name_and_a_loss_are_refused(metrics, message):
    with pytest.raises(ValueError, match=message):
        Classification(5, metrics=metrics)


def test_added_metrics_are_validated_and_tested():
    rule = BP(MLP(20, [4], 5), Classification(5, metrics=TOP2))
    trainer = quiet_trainer(max_epochs=1)
    trainer.fit(rule, loader(), loader())
    assert trainer.callback_metrics["val/top2"] == trainer.callback_metrics["hp/top2"]
    (tested,) = trainer.test(rule, loader(), verbose=False)
    assert 0 <= tested["test/accuracy"] <= tested["test/top2"] <= 1


# Supervised


def test_entries_by_name_and_by_index():
    batch = {"x": X, "y": X[:, :1], "z": 2 * X}
    task = Supervised(nn.L1Loss(), inputs=["x", "z"], target="y")
    assert [id(part) for part in task.inputs(batch)] == [id(X), id(batch["z"])]
    assert float(task.loss(X[:, :1] + 1, batch)) == pytest.approx(1)
    assert Supervised(nn.L1Loss(), target=-1).target((X, None, Y)) is Y


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ({"x": X}, "reads batches with the names 'x', 'y', but was handed {x: float32"),
        ((X, Y), r"reads batches with the names 'x', 'y', but was handed \(float32"),
        (X, "reads batches with the names 'x', 'y', but was handed float32"),
    ],
)
def test_a_batch_without_the_entry_is_refused(batch, message):
    with pytest.raises(ValueError, match=message):
        Supervised(nn.MSELoss(), inputs="x", target="y").loss(X, batch)


def test_targets_that_torch_would_compare_all_with_all_are_refused():
    batch = X, X[:, 0]
    with pytest.raises(ValueError, match=r"the net's output is \(12, 1\) and the target \(12,\)"):
        Supervised(nn.MSELoss()).loss(X[:, :1], batch)
    assert float(Supervised(nn.MSELoss()).loss(X[:, 0], batch)) == 0
