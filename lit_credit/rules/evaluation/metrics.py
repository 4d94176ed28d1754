"""The metrics of a task, one collection for each loader."""

import warnings
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from torch import Tensor
from torch.nn.utils.rnn import PackedSequence
from torchmetrics import Metric, MetricCollection

from lit_credit.tasks import Task
from lit_credit.utils.nested import described, first_tensor

__all__ = ["check_computed", "collection", "compared", "evaluated_rows", "loader_metrics"]


def collection(task: Task, prefix: str) -> MetricCollection:
    """Fresh metrics of a task.

    Args:
        task: what a batch means.
        prefix: the beginning of their names.

    Raises:
        ValueError: if a metric computes several numbers.
    """
    metrics: dict[str, Any] = dict(task.metrics())
    check_computed(metrics, type(task).__name__, fresh=True)
    # Disable compute groups: torchmetrics would merge metrics whose states happen to match on the
    # first batch.
    return MetricCollection(metrics, prefix=prefix, compute_groups=False)


def loader_metrics(first: MetricCollection, ending: str) -> MetricCollection:
    """The metrics of a further loader.

    Args:
        first: the metrics of the first loader.
        ending: the ending of the names of the returned metrics.

    Raises:
        ValueError: if a metric of the first loader has one of these names.
    """
    metrics = first.clone(postfix=ending)
    metrics.reset()
    known = set(map(str, first.keys(keep_base=False)))
    twice = known & set(map(str, metrics.keys(keep_base=False)))
    if twice:
        raise ValueError(
            f"the loader {ending[1:]!r} and the task both name a metric {min(twice)!r}. Give the "
            "loader another name."
        )
    return metrics


def compared(name: str) -> str:
    """The tag under which TensorBoard's HPARAMS shows a validation metric."""
    return f"hp/{name.removeprefix('val/')}"


def check_computed(metrics: Mapping[str, Metric], task: str, fresh: bool = False) -> None:
    """Refuse metrics that are not one number; Lightning does so only after a validation.

    Args:
        metrics: metrics by name; none of them is changed.
        task: name of their task, for the error.
        fresh: whether they have seen no batch; then an empty or failed computation proves nothing.

    Raises:
        ValueError: naming the metric, what it computes, and the remedy.
    """
    for name, metric in metrics.items():
        value = _computed(metric)
        if value is None or (isinstance(value, Tensor) and value.numel() == 1):
            continue
        if fresh and not (isinstance(value, Tensor) and value.numel()):
            continue
        raise ValueError(
            f"the metric {name!r} of {task} ({type(metric).__name__}) computes "
            f"{described(value, 200)}, expected a tensor with one number. Reduce it, as "
            "`average='macro'` does, or return one metric for each number from `metrics`: "
            "`{f'accuracy/{i}': metric()[i] for i in range(C)}`, where `metric()` makes a fresh "
            "one and `[i]` takes entry i of what it computes."
        )


def _computed(metric: Metric) -> Any:
    """The current value of a metric, in this process alone; None if it cannot be computed."""
    twin = deepcopy(metric)
    for part in twin.modules():
        if isinstance(part, Metric):
            part.sync_on_compute = False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about few samples, or none
        try:
            return twin.compute()
        except Exception:  # such as the error about too few samples
            return None


def evaluated_rows(inputs: Any, target: Any, output: Any) -> int:
    """The number of samples over which the loss of a batch is averaged.

    A target tensor has one entry per sample, even if the inputs are graphs or packed sequences. If
    the target is not a tensor, the inputs are counted; if they have no tensor, the output.

    Args:
        inputs: the inputs of the net.
        target: what the metrics compare the output with.
        output: the output of the net; the first dimension of an ensemble's output is the member.

    Example:
        >>> import torch
        >>> nodes, edges = torch.zeros(9, 2), torch.zeros(2, 20)
        >>> evaluated_rows((nodes, edges), torch.zeros(3), torch.zeros(3, 5))
        3
    """
    for value in (target if isinstance(target, Tensor) else None, inputs, output):
        if isinstance(value, PackedSequence):
            return int(value.batch_sizes[0])
        tensor = first_tensor(value)
        if tensor is not None and tensor.dim():
            return len(tensor)
    return 1
