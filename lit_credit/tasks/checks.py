"""Checking that a batch and the output of a net have the form that a task expects."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from lit_credit.utils.nested import described

__all__ = ["entry", "tensor_output"]


def entry(batch: Any, index: int | str, task: nn.Module, form: str = "(x, y)") -> Any:
    """An entry of a batch that is a tuple or a mapping.

    Args:
        batch: batch of the datamodule.
        index: index of the entry, or its name in a mapping.
        task: task that reads the batch, for the error.
        form: form that the task expects, for the error.

    Raises:
        ValueError: if the batch has no such entry, or is a tensor or a text.
    """
    if isinstance(batch, Mapping):
        unreadable = index not in batch
    else:
        short = isinstance(batch, tuple | list) and not (
            isinstance(index, int) and -len(batch) <= index < len(batch)
        )
        unreadable = short or isinstance(batch, Tensor | str)
    if unreadable:
        raise ValueError(
            f"{type(task).__name__} reads batches {form}, but was handed {described(batch)}. Have "
            "the datamodule hand out such batches (a `collate_fn` of its DataLoader can), take the "
            "task `Supervised`, whose `inputs` and `target` are names or indices, or write a Task "
            "whose `inputs`, `loss` and `target` read these batches."
        )
    return batch[index]


def tensor_output(output: Any, task: nn.Module) -> Tensor:
    """The net's output, which must be a tensor.

    Raises:
        ValueError: if it is not a tensor, such as a tuple, a mapping or None.
    """
    if not isinstance(output, Tensor):
        raise ValueError(
            f"{type(task).__name__} compares a tensor, but the net returns {described(output)}. "
            "Wrap the net in a module that returns the logits alone, or write a Task whose `loss` "
            "and metrics take what it returns."
        )
    return output
