"""Targets in the shape of a net's output."""

from typing import Any

from torch import Tensor
from torch.nn.functional import one_hot

from lit_credit.utils.nested import described

__all__ = ["one_hot_target"]


def one_hot_target(target: Any, output: Tensor, task: str, argument: str) -> Tensor:
    """The target in the shape and dtype of the output: one-hot rows, or a target that has it.

    Args:
        target: classes (N, ...), or numbers of the output's shape. A negative class, such as the
            ``ignore_index`` of a loss, gives zeros.
        output: the net's output, or its error, (N, ..., C).
        task: name of the task, for the error.
        argument: the argument that needs the target and its value, for the error.

    Raises:
        ValueError: if the target has another shape, or is not a tensor.

    Example:
        >>> import torch
        >>> one_hot_target(torch.tensor([1, -1]), torch.zeros(2, 3), "", "")
        tensor([[0., 1., 0.],
                [0., 0., 0.]])
    """
    if isinstance(target, Tensor):
        if target.shape == output.shape:
            return target.to(output.dtype)
        if target.shape == output.shape[:-1] and not target.is_floating_point():
            known = target >= 0
            rows = one_hot(target.clamp(min=0), output.shape[-1]).to(output.dtype)
            return rows * known.unsqueeze(-1)
    raise ValueError(
        f"{argument} needs a target for each output, but the target of {task} is "
        f"{described(target)}, expected classes {tuple(output.shape[:-1])} or numbers "
        f"{tuple(output.shape)}. Choose another value, or a task with such a target."
    )
