"""Writing scalars, figures, text and hyperparameters to all loggers of a Trainer."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

from lit_credit.protocols import LoggerProtocol, method
from lit_credit.trainer.curves_again import CHARTS, HYPERPARAMETERS, already_written
from lit_credit.trainer.hyperparameters import hyperparameters_of, summaries
from lit_credit.utils.both_packages import is_a
from lit_credit.utils.private_names import file_writer, prefixed

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "VALIDATION_CHARTS",
    "declare_metrics",
    "log_charts",
    "log_figure",
    "log_hyperparameters",
    "log_scalars",
    "log_text",
]


VALIDATION_CHARTS: Mapping[str, dict[str, list[Any]]] = {
    "val": {
        "metrics": ["Multiline", [r"^val[/_](?!loss)[^/]*$"]],
        "loss": ["Multiline", [r"^val[/_]loss$"]],
    }
}
"""The first charts of TensorBoard's custom scalars: what runs are compared by."""


_described: WeakKeyDictionary[Any, set[str]] = WeakKeyDictionary()
"""The tags whose description a logger has been given."""


def log_scalars(
    trainer: Trainer,
    values: Mapping[str, float],
    step: int,
    describe: Callable[[str], str] | None = None,
) -> None:
    """Write finite scalars to every logger at ``step``, on rank zero.

    Scheduled values do not use ``self.log``, which shifts or loses points that are not on the
    Trainer's own schedule.

    Args:
        trainer: the Trainer.
        values: numbers by tag.
        step: optimizer steps taken.
        describe: the description of a tag, in Markdown. TensorBoard shows it beside the chart.
    """
    finite = {tag: value for tag, value in values.items() if math.isfinite(value)}
    for logger in trainer.loggers if finite else ():
        rest = finite
        if describe is not None and is_a(logger, TensorBoardLogger):
            known = _described.setdefault(logger, set())
            new = {tag: value for tag, value in finite.items() if tag not in known}
            rest = {tag: value for tag, value in finite.items() if tag in known}
            _log_described(logger, new, step, describe)
            known |= set(new)
        if rest:
            logger.log_metrics(rest, step=step)


@rank_zero_only
def _log_described(
    logger: Any, values: Mapping[str, float], step: int, describe: Callable[[str], str]
) -> None:
    """Write the first value of each tag, with the description that TensorBoard takes from it."""
    from tensorboard.compat.proto.summary_pb2 import DATA_CLASS_SCALAR, Summary, SummaryMetadata

    found = [
        Summary.Value(
            tag=prefixed(logger, tag),
            simple_value=value,
            # Without class and plugin, TensorBoard's fast reader drops the description.
            metadata=SummaryMetadata(
                summary_description=describe(tag),
                data_class=DATA_CLASS_SCALAR,
                plugin_data=SummaryMetadata.PluginData(plugin_name="scalars"),
            ),
        )
        for tag, value in values.items()
    ]
    if found:
        file_writer(logger.experiment).add_summary(Summary(value=found), step)


def log_figure(trainer: Trainer, tag: str, figure: "Figure", step: int) -> None:
    """Write a figure to every TensorBoard logger, and to loggers with ``log_image``, as W&B's."""
    for logger in trainer.loggers:
        if is_a(logger, TensorBoardLogger):
            logger.experiment.add_figure(tag, figure, global_step=step, close=False)
        elif (log_image := method(logger, LoggerProtocol.log_image)) is not None:
            log_image(tag, [figure], step=step)


def log_text(trainer: Trainer, tag: str, text: str, step: int) -> None:
    """Write Markdown to every TensorBoard logger."""
    for logger in trainer.loggers:
        if is_a(logger, TensorBoardLogger):
            logger.experiment.add_text(tag, text, global_step=step)


def log_charts(trainer: Trainer, layout: Mapping[str, Mapping[str, list[Any]]]) -> None:
    """Lay out TensorBoard's custom scalars, once per run: a second layout overwrites the first."""
    for logger in trainer.loggers:
        if layout and is_a(logger, TensorBoardLogger):
            # Slow to load.
            from torch.utils.tensorboard.summary import custom_scalars

            (new,) = custom_scalars(layout).value  # type: ignore[no-untyped-call]
            if already_written(logger, CHARTS) != new:
                logger.experiment.add_custom_scalars(layout)


def log_hyperparameters(module: LightningModule) -> None:
    """Send the hyperparameters to the loggers; TensorBoard gets them with :func:`declare_metrics`.

    Args:
        module: a module attached to a Trainer.
    """
    for logger in module.trainer.loggers:
        if is_a(logger, TensorBoardLogger):
            logger.hparams.update(_hyperparameters(module))  # for its file `hparams.yaml`
        else:
            logger.log_hyperparams(_hyperparameters(module))


def declare_metrics(module: LightningModule, metrics: Sequence[str]) -> None:
    """Declare the metrics that compare runs, once per run.

    TensorBoard's HPARAMS tab shows only metrics that were declared together with the
    hyperparameters.

    Args:
        module: a module attached to a Trainer.
        metrics: the names under which they are logged.
    """
    for logger in module.trainer.loggers:
        if is_a(logger, TensorBoardLogger) and not already_written(logger, HYPERPARAMETERS):
            _declare(logger, module, metrics)


@rank_zero_only
def _declare(logger: Any, module: LightningModule, metrics: Sequence[str]) -> None:
    logger.log_metrics(dict.fromkeys(metrics, math.nan))
    for summary in summaries(hyperparameters_of(module), metrics):
        file_writer(logger.experiment).add_summary(summary)


def _hyperparameters(module: LightningModule) -> dict[str, Any]:
    # Keys with an underscore are LightningCLI's own.
    plain = {name: value for name, value in module.hparams.items() if not name.startswith("_")}
    return {"rule": type(module).__name__, **plain}
