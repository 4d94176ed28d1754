"""A plain multilayer perceptron."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

from torch import Tensor, nn

from lit_credit.models.checks import flat_features
from lit_credit.utils.ranges import check_sizes

__all__ = ["MLP"]

_ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh, "gelu": nn.GELU, "identity": nn.Identity}


class MLP(nn.Module):
    """Hidden layers ``h_{k+1} = activation(W_k h_k + b_k)`` and a linear head; one unit per layer.

    Args:
        in_features: numbers per sample; inputs are flattened to this size.
        hidden: features of each hidden layer, for example ``[512, 512]``.
        num_classes: numbers per output.
        activation: activation of the hidden layers; ``identity`` makes a linear net.

    Example:
        >>> import torch
        >>> net = MLP(in_features=64, hidden=[32, 32])
        >>> net(torch.zeros(2, 1, 8, 8)).shape, net.credit_units
        (torch.Size([2, 10]), ['layers.0', 'layers.1'])
    """

    def __init__(
        self,
        in_features: int = 784,
        hidden: Sequence[int] = (512, 512, 512),
        num_classes: int = 10,
        activation: Literal["relu", "tanh", "gelu", "identity"] = "relu",
    ) -> None:
        super().__init__()
        if not hidden:
            raise ValueError("`hidden` is empty; give the size of at least one hidden layer.")
        check_sizes(in_features=in_features, num_classes=num_classes)
        check_sizes(hidden=hidden)
        self.in_features = in_features
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Linear(fan_in, fan_out), _ACTIVATIONS[activation]())
            for fan_in, fan_out in pairwise([in_features, *hidden])
        )
        self.head = nn.Linear(hidden[-1], num_classes)

    @property
    def credit_units(self) -> list[str]:
        """The hidden layers, in forward order."""
        return [f"layers.{index}" for index in range(len(self.layers))]

    @property
    def readout(self) -> list[str]:
        """The head, which learns from the true gradient."""
        return ["head"]

    @property
    def residual_stream(self) -> list[str]:
        """The submodules whose inputs are the hidden activations."""
        return [*self.credit_units[1:], "head"]

    def forward(self, x: Tensor) -> Tensor:
        """Map a batch (N, ...) with ``in_features`` numbers per sample to logits (N, C).

        Raises:
            ValueError: if a sample does not have ``in_features`` numbers.
        """
        h = flat_features(x, self.in_features)
        for layer in self.layers:
            h = layer(h)
        logits: Tensor = self.head(h)
        return logits
