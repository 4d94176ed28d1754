"""How many samples a batch holds."""

from typing import Any

from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from lit_credit.utils.nested import first_tensor

__all__ = ["evaluated_rows"]


def evaluated_rows(inputs: Any, target: Any, output: Any) -> int:
    """The samples over which the loss of a batch is a mean.

    A target that is a tensor has one entry a sample, also where the inputs are graphs or packed
    sequences. Of other targets the inputs count, and of inputs without a tensor the output.

    Args:
        inputs: of the net.
        target: what the metrics compare the output with.
        output: of the net; an ensemble's has the members first.

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
