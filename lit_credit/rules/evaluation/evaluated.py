"""Losses and metrics of a rule on validation and test data."""

from typing import Any

from lightning.pytorch.trainer.states import TrainerFn
from torch import nn
from torchmetrics import MeanMetric, Metric, MetricCollection

from lit_credit.rules.checkpoints.checkpointed import CheckpointedRule
from lit_credit.rules.evaluation.metrics import (
    check_computed,
    collection,
    compared,
    evaluated_rows,
    loader_metrics,
)
from lit_credit.rules.evaluation.monitors import check_monitors, warn_of_selection
from lit_credit.rules.evaluation.weight_modes import WeightModes
from lit_credit.rules.first_batch import check_loss, explaining
from lit_credit.tasks import Task
from lit_credit.trainer.logging import declare_metrics, log_hyperparameters
from lit_credit.trainer.trainer import evaluation_loaders

__all__ = ["EvaluatedRule"]


class EvaluatedRule(CheckpointedRule):
    """Evaluates a net by a task, in validation and in tests.

    Validation logs ``val/loss`` and the task's metrics, such as ``val/accuracy``. The metrics are
    logged again as ``hp/accuracy``, by which TensorBoard's HPARAMS compares runs. A test logs
    ``test/loss`` and ``test/accuracy``.

    Several loaders are evaluated one after the other. The first loader keeps these names, so runs
    with one loader and with several can be compared. The names of the other loaders end in their
    key or in their position: the second loader of ``{"id": ..., "ood": ...}`` logs
    ``val/loss/ood``, ``val/accuracy/ood`` and ``hp/accuracy/ood``, that of a list
    ``val/accuracy/1``.

    Optimizers with methods ``train`` and ``eval``, such as schedule-free ones, evaluate other
    weights than they train. Validation and tests see the evaluated weights, and the net keeps them
    after fit. Checkpoints hold both. Diagnostics see the trained weights.

    Args:
        net: any module.
        task: what a batch means.

    Raises:
        ValueError: if a metric of the task computes several numbers.
    """

    def __init__(self, net: nn.Module, task: Task) -> None:
        super().__init__()
        self.net = net
        self.task = task
        self.val_metrics = collection(task, "val/")
        self.test_metrics = self.val_metrics.clone(prefix="test/")
        # Not registered, so that a checkpoint does not depend on the number of loaders.
        self._loader_metrics: dict[str, MetricCollection] = {}
        self._passed: set[str] = set()  # "training" and "evaluation" once a batch has come through
        self._knows_loaders = False
        self._before_training: dict[str, Metric] = {}

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Loss and metrics on a validation batch."""
        self._evaluation_step(batch, "val", batch_idx, dataloader_idx)

    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Loss and metrics on a test batch."""
        self._evaluation_step(batch, "test", batch_idx, dataloader_idx)

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Any:
        """The net's output."""
        return self(*self.task.inputs(batch))

    # Hooks: names of metrics, and the weights of schedule-free optimizers

    def on_fit_start(self) -> None:
        """Refuse monitors of metrics that no loader logs; warn of those of test data."""
        self._knows_loaders = False
        self._modes = WeightModes()
        check_monitors(self.trainer, self)
        warn_of_selection(self.trainer)
        log_hyperparameters(self)

    def on_validation_start(self) -> None:
        """Switch to the evaluated weights; refuse monitors of loaders that do not exist."""
        self._check_loaders()
        if self.trainer.state.fn == TrainerFn.FITTING:
            self._modes.evaluate()

    def on_validation_end(self) -> None:
        """Switch back to the trained weights."""
        if self.trainer.state.fn == TrainerFn.FITTING:
            self._modes.train()

    def on_train_end(self) -> None:
        """Leave the evaluated weights in the net."""
        self._modes.evaluate()

    def on_validation_epoch_end(self) -> None:
        """Log the sanity check of several loaders; Lightning drops what its steps have logged."""
        for name, metric in self._before_training.items():
            self.log(name, metric, metric_attribute=name)
        self._before_training = {}

    def on_train_start(self) -> None:
        """Declare the metrics of all loaders, now known; switch to the trained weights."""
        self._modes = WeightModes(self.trainer.optimizers)
        self._modes.train()
        self._check_loaders()
        endings = evaluation_loaders(self.trainer) or [""]
        names = [compared(str(name)) for name in self.val_metrics.keys(keep_base=False)]
        declare_metrics(self, [f"{name}{ending}" for ending in endings for name in names])

    def _check_loaders(self) -> None:
        """Check monitors again in a fit, as soon as the names of the loaders are known."""
        fits = self.trainer.state.fn == TrainerFn.FITTING
        if fits and not self._knows_loaders and evaluation_loaders(self.trainer) is not None:
            self._knows_loaders = True
            check_monitors(self.trainer, self)

    # One batch

    def _evaluation_step(self, batch: Any, stage: str, batch_idx: int, dataloader_idx: int) -> None:
        metrics, ending = self._metrics_of(stage, batch_idx, dataloader_idx)
        with explaining(batch, self, self._passed, "evaluation"):
            inputs = self.task.inputs(batch)
            output = self(*inputs)
            loss = self.task.loss(output, batch)
            check_loss(loss, type(self.task).__name__)
            target = self.task.target(batch)
            metrics.update(output, target)
            if "evaluation" not in self._passed:
                check_computed(dict(metrics.items()), type(self.task).__name__)
        # The names of loaders are distinct already; Lightning would add `/dataloader_idx_1`.
        options: dict[str, Any] = {"on_epoch": True, "add_dataloader_idx": False}
        # The mean over batches is weighted by their numbers of samples.
        rows = evaluated_rows(inputs, target, output)
        self.log(f"{stage}/loss{ending}", loss, batch_size=rows, sync_dist=True, **options)
        for name, metric in metrics.items():
            options["metric_attribute"] = name  # so that Lightning does not search for it
            self.log(name, metric, prog_bar=not ending, **options)
            if stage == "val" and not self.trainer.sanity_checking:
                self.log(compared(name), metric, **options)
        if self.trainer.sanity_checking and len(evaluation_loaders(self.trainer) or ()) > 1:
            losses = self._before_training.setdefault(f"val/loss{ending}", MeanMetric())
            losses.to(self.device).update(loss, rows)
            self._before_training.update(metrics.items())

    def _metrics_of(self, stage: str, batch_idx: int, index: int) -> tuple[MetricCollection, str]:
        """The metrics of a loader, and the ending of its names."""
        first = self.val_metrics if stage == "val" else self.test_metrics
        if index == 0:
            return first, ""
        endings = evaluation_loaders(self.trainer) or []
        ending = endings[index] if index < len(endings) else f"/{index}"
        key = f"{stage}{ending}"
        if key not in self._loader_metrics:
            self._loader_metrics[key] = loader_metrics(first, ending)
        metrics = self._loader_metrics[key]
        return (metrics.to(self.device) if batch_idx == 0 else metrics), ending
