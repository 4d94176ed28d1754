"""Inputs into which a label is written."""

from typing import Any

import torch
from torch import Tensor

from lit_credit.rules.goodness import unit_rms
from lit_credit.tasks import Task
from lit_credit.utils.nested import described

__all__ = ["inputs_and_classes", "labelled", "with_label"]


def inputs_and_classes(task: Task, batch: Any) -> tuple[tuple[Any, ...], Tensor]:
    """The inputs of the net, and the classes (N,), of a batch.

    Raises:
        ValueError: if the first input is not a tensor of real numbers (N, ...), or the target is
            not one class, from 0 on, for each sample.
    """
    inputs, target = task.inputs(batch), task.target(batch)
    first, name = inputs[0], type(task).__name__
    if not isinstance(first, Tensor) or not first.is_floating_point() or first.dim() < 2:
        raise ValueError(
            f"ForwardForward writes the label into the input, but that of {name} is "
            f"{described(first)}, expected floating-point numbers (N, ...). Tokens have no entries "
            "for it: train such a net by LocalLosses or DFA."
        )
    classes = isinstance(target, Tensor) and not target.is_floating_point()
    if not classes or target.shape != first.shape[:1]:
        raise ValueError(
            f"ForwardForward needs one class per sample, but the target of {name} is "
            f"{described(target)}, expected classes ({len(first)},). Train by LocalLosses or DFA "
            "instead."
        )
    return inputs, target.long()


def labelled(inputs: tuple[Any, ...], label: Tensor, normalize: bool) -> tuple[Any, ...]:
    """The inputs of the net, the first with a label (N, C) and, if asked, unit rms.

    Raises:
        ValueError: if a sample has fewer numbers than the label.
    """
    first, *others = inputs
    if first[0].numel() < label.shape[1]:
        raise ValueError(
            f"the input is {tuple(first.shape)}, less than the {label.shape[1]} entries of a "
            "sample that its label takes."
        )
    marked = with_label(first, label)
    return (unit_rms(marked) if normalize else marked, *others)


def with_label(inputs: Tensor, label: Tensor) -> Tensor:
    """Inputs whose first entries are a label.

    Args:
        inputs: (N, ...).
        label: (N, C), such as one-hot rows.

    Returns:
        A new tensor in the shape of ``inputs``; the first C entries of each sample are the label.

    Example:
        >>> with_label(torch.ones(1, 2, 2), torch.tensor([[0.0, 5.0, 0.0]]))
        tensor([[[0., 5.],
                 [0., 1.]]])
    """
    rest = inputs.flatten(1)[:, label.shape[1] :]
    return torch.cat([label.to(inputs), rest], dim=1).view(inputs.shape)
